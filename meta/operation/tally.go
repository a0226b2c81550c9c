package operation

import (
	"slices"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Tally counts what nodes hold by the stored descriptors, which are added one after the other: a million of them need not be in memory.
type Tally struct {
	AtMicros int64 // when reading them began
	Ranges   uint64
	of       map[uint64]*Holding
}

// Holding is what one node holds.
type Holding struct {
	Replicas uint64
	Some     []uint64 // of their ranges, the lowest ids
}

// Add counts a range.
func (t *Tally) Add(d *metapb.RangeDescriptor) {
	if t.of == nil {
		t.of = make(map[uint64]*Holding)
	}
	t.Ranges++
	for _, r := range d.Replicas {
		h := t.of[r.NodeId]
		if h == nil {
			h = &Holding{}
			t.of[r.NodeId] = h
		}
		h.Replicas++
		at, _ := slices.BinarySearch(h.Some, d.RangeId)
		if h.Some = slices.Insert(h.Some, at, d.RangeId); len(h.Some) > base.OperationSome {
			h.Some = h.Some[:base.OperationSome]
		}
	}
}

// Of is what a node holds.
func (t *Tally) Of(node uint64) Holding {
	if h := t.of[node]; h != nil {
		return *h
	}
	return Holding{}
}

// Pace is how an operation comes on. It is kept in memory: whoever carries the operation on next finds it out again.
type Pace struct {
	since        int64 // of what it is measured from: Unix micros; 0: nothing was seen yet
	first, bytes uint64
	left, rest   uint64 // at the last look
	moved        int64  // when less was left than before
}

// Observe takes what is left. When more is left than before (a node was filled meanwhile, or a range was cut), it is measured from now on.
func (p *Pace) Observe(nowMicros int64, left, bytes uint64) {
	if p.since == 0 || left > p.left {
		*p = Pace{since: nowMicros, first: left, bytes: bytes, moved: nowMicros}
	} else if left < p.left || bytes < p.rest {
		p.moved = nowMicros
	}
	p.left, p.rest = left, bytes
}

// Stalled says that nothing was done for a while.
func (p *Pace) Stalled(nowMicros int64) bool {
	return p.since != 0 && nowMicros-p.moved >= base.OperationStalled.Microseconds()
}

// Estimate is how long the rest will take at the pace until now, in microseconds; 0: that cannot be said.
func (p *Pace) Estimate(nowMicros int64) int64 {
	took := float64(nowMicros - p.since)
	switch {
	case p.since == 0 || took <= 0 || p.Stalled(nowMicros):
		return 0
	case p.bytes > p.rest && p.rest > 0:
		return int64(took * float64(p.rest) / float64(p.bytes-p.rest))
	case p.first > p.left:
		return int64(took * float64(p.left) / float64(p.first-p.left))
	}
	return 0
}
