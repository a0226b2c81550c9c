package watch

import (
	"cmp"
	"slices"

	"github.com/cairndb/cairn/internal/base"
)

// cursor is a place in a span of keys that goes on through its revisions, and the watches that go with it: those that have all there
// is (the span's live cursor), or those that catch up from the same place. Each of its parts lies in one range and has a next revision
// of its own; what is below the smallest of these is delivered, and the rest is held back.
type cursor struct {
	span
	watches []*watch
	part    part // the first by key; the others follow by sibling

	goal     base.Revision // it is wanted above this, though nothing may be written
	waits    *source       // which it is among the waiters of: the one that holds it up
	held     int           // events that are held back, of several parts, and their bytes
	bytes    int
	shared   base.Revision // under which it is in Hub.catching; 0: it is not
	ask      uint64        // for the present revision
	waitsAt  int32
	astray   int32 // parts that are not attached
	fails    uint8
	fresh    bool // it begins at the present revision, which is asked for
	live     bool // the first of its span and kind at its source
	gone     bool
	stirring bool // settle is at work
}

// span is what is watched.
type span struct {
	ks         base.KeyspaceID
	start, end string
	prev       bool // with the version before
}

// part is what one range holds of a cursor's span.
type part struct {
	cursor     *cursor
	source     *source // nil: it is not known which range it is; the part is in Hub.lost
	start, end string
	not        base.RangeID  // a pull found another range than this one
	next       base.Revision // everything below was taken; of an attached part, its source's next counts if that is higher
	held       []*Event      // from the cursor's place on
	sibling    *part

	same, left, right, far *part // of the index that it is in
	weight                 uint64

	ask      uint64
	at       int32 // in the list that it is in: source.parts, source.waiting or Hub.lost
	attached bool  // it takes what its source gets, through its index
	queued   bool  // for a pull
	paused   bool  // the last ask failed
	quiet    bool  // the last pull brought nothing: wait at the replica
	touched  bool
	fails    uint8
}

// watch is one watch of a stream.
type watch struct {
	stream *stream
	cursor *cursor // nil: it is parked
	id     int64
	next   base.Revision // nothing below is sent; what was sent is below
	at     int32         // in cursor.watches
	place  int32         // in stream.list
	turn   uint32        // of its create, as long as that is not answered
	flags  flags
}

// flags are what a watch wants, and what it is.
type flags uint8

const (
	noPut flags = 1 << iota
	noDelete
	fragment
	progress
	created // the client knows of it
	parked  // its stream was full
	busy    // something was sent since the last tick of its stream
	ended
)

const filters = noPut | noDelete

// pos is the revision below which a part has everything.
func (n *part) pos() base.Revision {
	if n.attached {
		return max(n.next, n.source.next)
	}
	return n.next
}

// pos is the revision below which everything was delivered.
func (c *cursor) pos() base.Revision {
	r := c.part.pos()
	for p := c.part.sibling; p != nil; p = p.sibling {
		r = min(r, p.pos())
	}
	return r
}

func (c *cursor) add(watches ...*watch) {
	for _, w := range watches {
		w.cursor, w.at = c, int32(len(c.watches))
		c.watches = append(c.watches, w)
	}
}

func (c *cursor) remove(w *watch) {
	last := c.watches[len(c.watches)-1]
	c.watches[w.at], last.at = last, w.at
	c.watches[len(c.watches)-1] = nil
	c.watches = c.watches[:len(c.watches)-1]
	w.cursor = nil
}

// newCursor makes a cursor of one part, which is nowhere yet.
func newCursor(in span, next base.Revision) *cursor {
	c := &cursor{span: in, astray: 1}
	c.part = part{cursor: c, start: in.start, end: in.end, next: next, at: -1}
	return c
}

// cut makes two parts of one that is in no index, and returns the right one, which is nowhere yet.
func (c *cursor) cut(p *part, at string) *part {
	rest := &part{cursor: c, start: at, end: p.end, next: p.next, sibling: p.sibling, at: -1}
	p.sibling, p.end = rest, at
	c.astray++
	var left []*Event
	for _, e := range p.held {
		if string(e.Key) < at {
			left = append(left, e)
		} else {
			rest.held = append(rest.held, e)
		}
	}
	p.held = left
	return rest
}

// hold has a part keep events until the cursor is beyond them.
func (n *part) hold(e *Event) {
	n.held = append(n.held, e)
	n.cursor.held++
	n.cursor.bytes += e.size()
}

// take is what can be delivered: everything below the cursor's place, in order.
func (c *cursor) take() []*Event {
	if c.held == 0 {
		return nil
	}
	if c.part.sibling == nil {
		events := c.part.held
		c.part.held, c.held, c.bytes = nil, 0, 0
		return events
	}
	var events []*Event
	pos := c.pos()
	for p := &c.part; p != nil; p = p.sibling {
		n, _ := slices.BinarySearchFunc(p.held, pos, func(e *Event, r base.Revision) int { return cmp.Compare(e.Revision, r) })
		events = append(events, p.held[:n]...)
		p.held = base.Without(p.held, n)
	}
	for _, e := range events {
		c.bytes -= e.size()
	}
	c.held -= len(events)
	slices.SortStableFunc(events, func(a, b *Event) int { return cmp.Compare(a.Revision, b.Revision) })
	return events
}

// settle delivers what can be delivered after something has changed, lets parts that are astray go on, and finds what holds the
// cursor up.
func (h *Hub) settle(c *cursor) {
	if c.gone || c.stirring {
		return
	}
	c.stirring = true
	for again := true; again && !c.gone; {
		if events := c.take(); len(events) > 0 {
			h.deliver(c, events)
		}
		again = !c.gone && c.astray > 0 && h.feed(c)
	}
	c.stirring = false
	if c.gone || h.joinLive(c) {
		return
	}
	if c.shared != 0 && c.shared != c.pos() {
		h.unshare(c)
	}
	h.wait(c)
}

// feed lets the parts that are astray go on; true: one has more than before. A part that is ahead waits if too much is held back.
func (h *Hub) feed(c *cursor) bool {
	if c.fresh {
		return false
	}
	more, pulls, pos := false, 0, c.pos()
	for p := &c.part; p != nil; p = p.sibling {
		if p.ask != 0 || p.queued {
			pulls++
		}
	}
	for p := &c.part; p != nil; p = p.sibling {
		if p.attached || p.source == nil || c.bytes >= h.cfg.MergeBytes && p.next > pos {
			continue
		}
		if h.attach(p) {
			more = true
			continue
		}
		if p.ask == 0 && !p.queued && !p.paused && (pulls < base.WatchMergePulls || p.next == pos) {
			pulls++
			h.queue(p)
		}
	}
	return more
}

// joinLive moves the watches of a cursor that has caught up to the live one of the same span, if there is another; or makes it that.
func (h *Hub) joinLive(c *cursor) bool {
	if c.live || c.fresh || c.part.source == nil {
		return false
	}
	l := h.liveOf(c.part.source, c.span)
	switch {
	case l == nil:
		return false
	case l == c:
		c.live = true
		return false
	case l.pos() > c.pos():
		return false
	}
	pos := c.pos()
	for _, w := range c.watches {
		w.next = max(w.next, pos)
		l.add(w)
	}
	l.goal = max(l.goal, c.goal)
	c.watches = nil
	h.drop(c)
	h.wait(l)
	return true
}

// liveOf finds the live cursor of a span at the source of its first part.
func (h *Hub) liveOf(s *source, in span) *cursor {
	end := in.end
	if endsBefore(s.end, end) {
		end = s.end
	}
	for p := s.index.first(in.start, end); p != nil; p = p.same {
		if p.cursor.span == in {
			return p.cursor
		}
	}
	return nil
}

// drop ends a cursor that has no watches.
func (h *Hub) drop(c *cursor) {
	c.gone = true
	h.unshare(c)
	h.unwait(c)
	h.cancelAsk(&c.ask)
	for p := &c.part; p != nil; p = p.sibling {
		h.leave(p)
	}
}
