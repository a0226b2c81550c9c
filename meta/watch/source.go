package watch

import (
	"cmp"
	"slices"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// source is a range that is watched here: how far it is known, its tail, and the parts that take what it gets. It is fed by the range's
// replica of this node, if there is one, and else by pulls that wait at another's. What it gets is complete, from next on, for the
// span that it has; the span changes between two feedings, and who lies outside of it then goes on elsewhere from where he is.
type source struct {
	id         base.RangeID
	ks         base.KeyspaceID
	start, end string
	next       base.Revision
	compacted  base.Revision
	tail       tail
	index      index
	parts      []*part // attached
	waiting    []*part // not yet, but known to lie in this range
	prevs      int     // of both, those that want the version before

	local      bool          // a replica of this node feeds it
	reached    base.Revision // how far a gap is to be pulled, if that is above next
	pending    []*Applied    // what the replica has shown behind the gap
	kept       int           // bytes of pending
	ask        uint64
	askPrev    bool
	paused     bool
	queued     bool
	fails      uint8
	wanted     Want // what was said last
	gone       bool
	leaving    bool // it will be seen whether it is needed
	stir       bool // it is in Hub.stirred
	polled     bool // it is in Hub.polls
	quiet      bool // the last pull of a gap brought nothing: wait at the replica
	waiters    []*cursor
	blocked    bool          // it is in Hub.blocked
	stamped    bool          // it is in Hub.stamps
	since      base.Instant  // it has held others up without moving since then
	closing    bool          // it is being closed
	closedAt   base.Revision // its next when that was last asked for
	unmoved    uint8         // how often it has been in a row without a change of that
	closeNext  base.Instant  // not before, ...
	closeAgain base.Instant  // ... and not before this if it has not moved since
}

func (s *source) covers(start, end string) bool {
	return start >= s.start && before(start, s.end) && !endsBefore(s.end, end)
}

// find is the source that is known to hold a key.
func (h *Hub) find(ks base.KeyspaceID, key string) *source {
	i, ok := slices.BinarySearchFunc(h.layout, key, func(s *source, key string) int {
		if s.ks != ks {
			return cmp.Compare(s.ks, ks)
		}
		return cmp.Compare(s.start, key)
	})
	if !ok {
		i--
	}
	for ; i >= 0 && h.layout[i].ks == ks; i-- { // two begin at one key only if one of them is out of date
		if s := h.layout[i]; before(key, s.end) {
			return s
		} else if i == 0 || h.layout[i-1].start != s.start {
			return nil
		}
	}
	return nil
}

// place puts a source where it belongs among the others.
func (h *Hub) place(s *source) {
	i, _ := slices.BinarySearchFunc(h.layout, s, func(a, b *source) int {
		return cmp.Or(cmp.Compare(a.ks, b.ks), cmp.Compare(a.start, b.start), cmp.Compare(a.id, b.id))
	})
	h.layout = slices.Insert(h.layout, i, s)
	h.search = true
}

func (h *Hub) displace(s *source) {
	if i := slices.Index(h.layout, s); i >= 0 {
		h.layout = slices.Delete(h.layout, i, i+1)
	}
}

// ensure is the source of a range of which a replica holds [start, end) and is at next. It spans that from then on if the replica is
// as far as the source: nothing is written there any more up to where that is.
func (h *Hub) ensure(ks base.KeyspaceID, id base.RangeID, start, end string, next base.Revision) *source {
	if s := h.sources[id]; s != nil {
		touches := start >= s.start || end == "" || end >= s.start // where a range begins never changes
		if !s.local && next >= s.next && touches && (start < s.start || endsBefore(s.end, end)) {
			if endsBefore(end, s.end) {
				end = s.end
			}
			h.widen(s, min(start, s.start), end, s.next)
		}
		return s
	}
	s := &source{id: id, ks: ks, start: start, end: end, next: next, index: newIndex()}
	s.tail.reset(next)
	h.sources[id] = s
	h.place(s)
	for _, other := range h.layout {
		other.tail.trim(h.tailBytes())
	}
	h.want(s)
	return s
}

func (h *Hub) tailBytes() int {
	return min(h.cfg.TailBytes, base.WatchTailsBytes/max(1, len(h.layout)))
}

// want says what is wanted of the range's replica here, and has the source fed.
func (h *Hub) want(s *source) {
	if w := (Want{Range: s.id, Events: !s.gone, Prev: !s.gone && s.prevs > 0}); w != s.wanted {
		s.wanted = w
		h.eff.Wants = append(h.eff.Wants, w)
	}
	if s.ask != 0 && s.prevs > 0 && !s.askPrev {
		h.cancelAsk(&s.ask)
	}
	h.pollLater(s)
}

// changed is called when a source spans more, or was made: parts may be attached to it now.
func (h *Hub) changed(s *source) {
	h.search = true
	if !s.stir {
		s.stir = true
		h.stirred = append(h.stirred, s)
	}
}

// widen has a source span more than before; everything from a revision on will be complete for that.
func (h *Hub) widen(s *source, start, end string, from base.Revision) {
	if s.start != start {
		h.displace(s)
		s.start = start
		h.place(s)
	}
	s.end, s.pending, s.kept = end, nil, 0
	h.cancelAsk(&s.ask) // it asks for less
	s.tail.reset(from)
	h.changed(s)
	h.pollLater(s)
}

// narrow cuts off what a source does not span any more: it goes on elsewhere, from where the source is before it is fed up to `fed`.
func (h *Hub) narrow(s *source, start, end string, fed base.Revision) {
	if s.start >= start && !endsBefore(end, s.end) {
		return
	}
	if s.start < start {
		h.displace(s)
		s.start = start
		h.place(s)
	}
	if endsBefore(end, s.end) {
		s.end = end
	}
	h.search = true
	var cut []*cursor
	for i := len(s.parts) - 1; i >= 0; i-- { // the last takes the place of one that is taken out
		p := s.parts[i]
		if s.covers(p.start, p.end) {
			continue
		}
		cut = append(cut, p.cursor)
		h.detach(p)
		off := p
		if p.start >= s.start && before(p.start, s.end) {
			off = p.cursor.cut(p, s.end)
			if p.cursor.prev {
				s.prevs++
			}
			h.join(p, s)
		}
		if mutant.Is(mutant.WatchGapAtSplit) {
			off.next = max(off.next, fed)
		}
		h.lose(off)
	}
	for _, c := range cut {
		h.settle(c)
	}
}

// retire ends a source whose range is gone: all that it had goes on elsewhere.
func (h *Hub) retire(s *source) {
	s.gone = true
	for len(s.parts) > 0 {
		p := s.parts[len(s.parts)-1]
		h.detach(p)
		h.lose(p)
		h.wait(p.cursor)
	}
	for len(s.waiting) > 0 {
		h.lose(s.waiting[len(s.waiting)-1])
	}
	h.end(s)
}

func (h *Hub) end(s *source) {
	s.gone = true
	delete(h.sources, s.id)
	h.displace(s)
	h.cancelAsk(&s.ask)
	h.want(s)
}

// left is called when a part has gone: what nobody needs any more ends after a while, as clients come back.
func (h *Hub) left(s *source) {
	unused := len(s.parts)+len(s.waiting) == 0
	if s.gone || s.leaving || !unused && (s.prevs > 0 || !s.wanted.Prev) {
		return
	}
	s.leaving = true
	h.timers.later(base.WatchLinger, func() {
		s.leaving = false
		if s.gone {
			return
		}
		if len(s.parts)+len(s.waiting) == 0 {
			h.end(s)
		} else {
			h.want(s)
		}
	})
}

// enlist has a part wait until it can be attached to a source.
func (h *Hub) enlist(p *part, s *source) {
	h.unlist(p)
	p.source, p.at, p.not = s, int32(len(s.waiting)), 0
	s.waiting = append(s.waiting, p)
	if p.cursor.prev {
		s.prevs++
		h.want(s)
	}
}

// takeOut takes a part out of the list where it is, if it is there; the last one takes its place.
func takeOut(list *[]*part, p *part) {
	l := *list
	if p.at < 0 || int(p.at) >= len(l) || l[p.at] != p {
		return
	}
	last := l[len(l)-1]
	l[p.at], last.at = last, p.at
	l[len(l)-1] = nil
	*list, p.at = l[:len(l)-1], -1
}

// unlist takes a part that is not attached from where it waits.
func (h *Hub) unlist(p *part) {
	s := p.source
	if s == nil {
		takeOut(&h.lost, p)
		return
	}
	takeOut(&s.waiting, p)
	p.source = nil
	if p.cursor.prev {
		s.prevs--
	}
	h.left(s)
}

// lose has a part wait until it is known which range it is in.
func (h *Hub) lose(p *part) {
	h.cancelAsk(&p.ask)
	h.unlist(p)
	p.queued, p.quiet, p.at = false, false, int32(len(h.lost))
	h.lost = append(h.lost, p)
	h.search = true
}

// attach has a part take what its source gets, if nothing is missing between the two, or the tail has it.
func (h *Hub) attach(p *part) bool {
	s, c := p.source, p.cursor
	if !s.covers(p.start, p.end) {
		return false
	}
	if p.next < s.next {
		if !s.tail.has(p.next, c.prev) {
			return false
		}
		for _, e := range s.tail.from(p.next) {
			h.looked++
			if string(e.Key) >= p.start && before(e.Key, p.end) {
				p.hold(e)
			}
		}
		p.next = s.next
	}
	h.cancelAsk(&p.ask)
	takeOut(&s.waiting, p)
	p.queued, p.quiet, p.fails = false, false, 0
	h.join(p, s)
	h.unite(c)
	return true
}

// join puts a part that is nowhere among those that take what a source gets.
func (h *Hub) join(p *part, s *source) {
	p.source, p.attached, p.at = s, true, int32(len(s.parts))
	s.parts = append(s.parts, p)
	s.index.add(p)
	p.cursor.astray--
}

// detach ends that; the part is nowhere then, at the place where it is.
func (h *Hub) detach(p *part) {
	s := p.source
	p.next = p.pos()
	s.index.remove(p)
	takeOut(&s.parts, p)
	if p.cursor.prev {
		s.prevs--
	}
	p.attached, p.source = false, nil
	p.cursor.astray++
	p.cursor.live = p.cursor.live && p != &p.cursor.part
	h.left(s)
}

// leave takes a part out of everything: its cursor is gone.
func (h *Hub) leave(p *part) {
	h.cancelAsk(&p.ask)
	p.queued = false
	if p.attached {
		h.detach(p)
	} else {
		h.unlist(p)
	}
}

// unite makes one part of neighbours that are attached to one source: ranges were merged.
func (h *Hub) unite(c *cursor) {
	for p := &c.part; p.sibling != nil; {
		q, s := p.sibling, p.source
		if !p.attached || !q.attached || s != q.source || p.end != q.start || max(p.next, q.next) > s.next {
			p = q
			continue
		}
		h.detach(q)
		h.detach(p)
		p.end, p.sibling, p.held = q.end, q.sibling, append(p.held, q.held...)
		slices.SortStableFunc(p.held, func(a, b *Event) int { return cmp.Compare(a.Revision, b.Revision) })
		c.astray-- // the one that is no more
		if c.prev {
			s.prevs++
		}
		h.join(p, s)
	}
}
