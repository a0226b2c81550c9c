package jepsen

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// newFakeRun is a run on fake nodes.
func newFakeRun(t *testing.T, fakes []*fakeNode) (*run, *counting) {
	t.Helper()
	w := &counting{clients: make(map[int]int)}
	kind := linearizability.Kind{Name: "counting", New: func(string, int) linearizability.Workload { return w }}
	r := &run{
		Options: Options{
			Dir: t.TempDir(), Workloads: []linearizability.Kind{kind}, Clients: 4, Seed: 3, Logger: slog.New(slog.DiscardHandler),
			Limits: Limits{Rate: 50, QuietRate: 20, Recovery: 10 * time.Second},
		},
		endpoints: endpointsOf(fakes), settled: func(context.Context) error { return nil },
		tiled: func(context.Context) ([]*clusterpb.IndexedRange, error) { return nil, nil }, start: time.Now(), report: &Report{},
	}
	r.meter, r.marks = newMeter(r.start), newMarks(r.start)
	return r, w
}

// mute is a nemesis that silences nodes.
func mute(fakes []*fakeNode, healError error, heals bool) Nemesis {
	set := func(mood int32) {
		for _, f := range fakes {
			f.mood.Store(mood)
		}
	}
	return Nemesis{Name: "mute", Class: "F06", Begin: func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
		set(moodMute)
		return "silenced some", func(context.Context) error {
			if heals {
				set(moodWell)
			}
			return healError
		}, nil
	}}
}

// A stage whose fault befalls one of three nodes: clients go on elsewhere, all is counted, and nothing is wrong.
func TestStagePasses(t *testing.T) {
	fakes := newFakes(t, 3)
	r, w := newFakeRun(t, fakes)
	s := stage{Number: 0, Name: "mute", Class: "F06", Rest: 300 * time.Millisecond, Rounds: []round{{
		Quiet: 300 * time.Millisecond, Nemeses: []Nemesis{mute(fakes[:1], nil, true)}, Hold: 300 * time.Millisecond,
	}}}
	if !r.stage(t.Context(), s) {
		t.Fatalf("the stage did not end well: %v", r.report.Failures)
	}
	rep := r.report.Stages[0]
	if len(r.report.Failures) != 0 || rep.QuietRate < 20 || rep.FaultRate <= 0 || len(rep.Rounds) != 1 {
		t.Errorf("failures %v, %+v", r.report.Failures, rep)
	}
	rd := rep.Rounds[0]
	if rd.What != "silenced some" || rd.Lasted() < 0.3 || rd.Recovered < rd.Healed || rd.Healed < rd.Heal {
		t.Errorf("the round: %+v", rd)
	}
	if b := r.report.Bands; len(b) != 1 || b[0].Name != "mute" || b[0].To < b[0].From+0.3 {
		t.Errorf("bands: %+v", b)
	}
	if rep.Checked < w.ended || rep.Operations.Unknown != w.outcomes.Unknown {
		t.Errorf("%+v, the workload saw %+v", rep.Operations, w.outcomes)
	}
	if len(r.kept) != 1 || len(r.kept[0].content.keys) != 7 {
		t.Fatalf("kept: %+v", r.kept)
	}
	if err := r.kept[0].same(t.Context(), r); err != nil {
		t.Errorf("what the stage left behind: %v", err)
	}
	// A write that nobody made shows, and so does one that is gone; but not where an unknown write may have come late.
	r.kept[0].maybe = keySet{}
	delete(fakes[0].data.keys, "s000/counting/3")
	if err := r.kept[0].same(t.Context(), r); err == nil || !strings.Contains(err.Error(), "s000/counting/3 is gone") {
		t.Errorf("a lost key: %v", err)
	}
}

// What must fail a run does.
func TestStageFails(t *testing.T) {
	for _, c := range []struct {
		name string
		mend func(*run, []*fakeNode) Nemesis
		want string
	}{
		{"the cluster does not recover", func(r *run, f []*fakeNode) Nemesis {
			r.Limits.Recovery = time.Second
			return mute(f, nil, false)
		}, "of 4 clients had not succeeded"},
		{"one node does not recover", func(r *run, f []*fakeNode) Nemesis {
			r.Limits.Recovery = 3 * time.Second
			return Nemesis{Name: "stop", Begin: func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
				f[1].server.Stop()
				return "stopped one", func(context.Context) error { return nil }, nil
			}}
		}, "node 2 did not serve a linearizable read"},
		{"replicas are missing", func(r *run, f []*fakeNode) Nemesis {
			r.settled = func(context.Context) error { return errors.New("range 4: 2 replicas") }
			return mute(f[:1], nil, true)
		}, "not every range had its replicas: range 4: 2 replicas"},
		{"the nemesis cannot begin", func(*run, []*fakeNode) Nemesis {
			return Nemesis{Name: "broken", Begin: func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
				return "", nil, errors.New("no such link")
			}}
		}, "broken could not begin: no such link"},
		{"the nemesis cannot be healed", func(_ *run, f []*fakeNode) Nemesis {
			return mute(f[:1], errors.New("still there"), true)
		}, "mute could not be healed: still there"},
		{"it is idle", func(r *run, f []*fakeNode) Nemesis {
			r.Limits.QuietRate = 1e9
			return mute(f[:1], nil, true)
		}, "at least 1000000000 are asked for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fakes := newFakes(t, 3)
			r, _ := newFakeRun(t, fakes)
			n := c.mend(r, fakes)
			r.stage(t.Context(), stage{Name: n.Name, Rest: 50 * time.Millisecond, Rounds: []round{{
				Quiet: 50 * time.Millisecond, Nemeses: []Nemesis{n}, Hold: 50 * time.Millisecond,
			}}})
			for _, f := range r.report.Failures {
				if strings.Contains(f.What, c.want) {
					return
				}
			}
			t.Errorf("failures %+v, want one with %q", r.report.Failures, c.want)
		})
	}
}

// A run that is told to stop heals what it began.
func TestStageToldToStop(t *testing.T) {
	fakes := newFakes(t, 3)
	r, _ := newFakeRun(t, fakes)
	ctx, cancel := context.WithCancel(t.Context())
	n := mute(fakes, nil, true)
	begin := n.Begin
	n.Begin = func(ctx context.Context, c *Cluster, rand *base.Rand) (string, func(context.Context) error, error) {
		cancel()
		return begin(ctx, c, rand)
	}
	if r.stage(ctx, stage{Name: "mute", Rounds: []round{{Nemeses: []Nemesis{n}, Hold: time.Hour}}}) {
		t.Error("there is to be no other stage")
	}
	if fakes[0].mood.Load() != moodWell || len(r.report.Failures) == 0 {
		t.Errorf("mood %d, failures %v", fakes[0].mood.Load(), r.report.Failures)
	}
}
