package jepsen

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/linearizability/workloads"

	// What the binary is made of: go test must not show an old result after a change of it.
	_ "github.com/cairndb/cairn/node"
)

// The whole of it, small: three real processes on the loopback interface, all workloads, no fault, then the leader is
// killed and started again while ranges are cut and put together. The history files are checked again from disk, and the report says what ran.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	c, err := Start(t.Context(), Config{Nodes: 3, Dir: filepath.Join(dir, "cluster"), Loopback: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	kinds := workloads.Kinds()
	r := newRun(c, Options{
		Name: "test", Dir: filepath.Join(dir, "report"), Workloads: kinds, Clients: 2 * len(kinds), Seed: 1,
		Logger: slog.New(slog.DiscardHandler),
		// The machine may be busy with other tests; this is about the harness.
		Limits:  Limits{Rate: 20, QuietRate: 5, Recovery: time.Minute},
		Skipped: []Skip{{"halves", "namespaces: the nodes are on the loopback interface"}},
	})
	leaderDies, ranges := killNemeses()[1], rangeNemeses()[1]
	rep, err := r.through(t.Context(), []stage{
		{Number: 0, Name: "none", Rest: 2 * time.Second},
		{Number: 1, Name: "both", Class: leaderDies.Class + "+" + ranges.Class, Rest: time.Second, Rounds: []round{{
			Quiet: time.Second, Nemeses: []Nemesis{ranges, leaderDies}, Hold: 3 * time.Second,
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rep.Failures {
		t.Errorf("stage %d, %s: %s", f.Stage, f.Checker, f.What)
	}
	if !rep.Passed || len(rep.Stages) != 2 || rep.Checked < 100 || len(rep.Bands) != 2 || len(rep.Points) == 0 {
		t.Errorf("passed %v, %d stages, %d checked, bands %v", rep.Passed, len(rep.Stages), rep.Checked, rep.Bands)
	}
	if !strings.HasPrefix(rep.Bands[1].What, "killed node") || rep.Changes.Splits == 0 || rep.Ranges < 5 {
		t.Errorf("the faults: %+v, %+v, %d ranges", rep.Bands, rep.Changes, rep.Ranges)
	}
	led := false
	for _, m := range rep.Leaders {
		led = led || m.Node >= 0
	}
	if !led {
		t.Errorf("nobody was seen to lead: %v", rep.Leaders)
	}
	for _, s := range rep.Stages {
		recheck(t, filepath.Join(r.Dir, s.History), len(kinds))
	}
	for _, name := range []string{pageFile, timelineFile, summaryFile, "node1.log", rep.Stages[0].History} {
		if st, err := os.Stat(filepath.Join(r.Dir, name)); err != nil || st.Size() == 0 {
			t.Errorf("the report's %s: %v", name, err)
		}
	}
}

// recheck reads a history file again, and as it would be if the harness had died.
func recheck(t *testing.T, path string, kinds int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Check(strings.NewReader(string(raw)))
	if err != nil || len(got.Violations) != 0 || got.Damage != "" || len(got.Workloads) != kinds || got.Operations.OK == 0 {
		t.Errorf("%s: %+v, %v", path, got, err)
	}
	got, err = Check(strings.NewReader(string(raw[:len(raw)*2/3])))
	if err != nil || !strings.Contains(got.Damage, "cut short") || got.Operations.OK == 0 {
		t.Errorf("%s, cut short: %+v, %v", path, got, err)
	}
	if _, err := Check(strings.NewReader("no history")); err == nil {
		t.Error("a file that is no history was checked")
	}
}
