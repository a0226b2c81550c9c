package jepsen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// Options say what a run is made of. Those without a value are an error, except where it says so.
type Options struct {
	Name      string
	Dir       string // the report's folder; made if it is not there
	Workloads []linearizability.Kind
	Nemeses   []Nemesis
	Skipped   []Skip // what was asked for and is not in Nemeses
	Mix       bool   // pairs of nemeses instead of each alone
	Clients   int
	Length    time.Duration
	Seed      uint64
	Limits    Limits
	Logger    *slog.Logger
}

// DefaultLimits are what a small machine that runs all nodes must reach: some times less than it does, so that a red
// run means a fault of the product and not a busy machine, and far more than an idle run.
func DefaultLimits() Limits { return Limits{Rate: 300, QuietRate: 100, Recovery: 30 * time.Second} }

// nemesisTime bounds the beginning and the end of one nemesis: processes start, data is copied to a new node.
const nemesisTime = 2 * time.Minute

// run is one run of a started cluster.
type run struct {
	Options
	cluster   *Cluster
	endpoints func() []string             // of the nodes, by index
	settled   func(context.Context) error // waits until every range has its replicas
	tiled     func(context.Context) ([]*clusterpb.IndexedRange, error)
	spread    keyspace // of many ranges, if a workload is for one

	report  *Report
	start   time.Time
	meter   *meter
	marks   *marks
	ids     atomic.Int64
	unknown []*linearizability.Op // of all stages that have ended
	kept    []kept                // what must still be there at the end of the run
}

// Run runs all stages on a cluster that has started, and writes the report. An error means that there is no report;
// whether the cluster passed is in it. ctx ends the run early: what was not run is a failure of it.
func Run(ctx context.Context, c *Cluster, o Options) (*Report, error) {
	if o.Clients < 1 || len(o.Workloads) == 0 || o.Clients < len(o.Workloads) {
		return nil, fmt.Errorf("%d clients for %d workloads: each needs at least one", o.Clients, len(o.Workloads))
	}
	stages, skipped := plan(o.Nemeses, o.Length, o.Mix, o.Seed)
	o.Skipped = slices.Concat(o.Skipped, skipped)
	return newRun(c, o).through(ctx, stages)
}

func newRun(c *Cluster, o Options) *run {
	r := &run{Options: o, cluster: c, endpoints: func() []string { return endpoints(c) }, settled: c.settled, tiled: c.tiled, start: time.Now()}
	r.meter, r.marks = newMeter(r.start), newMarks(r.start)
	r.report = &Report{
		Version: ReportVersion, Name: o.Name, Seed: o.Seed, Started: r.start.Round(time.Second), Nodes: c.Len(),
		Clients: o.Clients, Limits: o.Limits, Skipped: o.Skipped,
	}
	for _, w := range o.Workloads {
		r.report.Workloads = append(r.report.Workloads, w.Name)
	}
	return r
}

// through runs stages until one does not end well, and writes the report.
func (r *run) through(ctx context.Context, stages []stage) (*Report, error) {
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if slices.ContainsFunc(r.Workloads, func(k linearizability.Kind) bool { return k.Cut != nil }) {
		id, err := r.cluster.CreateKeyspace(ctx, spreadName)
		if err != nil {
			return nil, err
		}
		r.spread = keyspace{id, spreadName}
	}
	watchCtx, stopWatch := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		r.marks.watch(watchCtx, func(ctx context.Context) (int, error) { return r.cluster.Leader(ctx, base.KeyspaceDefault) })
		close(watched)
	}()
	ran := 0
	for ran < len(stages) && r.stage(ctx, stages[ran]) {
		ran++
	}
	r.closing(ctx, ran, len(stages))
	stopWatch()
	<-watched
	r.finish()
	return r.report, r.report.write(r.Dir)
}

// finish puts together what the stages left.
func (r *run) finish() {
	rep := r.report
	for i := range rep.Stages {
		s := &rep.Stages[i]
		rep.Operations.add(s.Operations)
		rep.Checked += s.Checked
		rep.Events += s.Events
		rep.CheckSeconds += s.Check
		rep.Changes.add(s.Changes)
		s.Verdict = "pass"
		if rep.failed(s.Number) {
			s.Verdict = "fail"
		}
	}
	rep.Passed = len(rep.Failures) == 0
	rep.Seconds = r.now()
	rep.Points = r.meter.points(maxPoints)
	rep.Leaders = r.marks.all()
}

// maxPoints is as many as the timeline can show.
const maxPoints = 1000

// now is the time since the run's start, in seconds, as the report has it.
func (r *run) now() float64 { return time.Since(r.start).Seconds() }

// closing asks, after everything, for what each stage left behind and for what the processes said.
func (r *run) closing(ctx context.Context, ran, stages int) {
	if ran < stages {
		// Its processes may have been ended for their stacks: nothing more can be asked of them.
		r.report.fail(-1, "run", "only %d of %d stages were run to their end", ran, stages)
	} else {
		for _, k := range r.kept {
			if err := k.same(ctx, r); err != nil {
				r.report.fail(k.stage, "what a stage left behind", "%v", err)
			}
		}
	}
	if ran == stages {
		r.ranges(ctx)
		r.wellEnd(ctx)
		r.acted()
	}
	for _, err := range r.cluster.Findings() {
		r.report.fail(-1, "processes", "%v", err)
	}
	for _, n := range r.cluster.everyone() {
		name := n.Name + ".log"
		if _, err := os.Stat(n.Log); errors.Is(err, os.ErrNotExist) {
			continue // it was never started
		}
		if err := copyFile(filepath.Join(r.Dir, name), n.Log); err != nil {
			r.report.fail(-1, "logs", "%v", err)
			continue
		}
		r.report.Logs = append(r.report.Logs, name)
	}
}

// ranges asks, after everything, whether ranges cover each keyspace once, and whether nemeses that were to change them did.
func (r *run) ranges(ctx context.Context) {
	limit, cancel := context.WithTimeout(ctx, r.Limits.Recovery)
	defer cancel()
	all, err := r.tiled(limit)
	if err != nil {
		r.report.fail(-1, "ranges tile", "%v", err)
	}
	r.report.Ranges = len(all)
	var did Changes
	cut, moved := false, false
	for _, s := range r.report.Stages {
		did.add(s.Changes)
		cut = cut || strings.Contains(s.Name, "splits")
		moved = moved || strings.Contains(s.Name, "moves")
	}
	if cut && did.Splits == 0 || moved && did.Moves == 0 {
		r.report.fail(-1, "ranges", "nemeses were to change ranges, and did not: %+v", did)
	}
}

// acted asks whether nemeses that act through the cluster's own service did: what is refused each time shows nothing.
func (r *run) acted() {
	r.cluster.mu.Lock()
	defer r.cluster.mu.Unlock()
	r.report.Acts = r.cluster.acts
	for name, a := range r.report.Acts {
		if a.Done == 0 && a.Refused > 0 {
			r.report.fail(-1, "nemeses act", "%s was refused each time, %d times: %s", name, a.Refused, a.Last)
		}
	}
}

func endpoints(c *Cluster) []string {
	var out []string
	for _, n := range c.All() {
		out = append(out, n.ClientAddr)
	}
	return out
}

// errCutShort is what a phase returns that the end of ctx interrupted.
var errCutShort = errors.New("the run was told to stop")
