package allocator

import (
	"slices"

	"github.com/cairndb/cairn/internal/base"
)

// What is new is sorted: each range that has changed, or lies on a node that has, goes into the bucket of the first goal that wants
// something of it. One pass sorts base.PlanSorts ranges at most, for a zone that fails changes a third of a million at once, and who
// decides has other things to do meanwhile. The rest is Unseen until the passes that follow; goals that are served meanwhile find what
// is sorted, and balance, which is to come last, waits. A node that changes costs nothing by itself: what it holds is gone through from
// the first to the last, while its list goes on changing. Only another policy has everything sorted at once.

// visitSort is what sorting a range costs, in places that are compared.
const visitSort = 15

// news is what is not sorted yet.
type news struct {
	all   bool   // everything, by the next pass
	dirty []row  // ranges that were put, or of which what was under way has ended
	nodes []slot // nodes of which something has changed: what they hold from node.sorted on
	rows  struct {
		next, end row // ranges that may have a better place since places have come
	}
}

func (s *Snapshot) mark(at row) {
	if e := &s.entries[at]; e.flags&isDirty == 0 {
		e.flags |= isDirty
		s.dirty = append(s.dirty, at)
	}
}

// touch has the node's ranges looked at.
func (s *Snapshot) touch(at slot) {
	n := &s.nodes[at]
	if n.sorted = 0; !n.touched {
		n.touched = true
		s.news.nodes = append(s.news.nodes, at)
	}
}

// unlist takes a place out of the list of what a node holds. The last of the list takes it, and is not to be missed by who goes through
// the list.
func (s *Snapshot) unlist(from slot, hole int32) {
	n := &s.nodes[from]
	last := int32(len(n.held) - 1)
	moved := n.held[last]
	n.held[hole] = moved
	n.held = n.held[:last]
	for j := range s.entries[moved].n {
		if x := &s.entries[moved].seats[j]; x.node == from && x.at == last {
			x.at = hole
		}
	}
	if n.touched && hole < n.sorted && last >= n.sorted {
		s.mark(moved)
	}
	n.sorted = min(n.sorted, last)
}

// Unseen is how many ranges have changed, or lie on a node that has, and were not looked at yet: more than one pass looks at. A range may
// count twice.
func (s *Snapshot) Unseen() int {
	if s.all {
		return s.Len()
	}
	n := len(s.dirty) + int(s.rows.end-s.rows.next)
	for _, at := range s.news.nodes {
		n += len(s.nodes[at].held) - int(s.nodes[at].sorted)
	}
	return n
}

// stirred says whether a node has changed, or a place come, and not all that it concerns was looked at since.
func (s *Snapshot) stirred() bool { return len(s.news.nodes) > 0 || s.rows.next < s.rows.end }

// sweep sorts what is new into the buckets, as much as a pass may.
func (p *pass) sweep() {
	s := p.s
	if s.all {
		for i := range s.entries {
			p.sort(row(i))
		}
		for _, at := range s.news.nodes {
			s.nodes[at].touched = false
		}
		s.news = news{dirty: s.dirty[:0], nodes: s.news.nodes[:0]}
		return
	}
	left := s.effort.sorts
	left -= p.sweepNodes(max(1, left/2)) // so that neither waits for ever for the other
	left -= p.sweepDirty(left)
	left -= p.sweepNodes(left)
	left -= p.sweepRows(max(left, s.effort.sorts/8, 1))
	p.visits += visitSort * (s.effort.sorts - left)
}

func (p *pass) sort(at row) {
	p.s.entries[at].flags &^= isDirty
	p.examine(at)
}

func (p *pass) sweepDirty(most int) (n int) {
	s := p.s
	for n = 0; n < min(most, len(s.dirty)); n++ {
		p.sort(s.dirty[n])
	}
	s.dirty = slices.Delete(s.dirty, 0, n)
	return n
}

func (p *pass) sweepNodes(most int) (n int) {
	s := p.s
	done := 0
	for _, at := range s.news.nodes {
		x := &s.nodes[at]
		for ; n < most && int(x.sorted) < len(x.held); n++ {
			p.examine(x.held[x.sorted])
			x.sorted++
		}
		if int(x.sorted) < len(x.held) {
			break
		}
		x.touched = false
		done++
	}
	s.news.nodes = slices.Delete(s.news.nodes, 0, done)
	return n
}

func (p *pass) sweepRows(most int) (n int) {
	for r := &p.s.rows; n < most && r.next < r.end; n++ {
		p.examine(r.next)
		r.next++
	}
	return n
}

// examine puts the range where it is found by the first goal that wants something of it.
func (p *pass) examine(at row) {
	s := p.s
	e := &s.entries[at]
	if e.flags&inUse == 0 || e.flags&isUnder != 0 {
		return
	}
	var v view
	s.look(at, &v)
	if v.x.busy != "" {
		s.unpend(at)
		return
	}
	for i := range p.goals {
		if v.calm && p.goals[i].goal < GoalFactor {
			continue
		}
		if p.goals[i].wants(s, &v) {
			urgent := e.keyspace <= base.KeyspaceSys || v.well.n <= quorum(v.voters.n)
			s.pend(at, bucketOf(p.goals[i].goal, urgent))
			e.flags &^= isMovable
			return
		}
	}
	s.unpend(at)
	was := e.flags&isMovable != 0
	if e.flags &^= isMovable; v.calm {
		e.flags |= isMovable
	}
	if v.calm && !was {
		s.fertile(&v)
	}
}
