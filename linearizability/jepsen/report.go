package jepsen

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// ReportVersion is the version of Report's JSON. Fields are only ever added within one.
const ReportVersion = 1

// Report is what a run came to. It is written as summary.json, and as index.html for a person.
type Report struct {
	Version   int       `json:"version"`
	Name      string    `json:"name"`
	Passed    bool      `json:"passed"`
	Failures  []Failure `json:"failures"` // why it did not pass, the first ones
	Seed      uint64    `json:"seed"`
	Started   time.Time `json:"started"`
	Seconds   float64   `json:"seconds"` // from the first client's start to the last check's end
	Nodes     int       `json:"nodes"`
	Clients   int       `json:"clients"`
	Workloads []string  `json:"workloads"`
	Limits    Limits    `json:"limits"`
	// Operations are those of the clients, of setups and of closing reads; Checked is how many of them checkers were given.
	Operations   Counts  `json:"operations"`
	Checked      int     `json:"checked"`
	CheckSeconds float64 `json:"check_seconds"`
	// Events are those that watches took, each held against what was written.
	Events int64 `json:"watch_events"`

	Changes Changes `json:"changes"` // that nemeses made of ranges
	Ranges  int     `json:"ranges"`  // that the cluster had at the end

	Acts    map[string]*Acts `json:"acts,omitempty"` // of nemeses that act through the cluster's own service, by name
	Stages  []StageReport    `json:"stages"`
	Skipped []Skip           `json:"skipped"`

	Bands   []Band       `json:"bands"`
	Leaders []LeaderMark `json:"leaders"`
	Points  []Point      `json:"points"`
	Logs    []string     `json:"logs"` // files of the folder
}

// Failure is one reason for which a run did not pass.
type Failure struct {
	Stage   int    `json:"stage"` // -1: of the run as a whole
	Checker string `json:"checker"`
	What    string `json:"what"`
}

// StageReport is one stage: a nemesis, its rounds, and what the clients saw.
type StageReport struct {
	Number     int           `json:"number"`
	Name       string        `json:"name"`
	Class      string        `json:"class"`
	From       float64       `json:"from"` // seconds since the run's start
	To         float64       `json:"to"`
	Operations Counts        `json:"operations"`
	Checked    int           `json:"checked"`
	Check      float64       `json:"check_seconds"`
	Events     int64         `json:"watch_events"`
	Rounds     []RoundReport `json:"rounds"`
	// QuietRate is of the phases without a fault: before the first round, and after recoveries. Operations that
	// succeeded, a second.
	QuietRate float64  `json:"quiet_rate"`
	FaultRate float64  `json:"fault_rate"` // while faults lasted; of a stage without them 0
	Recovery  float64  `json:"recovery"`   // seconds, the longest of its rounds
	Verdict   string   `json:"verdict"`    // pass or fail
	History   string   `json:"history"`    // a file of the folder
	Pictures  []string `json:"pictures"`   // files of the folder
	Changes   Changes  `json:"changes"`    // that nemeses made of ranges
}

// RoundReport is one bout of a stage. Times are seconds since the run's start.
type RoundReport struct {
	What      string  `json:"what"`
	Begin     float64 `json:"begin"`
	Heal      float64 `json:"heal"`      // begins
	Healed    float64 `json:"healed"`    // what was undone is undone
	Recovered float64 `json:"recovered"` // every client and every node serves again
	Rate      float64 `json:"rate"`      // between begin and healed
}

// Band is one fault on the timeline.
type Band struct {
	From float64 `json:"from"`
	To   float64 `json:"to"`
	Name string  `json:"name"`
	What string  `json:"what"`
}

// LeaderMark says that from a time on a node led the clients' range. Node -1: nobody was known to.
type LeaderMark struct {
	At   float64 `json:"at"`
	Node int     `json:"node"`
}

// Limits are the pass conditions that are numbers. They belong to the report, so that a reader sees what was asked for.
type Limits struct {
	// Rate is the least that clients must get without faults, operations that succeed a second, over all of stage 0.
	Rate float64 `json:"rate"`
	// QuietRate is the least in the quiet phases of the other stages.
	QuietRate float64 `json:"quiet_rate"`
	// Recovery is the longest from the end of a fault until every client succeeds and every node serves again.
	Recovery time.Duration `json:"recovery"`
}

// maxFailures are kept: the first ones tell what is wrong, and a broken run has thousands.
const maxFailures = 50

func (r *Report) fail(stage int, checker, format string, args ...any) {
	if len(r.Failures) < maxFailures {
		r.Failures = append(r.Failures, Failure{stage, checker, fmt.Sprintf(format, args...)})
	}
}

// failed says whether a stage has a failure.
func (r *Report) failed(stage int) bool {
	for _, f := range r.Failures {
		if f.Stage == stage {
			return true
		}
	}
	return false
}

// Names of the folder's files.
const (
	summaryFile  = "summary.json"
	pageFile     = "index.html"
	timelineFile = "timeline.svg"
)

// write puts the report into its folder.
func (r *Report) write(dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	page, err := r.page()
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	svg, err := r.timeline()
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	for name, content := range map[string][]byte{summaryFile: append(data, '\n'), pageFile: page, timelineFile: svg} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}

// Lasted is how long the fault was there, in seconds; the time that healing took is not part of it.
func (r RoundReport) Lasted() float64 { return r.Heal - r.Begin }

// Healing is how long it took to undo what was done: a start of processes, for example.
func (r RoundReport) Healing() float64 { return r.Healed - r.Heal }

// Recovery is how long it took from there until every client and every node served again.
func (r RoundReport) Recovery() float64 { return r.Recovered - r.Healed }
