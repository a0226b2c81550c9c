package raftgroup

import (
	"fmt"
	"testing"

	"github.com/cairndb/cairn/internal/base"
)

// ranges is a loop on one node with n ranges of one voter each, all of them led by it.
func ranges(tb testing.TB, n int) *lone {
	w := newWorld(1)
	l := &lone{t: tb, w: w, n: w.addNode(1)}
	for id := range base.RangeID(n) {
		w.place(descriptor(id+1, 1))
	}
	w.start(l.n)
	for id := range base.RangeID(n) {
		l.n.ev.Admin = append(l.n.ev.Admin, Admin{Range: id + 1, Campaign: true})
	}
	for !empty(&l.n.ev) {
		w.step(l.n)
	}
	for id := range base.RangeID(n) {
		if st, ok := l.n.loop.Status(id + 1); !ok || st.Role != Leader || st.Applied != 11 {
			tb.Fatalf("%s: %+v", id+1, st)
		}
	}
	return l
}

// A step with nothing to do allocates nothing, whatever the number of ranges: an idle loop costs its ticks.
func TestIdleStepAllocatesNothing(t *testing.T) {
	l := ranges(t, 48)
	var ev Events
	if n := testing.AllocsPerRun(100, func() { l.n.loop.Step(l.w.now, &ev) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkIdle is a step with nothing to do, and one in which every range is ticked.
func BenchmarkIdle(b *testing.B) {
	for _, n := range []int{1, 48, 1000} {
		l := ranges(b, n)
		var ev Events
		b.Run(fmt.Sprintf("nothing/ranges=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.n.loop.Step(l.w.now, &ev)
			}
		})
		b.Run(fmt.Sprintf("tick/ranges=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.w.now = l.w.now.Add(base.TickInterval)
				l.n.loop.Step(l.w.now, &ev)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "ticks/s")
		})
	}
}

// BenchmarkPropose takes proposals of all ranges through append, durability and apply, without a disk or a state machine.
func BenchmarkPropose(b *testing.B) {
	for _, n := range []int{1, 48} {
		for _, per := range []int{1, 32} {
			b.Run(fmt.Sprintf("ranges=%d/batch=%d", n, per), func(b *testing.B) { benchPropose(b, n, per) })
		}
	}
}

func benchPropose(b *testing.B, n, per int) {
	l := ranges(b, n)
	var ev Events
	data := make([]byte, 128)
	var seq uint64
	steps := 0
	step := func() *Effects {
		steps++
		eff := l.n.loop.Step(l.w.now, &ev)
		ev = Events{Proposals: ev.Proposals[:0], Durable: ev.Durable[:0], Applied: ev.Applied[:0]}
		if eff.Seq != 0 {
			ev.Durable = append(ev.Durable, Durable{eff.Seq})
		}
		for _, a := range eff.Applies {
			ev.Applied = append(ev.Applied, Applied{Range: a.Range, Index: a.Entries[len(a.Entries)-1].GetIndex()})
		}
		return eff
	}
	b.ReportAllocs()
	for b.Loop() {
		for id := range base.RangeID(n) {
			for range per {
				seq++
				ev.Proposals = append(ev.Proposals, Proposal{Range: id + 1, ID: ProposalID{1, seq}, Data: data})
			}
		}
		for step(); len(ev.Durable)+len(ev.Applied) > 0; step() {
		}
	}
	b.ReportMetric(float64(steps)/b.Elapsed().Seconds(), "steps/s")
	b.ReportMetric(float64(seq)/b.Elapsed().Seconds(), "proposals/s")
}
