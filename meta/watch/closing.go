package watch

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// Events of several ranges wait until all of these are as far. Whoever waits stands among the waiters of one source: the one that is
// furthest behind. A source that stands still is closed: its range's revision is raised through its log, to the present, so that one entry
// is enough for all that came until then, and to what waits for it, which may be ahead of the present: it was written where another
// clock is, or was. So one clock that is ahead takes the ranges along that are watched with its own, as a read over them does.
// It is asked for only while somebody waits, with all others that are quiet in one question, and the more there are the more rarely. One
// that has not moved since it was last asked for, as its replica is cut off, is asked for ever more rarely until it does.

// wait has a cursor wait at whatever holds it up: events that it holds back, or a revision that somebody wants to hear of.
func (h *Hub) wait(c *cursor) {
	if c.gone || c.fresh || c.held == 0 && (c.goal == 0 || c.pos() > c.goal) {
		h.unwait(c)
		return
	}
	last, pos := &c.part, c.part.pos()
	for p := last.sibling; p != nil; p = p.sibling {
		if r := p.pos(); r < pos {
			last, pos = p, r
		}
	}
	s := last.source
	if !last.attached {
		h.unwait(c) // it is on its way; the answer to a pull shows, a while later at most, where its range is
		return
	}
	if c.waits == s {
		return
	}
	h.unwait(c)
	c.waits, c.waitsAt = s, int32(len(s.waiters))
	if s.waiters = append(s.waiters, c); len(s.waiters) == 1 {
		h.stamp(s)
	}
	if !s.blocked {
		s.blocked = true
		h.blocked = append(h.blocked, s)
	}
}

func (h *Hub) unwait(c *cursor) {
	s := c.waits
	if s == nil {
		return
	}
	c.waits = nil
	last := s.waiters[len(s.waiters)-1]
	s.waiters[c.waitsAt], last.waitsAt = last, c.waitsAt
	s.waiters[len(s.waiters)-1] = nil
	s.waiters = s.waiters[:len(s.waiters)-1]
}

// stamp notes, at the next step, that a source has moved or begun to hold others up.
func (h *Hub) stamp(s *source) {
	if !s.stamped {
		s.stamped = true
		h.stamps = append(h.stamps, s)
	}
}

// due is when a source that holds others up may be closed.
func (s *source) due() base.Instant {
	next := s.closeNext
	if s.next == s.closedAt {
		next = s.closeAgain
	}
	return max(s.since.Add(base.WatchCloseDelay), next)
}

// awaited is the highest revision that those whom a source holds up wait to be beyond.
func (s *source) awaited() (r base.Revision) {
	for _, c := range s.waiters {
		r = max(r, c.goal)
		for p := &c.part; p != nil; p = p.sibling {
			if n := len(p.held); n > 0 {
				r = max(r, p.held[n-1].Revision)
			}
		}
	}
	return r
}

// closeQuiet asks for the sources that have held others up for long enough to be closed.
func (h *Hub) closeQuiet() {
	for _, s := range h.stamps {
		s.stamped, s.since = false, h.now
		h.closeAt = min(h.closeAt, s.due())
	}
	h.stamps = base.Emptied(h.stamps)
	if h.now < h.closeAt {
		return
	}
	h.closeAt = base.Never
	var asks []Ask
	var closing [][]*source
	still := h.blocked[:0]
	for _, s := range h.blocked {
		if s.gone || len(s.waiters) == 0 {
			s.blocked = false
			continue
		}
		still = append(still, s)
		if s.closing {
			continue
		}
		if s.due() > h.now {
			h.closeAt = min(h.closeAt, s.due())
			continue
		}
		i := 0
		for i < len(asks) && asks[i].Keyspace != s.ks {
			i++
		}
		if i == len(asks) {
			asks, closing = append(asks, Ask{Kind: Close, Keyspace: s.ks}), append(closing, nil)
		}
		asks[i].Quiet = append(asks[i].Quiet, Quiet{Key: []byte(s.start), Above: s.awaited()})
		closing[i] = append(closing[i], s)
		if s.closing = true; s.next != s.closedAt {
			s.closedAt, s.unmoved = s.next, 0
		}
	}
	clear(h.blocked[len(still):])
	h.blocked = still
	for i, a := range asks {
		h.ask(a, asked{purpose: forClosing, closing: closing[i]})
	}
}

// closed is told that a question to close some was answered, well or not: where they are is seen where they are fed.
func (h *Hub) closed(sources []*source) {
	every := base.WatchCloseInterval + time.Duration(len(sources))*base.WatchClosePerRange
	h.timers.later(0, func() {
		for _, s := range sources {
			s.closing, s.closeNext = false, h.now.Add(every)
			s.closeAgain = h.now.Add(min(every<<s.unmoved, base.WatchCloseMost))
			if every<<s.unmoved < base.WatchCloseMost {
				s.unmoved++
			}
			if s.blocked {
				h.closeAt = min(h.closeAt, s.due())
			}
		}
	})
}
