package jepsen

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write testdata anew")

func smallReport() *Report {
	r := &Report{
		Version: ReportVersion, Name: "small", Passed: true, Seed: 7, Nodes: 3, Clients: 4,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 20,
		Workloads: []string{"register", "set"}, Operations: Counts{12000, 30, 4}, Checked: 12040, CheckSeconds: 1.5,
		Limits: Limits{Rate: 300, QuietRate: 100, Recovery: 30 * time.Second},
		Stages: []StageReport{
			{Number: 0, Name: "none", From: 0, To: 8, Operations: Counts{8000, 0, 0}, Checked: 8010, Check: 0.5,
				QuietRate: 1000, Verdict: "pass", History: "history-00"},
			{Number: 1, Name: "kill-leader", Class: "F01", From: 8.5, To: 20, Operations: Counts{4000, 30, 4}, Checked: 4030,
				Check: 1, QuietRate: 900, FaultRate: 120, Recovery: 1.5, Verdict: "pass", History: "history-01",
				Rounds: []RoundReport{{What: "killed <node 2>, the leader", Begin: 10, Heal: 13, Healed: 13.5, Recovered: 15, Rate: 120}}},
		},
		Skipped: []Skip{{"delay", "namespaces: not root"}},
		Bands:   []Band{{10, 13.5, "kill-leader", "killed <node 2>, the leader"}},
		Leaders: []LeaderMark{{0, 1}, {10, -1}, {12, 2}},
		Points:  []Point{{1, 1000, 4}, {9, 950, 5}, {11, 0, 0}, {15, 800, 900}, {19, 1000, 4}},
		Logs:    []string{"node1.log"},
	}
	return r
}

// The page and the picture of a run of two stages, as they are meant to be.
func TestReportFiles(t *testing.T) {
	r := smallReport()
	dir := t.TempDir()
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{pageFile, timelineFile} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(got), "<node 2>") {
			t.Errorf("%s: a text is not escaped", name)
		}
		golden := filepath.Join("testdata", name)
		if *rewrite {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is not what testdata has; run the test with -rewrite and look at the difference", name)
		}
	}
	svg, err := r.timeline()
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the timeline is no XML: %v", err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, summaryFile))
	if err != nil {
		t.Fatal(err)
	}
	back := &Report{}
	if err := json.Unmarshal(raw, back); err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("the summary does not come back: %v", err)
	}
}

// A failed run says so first, and why.
func TestReportOfFailure(t *testing.T) {
	r := smallReport()
	r.Passed = false
	for range 2 * maxFailures {
		r.fail(1, "lost writes", "key %q is gone", "a")
	}
	r.fail(-1, "logs", "a panic")
	if len(r.Failures) != maxFailures || !r.failed(1) || r.failed(0) {
		t.Errorf("%d failures kept", len(r.Failures))
	}
	page, err := r.page()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"small: failed", "Why it failed", "Stage 1, kill-leader: lost writes", "key &#34;a&#34; is gone"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestRoundUp(t *testing.T) {
	for v, want := range map[float64]float64{1: 1, 1.1: 2, 3: 5, 7: 10, 20: 20, 21: 50, 999: 1000, 0.3: 0.5} {
		if got := roundUp(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("%g: %g, want %g", v, got, want)
		}
	}
}
