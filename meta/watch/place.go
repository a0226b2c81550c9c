package watch

import "github.com/cairndb/cairn/internal/base"

// searchLost looks for the ranges of parts of which that is not known: among the sources, and by asking whoever has the first key.
// An answer makes a source, and may be that of many parts.
func (h *Hub) searchLost() {
	for _, s := range h.stirred {
		s.stir = false
		for _, p := range append([]*part(nil), s.waiting...) {
			h.settle(p.cursor)
		}
	}
	h.stirred = base.Emptied(h.stirred)
	if !h.search {
		return
	}
	h.search = false
	for i := 0; i < len(h.lost); {
		p := h.lost[i]
		if s := h.find(p.cursor.ks, p.start); s != nil && s.id != p.not {
			h.assign(p, s, s.end, s.next)
			continue // another has taken its place
		}
		i++
		if p.ask == 0 && !p.paused && len(h.resolving) < base.WatchResolves && !h.isResolving(p) {
			h.resolving = append(h.resolving, p)
			p.ask = h.ask(Ask{Kind: Pull, Keyspace: p.cursor.ks, Start: []byte(p.start)}, asked{purpose: forPlace, part: p})
		}
	}
}

func (h *Hub) isResolving(p *part) bool {
	for _, q := range h.resolving {
		if q.start == p.start && q.cursor.ks == p.cursor.ks {
			return true
		}
	}
	return false
}

// found takes the answer to where a part is.
func (h *Hub) found(p *part, page *Page) {
	s := h.ensure(p.cursor.ks, page.Range, p.start, string(page.End), page.Next)
	h.assign(p, s, string(page.End), page.Next)
}

// assign puts a part where its range is known to be, which is known to reach to end and to be at next.
func (h *Hub) assign(p *part, s *source, end string, next base.Revision) {
	c := p.cursor
	if endsBefore(end, p.end) {
		h.lose(c.cut(p, end))
	}
	h.cancelAsk(&p.ask)
	h.enlist(p, s)
	p.paused, p.fails = false, 0
	switch {
	case !c.fresh:
		h.announce(c, s, next)
		if c.gone {
			return
		}
	case c.part.sibling != nil:
		h.askPresent(c)
		return
	default:
		if h.begin(c, next); c.gone {
			return
		}
	}
	if p.next < s.compacted && s.covers(p.start, p.end) {
		h.compact(p, s.compacted)
	}
	h.settle(c)
}

// announce tells the clients of watches that wait for it that these are there: the first range of theirs is found. One that begins
// later waits where its range is now, with all others.
func (h *Hub) announce(c *cursor, s *source, next base.Revision) {
	for i := 0; i < len(c.watches); {
		w := c.watches[i]
		known := w.flags&created != 0
		if !h.created(w, next-1) {
			continue // another has taken its place
		}
		if i++; known {
			continue
		}
		if p := &c.part; p.source == s && p.sibling == nil {
			p.next = min(p.next, next)
		}
	}
}

// begin has a cursor begin behind the present.
func (h *Hub) begin(c *cursor, next base.Revision) {
	c.fresh = false
	for p := &c.part; p != nil; p = p.sibling {
		p.next = next
	}
	for i := 0; i < len(c.watches); {
		w := c.watches[i]
		if w.next = next; h.created(w, next-1) {
			i++
		}
	}
}

// askPresent asks where a cursor over several ranges begins: none of them alone can say it.
func (h *Hub) askPresent(c *cursor) {
	if c.ask == 0 && c.fresh && !c.gone {
		c.ask = h.ask(Ask{Kind: Now, Keyspace: c.ks, Start: []byte(c.start), End: []byte(c.end)}, asked{purpose: forPresent, cursor: c})
	}
}

func (h *Hub) present(c *cursor, r base.Revision) {
	if !c.fresh {
		return
	}
	h.begin(c, r+1)
	h.settle(c)
}

// enter has watches go on from a revision that is next for all of them: with the live cursor of their span, with one that catches up from
// the same place, or with one of their own.
func (h *Hub) enter(in span, watches ...*watch) {
	next := watches[0].next
	s := h.find(in.ks, in.start)
	if s != nil {
		if l := h.liveOf(s, in); l != nil && l.pos() <= next {
			l.add(watches...)
			return
		}
	}
	key := sharing{in, next}
	if c := h.catching[key]; c != nil {
		c.add(watches...)
		return
	}
	c := newCursor(in, next)
	c.add(watches...)
	if s == nil {
		h.lose(&c.part)
		return
	}
	if end := s.end; endsBefore(end, c.end) {
		h.lose(c.cut(&c.part, end))
	} else {
		c.part.next = min(next, s.next)
	}
	h.enlist(&c.part, s)
	h.settle(c)
	if !c.gone && c.astray > 0 && c.pos() == next {
		c.shared = next
		h.catching[key] = c
	}
}

// sharing is what cursors that catch up are found by.
type sharing struct {
	span
	next base.Revision
}

func (h *Hub) unshare(c *cursor) {
	if c.shared != 0 {
		delete(h.catching, sharing{c.span, c.shared})
		c.shared = 0
	}
}
