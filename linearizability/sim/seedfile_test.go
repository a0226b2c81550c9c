package sim

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/linearizability"
)

// Each plan that failed once passes for ever.
func TestKeptSeeds(t *testing.T) {
	files, err := filepath.Glob("testdata/seeds/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	skipped := 0
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			f, err := ReadSeedFile(path)
			var old *VersionError
			if errors.As(err, &old) {
				skipped++
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if f.Fixed == "" || f.Found == "" {
				t.Error("it does not say what was found, or what the fix was")
			}
			passes(t, f.Plan)
		})
	}
	if skipped > 0 {
		t.Errorf("%d of %d kept plans are of another version: draw them anew or delete them", skipped, len(files))
	}
}

func TestSeedFileIsReadAsItWasWritten(t *testing.T) {
	f := &SeedFile{Found: "a", Fixed: "b", Checker: "c", Plan: Draw(5, Only{})}
	path := filepath.Join(t.TempDir(), "seed.json")
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSeedFile(path)
	if err != nil || !reflect.DeepEqual(clonePlan(f.Plan), got.Plan) {
		t.Errorf("%v\n%+v\n%+v", err, f.Plan, got.Plan)
	}
}

func TestBadSeedFiles(t *testing.T) {
	good := `{"Found":"x","Plan":{"Version":1,"Nodes":3,"Ranges":1,"Clients":1,"Length":1,"Think":1,"Workload":["set"]}}`
	if _, err := decodeSeedFile([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"a later version":     {`"Version":1`, `"Version":2`},
		"an unknown field":    {`"Nodes":3`, `"Nodes":3,"Moons":1`},
		"an unknown fault":    {`"Nodes":3`, `"Nodes":3,"Faults":[{"Kind":"meteor"}]`},
		"too few nodes":       {`"Nodes":3`, `"Nodes":1`},
		"a node that is none": {`"Nodes":3`, `"Nodes":3,"Faults":[{"Kind":"cut-pair","Peers":[9]}]`},
		"cut short":           {`"set"]}}`, `"set"`},
	} {
		if _, err := decodeSeedFile([]byte(strings.Replace(good, change[0], change[1], 1))); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := ReadSeedFile("testdata/none.json"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// Shrink keeps what the failure needs, here two faults of many and one client, and drops the rest.
func TestShrink(t *testing.T) {
	p := Draw(3, Only{})
	p.Faults = nil
	for i := range 20 {
		p.Faults = append(p.Faults, Fault{Kind: "kill", At: time.Duration(i) * time.Second, Amount: int64(i)})
	}
	runs := 0
	fails := func(p *Plan) *Result {
		runs++
		has := func(n int64) bool {
			return slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Amount == n })
		}
		r := &Result{Plan: p}
		if has(7) && has(13) && p.Clients >= 1 {
			r.Violations = []linearizability.Violation{{Checker: "it"}}
		} else if has(3) {
			r.Violations = []linearizability.Violation{{Checker: "something else"}}
		}
		return r
	}
	small, r := Shrink(p, 500, fails, nil)
	if len(small.Faults) != 2 || small.Clients != 1 || small.Ranges != 1 || small.Nodes != 3 || r.Passed() {
		t.Errorf("%d runs: %+v", runs, small)
	}
	runs = 0
	if Shrink(p, 5, fails, nil); runs > 6 {
		t.Errorf("%d runs with a budget of 5", runs)
	}
}

// What is drawn is valid, every kind is drawn, and some seeds have no fault at all.
func TestDraw(t *testing.T) {
	drawn, calm, pebble := map[FaultKind]int{}, 0, 0
	for seed := range uint64(1000) {
		p := Draw(seed, Only{})
		if err := p.Validate(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, f := range p.Faults {
			drawn[f.Kind]++
		}
		if len(p.Faults) == 0 {
			calm++
		}
		if p.Pebble {
			pebble++
		}
	}
	for _, f := range Faults() {
		if drawn[f.Kind] == 0 {
			t.Errorf("%s was never drawn", f.Kind)
		}
	}
	if calm < 20 || pebble < 5 {
		t.Errorf("%d seeds without faults, %d on Pebble", calm, pebble)
	}
	for seed := range uint64(50) {
		for _, f := range Draw(seed, Only{Classes: []string{"F08"}}).Faults {
			if k, _ := kindNamed(f.Kind); k.Class != "F08" {
				t.Fatalf("%s is not of the class that was asked for", f.Kind)
			}
		}
	}
}
