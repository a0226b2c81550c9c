package allocator

import "github.com/cairndb/cairn/internal/base"

// The ledger is what is under way. A decision that was taken up counts at once: its range is where it is to be, in all loads, and
// the nodes that it moves replicas to and from have one move more. So the next decision, a moment later, does not see the same empty
// node again. When it is done, refused or given up, End has the descriptor count again.

// Begin says that the decision was taken up. A decision for a range that is not there, or has one under way, is no decision.
func (s *Snapshot) Begin(d Decision) {
	at, ok := s.byRange[d.Range]
	if !ok || s.entries[at].flags&isUnder != 0 {
		return
	}
	x := effect{leader: s.entries[at].leader}
	for _, id := range d.Adds {
		x.adds.add(s.slotOf(id))
	}
	for _, id := range d.Removes {
		x.removes.add(s.slotOf(id))
	}
	e := &s.entries[at]
	if d.Voters == nil {
		for i := range e.n {
			x.voters.add(e.seats[i].node)
		}
	}
	for _, id := range d.Voters {
		x.voters.add(s.slotOf(id))
	}
	if d.Leader != 0 {
		x.leader = s.slotOf(d.Leader)
	} else if x.leader != none && !x.voters.has(x.leader) {
		x.leader = none
	}
	s.unpend(at)
	s.begin(at, underway{decision: d, effect: x})
	if d.Goal == GoalBalance {
		s.balanced++
		e.balanced = s.balanced
	}
}

// recent says whether the range is one of the last eighth of all that were moved for balance.
func (s *Snapshot) recent(e *entry) bool {
	return e.balanced != 0 && s.balanced-e.balanced < uint32(len(s.byRange)/8)
}

// End says that nothing is under way for the range any more: it was done, refused or given up. From now on its descriptor counts,
// so a descriptor that shows what was done is put before.
func (s *Snapshot) End(id base.RangeID) {
	if at, ok := s.byRange[id]; ok && s.entries[at].flags&isUnder != 0 {
		s.end(at)
		s.mark(at)
	}
}

// Doubt says that what is under way for the range was given up, and that nobody knows yet whether it comes about all the same. Until
// End nothing is decided for the range, as before; nor is anything evened out, which would rest on what each node comes to hold.
func (s *Snapshot) Doubt(id base.RangeID) {
	if at, ok := s.byRange[id]; ok && s.entries[at].flags&isUnder != 0 && !s.under[at].doubtful {
		u := s.under[at]
		u.doubtful = true
		s.under[at] = u
		s.doubts++
	}
}

// Underway returns the decision that was taken up for the range.
func (s *Snapshot) Underway(id base.RangeID) (Decision, bool) {
	at, ok := s.byRange[id]
	if !ok {
		return Decision{}, false
	}
	u, ok := s.under[at]
	return u.decision, ok
}

func (s *Snapshot) begin(at row, u underway) {
	s.count(at, -1)
	s.under[at] = u
	s.entries[at].flags |= isUnder
	s.count(at, 1)
	s.countMoves(&u, 1)
}

func (s *Snapshot) end(at row) {
	u := s.under[at]
	if u.doubtful {
		s.doubts--
	}
	s.countMoves(&u, -1)
	s.count(at, -1)
	delete(s.under, at)
	s.entries[at].flags &^= isUnder
	s.count(at, 1)
}

// countMoves: what only takes away what was left behind copies nothing, and is no move.
func (s *Snapshot) countMoves(u *underway, sign int) {
	x := &u.effect
	if x.adds.n == 0 && (x.removes.n == 0 || u.decision.Goal == GoalJoint) {
		return
	}
	s.moves += sign * max(x.adds.n, x.removes.n)
	for _, n := range x.adds.slice() {
		s.nodes[n].moves += sign
		s.nodes[n].incoming += int64(sign) * u.decision.Bytes
	}
	for _, n := range x.removes.slice() {
		s.nodes[n].moves += sign
	}
}

// bucketOf: what is most in danger comes first within a goal, and Cairn's own ranges, which everything else is found by.
func bucketOf(g Goal, urgent bool) uint8 {
	if urgent {
		return uint8(2 * g)
	}
	return uint8(2*g + 1)
}

const (
	goals   = int(GoalSplit) + 1
	buckets = 2 * goals
)

// pend has the range in the bucket; 0 is none.
func (s *Snapshot) pend(at row, bucket uint8) {
	e := &s.entries[at]
	if e.bucket == bucket {
		return
	}
	s.unpend(at)
	e.bucket, e.pendingAt = bucket, int32(len(s.pending[bucket]))
	s.pending[bucket] = append(s.pending[bucket], at)
}

func (s *Snapshot) unpend(at row) {
	e := &s.entries[at]
	if e.bucket == 0 {
		return
	}
	s.blame(at, GoalNone, whyNot)
	list := s.pending[e.bucket]
	last := list[len(list)-1]
	list[e.pendingAt] = last
	s.entries[last].pendingAt = e.pendingAt
	s.pending[e.bucket] = list[:len(list)-1]
	e.bucket = 0
}

// blame keeps why nothing is done for a range that has something to be done.
func (s *Snapshot) blame(at row, g Goal, w why) {
	e := &s.entries[at]
	if e.goal == g && e.why == w {
		return
	}
	if e.why != whyNot {
		s.why[e.goal][e.why].count--
	}
	e.goal, e.why = g, w
	if w != whyNot {
		s.why[g][w].count++
		s.why[g][w].last = e.id
	}
}

type tally struct {
	count int
	last  base.RangeID
}
