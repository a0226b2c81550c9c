package compare

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/bench/proc"
)

// fake is a subject whose counters move by known amounts while a load runs: side A's by 1, side B's by 10.
type fake struct {
	ops  int
	done [2]float64
	fail error
}

func (f *fake) load(_ context.Context, _ Cell, side Side, begin, end func() error) (closed.Report, error) {
	err := begin()
	f.done[A]++
	f.done[B] += 10
	return closed.Report{Ops: f.ops, Seconds: 1}, errors.Join(err, end(), f.fail)
}

func (f *fake) usage(side Side) (proc.Usage, error) {
	n := f.done[side]
	return proc.Usage{CPU: time.Duration(n) * time.Second, WriteBytes: uint64(n) * 4096}, nil
}

func (f *fake) loadUsage() (proc.Usage, error) { return proc.Usage{}, nil }

func (f *fake) syncs(_ context.Context, side Side) (float64, bool, error) {
	return f.done[side], side == B, nil
}

func newRunner(t *testing.T) *runner {
	probe, err := proc.NewProbe(filepath.Join(t.TempDir(), "probe"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := probe.Close(); err != nil {
			t.Error(err)
		}
	})
	return &runner{config: Config{Probe: time.Millisecond}, probe: probe, say: t.Logf}
}

func TestBlocksTakeWhatMovedMeanwhile(t *testing.T) {
	r, f := newRunner(t), &fake{ops: 5}
	cell := Cell{Op: "put", Clients: 1}
	blocks, err := r.pairs(t.Context(), f, plan([]Cell{cell}, 2, 1), 1, time.Now().Add(time.Hour))
	if err != nil || len(blocks) != 4 {
		t.Fatalf("%d blocks, error %v", len(blocks), err)
	}
	for i, b := range blocks {
		own, other := 1, 10
		if b.Side == B {
			own, other = other, own
		}
		if b.CPU != time.Duration(own)*time.Second || b.OtherCPU != time.Duration(other)*time.Second || b.WriteBytes != uint64(own)*4096 {
			t.Errorf("block %d: %+v", i, b)
		}
		if b.SyncsKnown != (b.Side == B) || b.SyncsKnown && b.Syncs != 10 {
			t.Errorf("block %d: %v syncs, known: %v", i, b.Syncs, b.SyncsKnown)
		}
		if b.ProbeBefore == 0 || b.ProbeAfter == 0 || i > 0 && b.ProbeBefore != blocks[i-1].ProbeAfter {
			t.Errorf("block %d: probes %v and %v", i, b.ProbeBefore, b.ProbeAfter)
		}
	}
}

func TestTheFirstRoundIsNeverLeftOut(t *testing.T) {
	r := newRunner(t)
	var said strings.Builder
	r.say = func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
	cells := []Cell{{Op: "put", Clients: 1}, {Op: "get", Clients: 1}}
	blocks, err := r.pairs(t.Context(), &fake{ops: 1}, plan(cells, 3, 1), len(cells), time.Now().Add(-time.Hour))
	if err != nil || len(blocks) != 4 {
		t.Fatalf("%d blocks, error %v", len(blocks), err)
	}
	if !strings.Contains(said.String(), "4 pairs are left out") {
		t.Errorf("it was not said: %s", said.String())
	}
	for _, row := range summarize(cells, blocks) {
		if row.Pairs != 1 {
			t.Errorf("%s: %d pairs", row.Cell, row.Pairs)
		}
	}
}

func TestBlocksThatFail(t *testing.T) {
	planned := plan([]Cell{{Op: "put", Clients: 1}}, 1, 1)
	for name, f := range map[string]*fake{"the load fails": {ops: 1, fail: errors.New("refused")}, "nothing was done": {}} {
		if _, err := newRunner(t).pairs(t.Context(), f, planned, 1, time.Now().Add(time.Hour)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
