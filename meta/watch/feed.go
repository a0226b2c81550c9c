package watch

import "github.com/cairndb/cairn/internal/base"

// Applied is told what a replica of this node has shown. What follows what came before feeds the range's source. If something is
// missing between the two, because a snapshot was taken in, or because the versions before were not looked up, the gap is pulled; what
// the replica shows meanwhile is kept.
func (h *Hub) Applied(a *Applied) {
	s := h.sources[a.Range]
	if s == nil {
		return
	}
	if !s.local {
		s.local, s.reached = true, 0
		h.cancelAsk(&s.ask)
	}
	s.compacted = max(s.compacted, a.Compacted)
	start, end := s.start, s.end
	if d := a.Descriptor; d != nil && a.Next >= s.next { // else it lags behind another's, and its span is of the past
		start, end = string(d.Start), string(d.End)
	}
	h.narrow(s, start, end, a.Next)
	h.take(s, a)
	if start < s.start || endsBefore(s.end, end) {
		h.widen(s, min(start, s.start), end, s.next)
	}
}

// take feeds a source what its replica has shown, or keeps it until the gap before it is filled.
func (h *Hub) take(s *source, a *Applied) {
	if len(s.parts) == 0 { // nobody misses what is missing
		s.pending, s.kept, s.reached = nil, 0, 0
		h.cancelAsk(&s.ask)
		h.skip(s, a.From)
		h.feedSource(s, a.Events, a.Next, a.Prev)
		return
	}
	lacking := s.lacks(a)
	if !s.gap() && a.From <= s.next && !lacking {
		h.feedSource(s, a.Events, a.Next, a.Prev)
		return
	}
	for _, e := range a.Events {
		s.kept += e.size()
	}
	if n := len(s.pending); lacking || n > 0 && s.pending[n-1].Next < a.From || s.kept > h.cfg.TailBytes {
		s.pending, s.kept = nil, 0
	}
	if !lacking {
		s.pending = append(s.pending, a)
	}
	s.reached, s.quiet = max(s.reached, a.Next), false
	h.filled(s)
	h.pollLater(s)
}

// lacks says whether somebody needs the versions before that a replica did not look up.
func (s *source) lacks(a *Applied) bool { return !a.Prev && s.prevs > 0 && len(a.Events) > 0 }

// gap says whether the replica of this node has shown something that does not follow what came before, and that somebody needs.
func (s *source) gap() bool {
	to := s.reached
	if len(s.pending) > 0 {
		to = s.pending[0].From
	}
	return s.local && s.next < to && len(s.parts) > 0
}

// filled feeds a source what was kept, as far as there is no gap before it.
func (h *Hub) filled(s *source) {
	for len(s.pending) > 0 && s.pending[0].From <= s.next {
		a := s.pending[0]
		if s.lacks(a) && a.Next > s.next {
			s.pending = nil // all up to reached is pulled
			break
		}
		s.pending = base.Without(s.pending, 1)
		h.feedSource(s, a.Events, a.Next, a.Prev)
	}
	if len(s.pending) == 0 {
		s.kept = 0
	}
}

// Gone is told that this node's replica of a range has ended: others' are pulled from then.
func (h *Hub) Gone(id base.RangeID) {
	if s := h.sources[id]; s != nil && s.local {
		s.local, s.pending, s.kept, s.reached = false, nil, 0, 0
		h.cancelAsk(&s.ask)
		h.pollLater(s)
	}
}

// feedSource takes a source on: events are all that there is of its span from its next up to the new one.
func (h *Hub) feedSource(s *source, events []*Event, next base.Revision, prev bool) {
	var e *Event
	touched := h.touched
	visit := func(p *part) {
		if e.Revision < p.next {
			return
		}
		p.hold(e)
		if !p.touched {
			p.touched = true
			touched = append(touched, p)
		}
	}
	for _, e = range events {
		if e.Revision >= s.next {
			s.index.match(e.Key, visit)
			s.tail.push(e)
		}
	}
	if next > s.next {
		if s.next = next; !prev {
			s.tail.prev = next
		}
		s.tail.trim(h.tailBytes())
	}
	for _, p := range touched {
		p.touched = false
		if c := p.cursor; p.attached && c.part.sibling != nil && c.bytes > h.cfg.MergeBytes && p.pos() > c.pos() {
			h.detach(p) // it goes on from here once the others are as far
			h.enlist(p, s)
		}
		h.settle(p.cursor)
	}
	h.touched = base.Emptied(touched)
	h.moved(s)
}

// skip takes a source on to where there is nothing before that anybody could get.
func (h *Hub) skip(s *source, to base.Revision) {
	if to > s.next {
		s.next = to
		s.tail.reset(to)
		h.moved(s)
	}
}

// moved lets those go on that a source has held up.
func (h *Hub) moved(s *source) {
	if len(s.waiters) == 0 {
		return
	}
	waiters := s.waiters
	s.waiters = nil
	for _, c := range waiters {
		c.waits = nil
	}
	for _, c := range waiters {
		h.settle(c)
	}
	h.stamp(s)
}
