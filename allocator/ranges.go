package allocator

import (
	"slices"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/invariants"
)

// Put says what is known of a range, in place of what was. Slices are copied. If something is under way for it that stays so until
// End, whatever the descriptor says.
func (s *Snapshot) Put(r Range) {
	invariants.Check(len(r.Replicas) <= base.MaxReplicas, "%s has %d replicas", r.ID, len(r.Replicas))
	at, ok := s.byRange[r.ID]
	if !ok {
		at = s.newRow()
		s.byRange[r.ID] = at
	} else {
		s.count(at, -1)
		s.rules[s.entries[at].rules].ranges--
		s.lagging -= int(min(1, s.entries[at].behind))
	}
	e := &s.entries[at]
	if !ok || !s.sameSeats(e, r.Replicas) {
		if ok && s.comes(e, r.Replicas) {
			e.came, s.unrest = s.rests, true
		}
		s.unseat(at)
		for i, p := range r.Replicas {
			s.seat(at, i, p)
		}
		e.n = uint8(len(r.Replicas))
	}
	e.id, e.keyspace, e.generation = r.ID, r.Keyspace, r.Generation
	e.bytes, e.load = max(0, r.Bytes), max(0, int64(r.Load*loadUnit))
	e.rules = s.ruleOf[r.Keyspace]
	s.rules[e.rules].ranges++
	e.leader, e.behind = none, 0
	for i := range e.n {
		id := s.nodes[e.seats[i].node].ID
		if id == r.Leader {
			e.leader = e.seats[i].node
		}
		if slices.Contains(r.Behind, id) {
			e.behind |= 1 << i
		}
	}
	s.lagging += int(min(1, e.behind))
	s.putRare(at, &r)
	s.count(at, 1)
	s.mark(at)
}

func (s *Snapshot) newRow() row {
	if n := len(s.free); n > 0 {
		at := s.free[n-1]
		s.free = s.free[:n-1]
		s.entries[at] = entry{leader: none, flags: inUse | s.entries[at].flags&isDirty}
		return at
	}
	s.entries = append(s.entries, entry{leader: none, flags: inUse})
	return row(len(s.entries) - 1)
}

func (s *Snapshot) putRare(at row, r *Range) {
	e := &s.entries[at]
	if r.Busy == "" && r.Wanted == nil && r.WantedLeader == 0 {
		if e.flags&isRare != 0 {
			delete(s.rare, at)
			e.flags &^= isRare
		}
		return
	}
	x := rare{busy: r.Busy, isWanted: r.Wanted != nil, wantedLeader: none}
	for _, id := range r.Wanted {
		x.wanted = append(x.wanted, s.slotOf(id))
	}
	slices.Sort(x.wanted)
	x.wanted = slices.Compact(x.wanted)
	if r.WantedLeader != 0 {
		x.wantedLeader = s.slotOf(r.WantedLeader)
	}
	s.rare[at] = x
	s.entries[at].flags |= isRare
}

func (s *Snapshot) sameSeats(e *entry, now []Replica) bool {
	if int(e.n) != len(now) {
		return false
	}
	for i, p := range now {
		if s.nodes[e.seats[i].node].ID != p.Node || e.seats[i].role != p.Role {
			return false
		}
	}
	return true
}

func (s *Snapshot) seat(at row, i int, p Replica) {
	n := s.slotOf(p.Node)
	s.entries[at].seats[i] = seat{node: n, at: int32(len(s.nodes[n].held)), role: p.Role}
	s.nodes[n].held = append(s.nodes[n].held, at)
}

// comes says whether a replica comes to a node that had none of the range.
func (s *Snapshot) comes(e *entry, now []Replica) bool {
	return slices.ContainsFunc(now, func(p Replica) bool {
		return !slices.ContainsFunc(e.seats[:e.n], func(x seat) bool { return s.nodes[x.node].ID == p.Node })
	})
}

// rested begins the next stretch, in which what had come may be moved on, if anything has.
func (s *Snapshot) rested() bool {
	if !s.unrest || s.moves > 0 {
		return false
	}
	s.rests = max(1, s.rests+1)
	s.unrest = false
	s.forget()
	return true
}

// fresh says whether a replica of the range has come to a node since the last rest. Balance leaves such a range alone: its next replica
// would go where the last one came from, for other nodes have no room or a replica already, and what is still to be moved of others
// makes room elsewhere.
func (s *Snapshot) fresh(e *entry) bool { return e.came == s.rests }

// unseat takes the range out of its nodes' lists.
func (s *Snapshot) unseat(at row) {
	e := &s.entries[at]
	for i := range e.n {
		s.unlist(e.seats[i].node, e.seats[i].at)
	}
	e.n = 0
}

// Delete says that the range is no more. What is under way for it has ended.
func (s *Snapshot) Delete(id base.RangeID) {
	at, ok := s.byRange[id]
	if !ok {
		return
	}
	s.End(id)
	s.count(at, -1)
	s.unpend(at)
	s.unseat(at)
	s.rules[s.entries[at].rules].ranges--
	s.lagging -= int(min(1, s.entries[at].behind))
	delete(s.byRange, id)
	delete(s.rare, at)
	s.entries[at].flags &= isDirty
	s.free = append(s.free, at)
}

// Range returns what is known of a range, in slices of its own.
func (s *Snapshot) Range(id base.RangeID) (Range, bool) {
	at, ok := s.byRange[id]
	if !ok {
		return Range{}, false
	}
	e := &s.entries[at]
	r := Range{ID: e.id, Keyspace: e.keyspace, Generation: e.generation, Bytes: e.bytes, Load: float64(e.load) / loadUnit}
	r.Leader = s.idOf(e.leader)
	for i := range e.n {
		r.Replicas = append(r.Replicas, Replica{Node: s.nodes[e.seats[i].node].ID, Role: e.seats[i].role})
		if e.behind&(1<<i) != 0 {
			r.Behind = append(r.Behind, s.nodes[e.seats[i].node].ID)
		}
	}
	if e.flags&isRare != 0 {
		x := s.rare[at]
		r.Busy, r.WantedLeader = x.busy, s.idOf(x.wantedLeader)
		if x.isWanted {
			r.Wanted = s.ids(x.wanted)
		}
	}
	return r, true
}

func (s *Snapshot) idOf(n slot) base.NodeID {
	if n == none {
		return 0
	}
	return s.nodes[n].ID
}

// ids are the nodes' ids, ascending; never nil.
func (s *Snapshot) ids(of []slot) []base.NodeID {
	r := make([]base.NodeID, 0, len(of))
	for _, n := range of {
		r = append(r, s.nodes[n].ID)
	}
	slices.Sort(r)
	return r
}

// count adds what the range comes to (sign 1), or takes it away (-1), at the nodes that hold it once what is under way is done.
func (s *Snapshot) count(at row, sign int64) {
	e := &s.entries[at]
	leader := e.leader
	if e.flags&isUnder != 0 {
		u := s.under[at]
		for _, n := range u.effect.voters.slice() {
			s.nodes[n].sum[dimReplicas] += sign
			s.nodes[n].sum[dimBytes] += sign * e.bytes
		}
		leader = u.effect.leader
	} else {
		for i := range e.n {
			n := &s.nodes[e.seats[i].node]
			n.sum[dimReplicas] += sign
			n.sum[dimBytes] += sign * e.bytes
		}
	}
	if leader != none {
		s.nodes[leader].sum[dimLeaders] += sign
		s.nodes[leader].sum[dimLoad] += sign * e.load
	}
	s.version++
}
