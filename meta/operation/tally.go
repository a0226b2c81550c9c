package operation

import (
	"slices"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Tally counts what nodes hold by the stored descriptors, which are added one after the other: a million of them need not be in memory.
type Tally struct {
	At     base.Instant // when reading them began
	Ranges uint64
	of     map[uint64]*Holding
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

// Pace is how an operation comes on. It is kept in memory, and measured by one node's monotonic clock: whoever carries the operation on
// next finds it out again.
type Pace struct {
	since        base.Instant // of what it is measured from; 0: nothing was seen yet
	first, bytes uint64
	left, rest   uint64       // at the last look
	moved        base.Instant // when less was left than before
	marked       map[uint64]sighting
}

// sighting is a node's record, and when it was first seen to be so.
type sighting struct {
	generation uint64
	at         base.Instant
}

// Marked is when a node's record was first seen as it is now: not before it was made so, whatever the clock of whoever did that says.
func (p *Pace) Marked(r *metapb.NodeRecord, now base.Instant) base.Instant {
	if p.marked == nil {
		p.marked = make(map[uint64]sighting)
	}
	if m, ok := p.marked[r.NodeId]; ok && m.generation == r.Generation {
		return m.at
	}
	p.marked[r.NodeId] = sighting{r.Generation, now}
	return now
}

// Observe takes what is left. When more is left than before (a node was filled meanwhile, or a range was cut), it is measured from now on.
func (p *Pace) Observe(now base.Instant, left, bytes uint64) {
	if p.since == 0 || left > p.left {
		*p = Pace{since: now, first: left, bytes: bytes, moved: now, marked: p.marked}
	} else if left < p.left || bytes < p.rest {
		p.moved = now
	}
	p.left, p.rest = left, bytes
}

// Stalled says that nothing was done for a while.
func (p *Pace) Stalled(now base.Instant) bool {
	return p.since != 0 && now.Sub(p.moved) >= base.OperationStalled
}

// Estimate is how long the rest will take at the pace until now, in microseconds; 0: that cannot be said.
func (p *Pace) Estimate(now base.Instant) int64 {
	took := float64(now.Sub(p.since).Microseconds())
	switch {
	case p.since == 0 || took <= 0 || p.Stalled(now):
		return 0
	case p.bytes > p.rest && p.rest > 0:
		return int64(took * float64(p.rest) / float64(p.bytes-p.rest))
	case p.first > p.left:
		return int64(took * float64(p.left) / float64(p.first-p.left))
	}
	return 0
}
