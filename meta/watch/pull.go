package watch

import (
	"errors"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// purpose is what an ask is for.
type purpose uint8

const (
	forPart    purpose = iota + 1 // what it lacks
	forPlace                      // which range a lost part is in
	forSource                     // what a source gets next
	forPresent                    // where a cursor begins
	forClosing
)

// asked is an ask that is not answered.
type asked struct {
	purpose purpose
	part    *part
	source  *source
	cursor  *cursor
	closing []*source
	from    base.Revision
	prev    bool
	slot    bool // it counts in Hub.pulls
}

// ask asks.
func (h *Hub) ask(a Ask, q asked) uint64 {
	h.lastAsk++
	a.ID, q.from, q.prev = h.lastAsk, a.From, a.Prev
	q.slot = a.Kind == Pull && !a.Wait && q.purpose != forPlace
	if q.slot {
		h.pulls++
	}
	h.asks[a.ID] = q
	h.eff.Asks = append(h.eff.Asks, a)
	return a.ID
}

// forget takes an ask that was answered, or is not wanted any more, out.
func (h *Hub) forget(id uint64) (asked, bool) {
	q, ok := h.asks[id]
	if !ok {
		return q, false
	}
	delete(h.asks, id)
	if q.slot {
		h.pulls--
	}
	if q.purpose == forPlace {
		takePlace(&h.resolving, q.part)
		h.search = true
	}
	return q, true
}

func takePlace(list *[]*part, p *part) {
	for i, q := range *list {
		if q == p {
			*list = append((*list)[:i], (*list)[i+1:]...)
			return
		}
	}
}

// cancelAsk has an ask not answered, if there is one.
func (h *Hub) cancelAsk(id *uint64) {
	if _, ok := h.forget(*id); ok {
		h.eff.Cancel = append(h.eff.Cancel, *id)
	}
	*id = 0
}

// queue has a part wait for its turn to pull: a page each, first come first.
func (h *Hub) queue(p *part) {
	p.queued = true
	h.queued = append(h.queued, puller{part: p})
}

// puller is who waits for a pull.
type puller struct {
	part   *part
	source *source
}

// issue asks for what waits, as much as there may be at once.
func (h *Hub) issue() {
	for _, s := range h.polls {
		s.polled = false
		h.poll(s)
	}
	h.polls = base.Emptied(h.polls)
	for len(h.queued) > 0 && h.pulls < base.WatchPulls {
		next := h.queued[0]
		h.queued = base.Without(h.queued, 1)
		if p := next.part; p != nil && p.queued {
			p.queued = false
			p.ask = h.ask(Ask{Kind: Pull, Keyspace: p.cursor.ks, Start: []byte(p.start), End: []byte(p.end), From: p.next, Prev: p.cursor.prev,
				Wait: p.quiet, Known: p.next - 1}, asked{purpose: forPart, part: p})
		}
		if s := next.source; s != nil && s.queued {
			s.queued = false
			if !s.gone && s.ask == 0 && s.gap() {
				h.pull(s, s.quiet)
			}
		}
	}
}

// pollLater has the source look, at the end of the step, whether it has to ask.
func (h *Hub) pollLater(s *source) {
	if !s.polled {
		s.polled = true
		h.polls = append(h.polls, s)
	}
}

// poll has a source fed: by a pull that waits, if no replica of this node feeds it, or by one that fills a gap.
func (h *Hub) poll(s *source) {
	switch {
	case s.gone || s.ask != 0 || s.paused || s.queued:
	case !s.local:
		h.pull(s, true)
	case s.gap() && !s.quiet:
		s.queued = true
		h.queued = append(h.queued, puller{source: s})
	case s.gap():
		h.pull(s, true)
	}
}

// pull asks for what comes next. That the range does not reach as far any more is an answer at once.
func (h *Hub) pull(s *source, wait bool) {
	s.askPrev = s.prevs > 0
	s.ask = h.ask(Ask{Kind: Pull, Keyspace: s.ks, Start: []byte(s.start), End: []byte(s.end), From: s.next, Prev: s.askPrev, Wait: wait,
		Known: s.next - 1}, asked{purpose: forSource, source: s})
}

// Answered answers an ask; one that was cancelled may be answered all the same.
func (h *Hub) Answered(id uint64, a Answer) {
	q, ok := h.forget(id)
	if !ok {
		return
	}
	var gone *base.KeyspaceDropped
	if errors.As(a.Err, &gone) {
		h.dropped(gone)
		return
	}
	switch q.purpose {
	case forPart, forPlace:
		p := q.part
		p.ask = 0
		switch {
		case a.Err != nil || a.Page == nil:
			h.again(&p.fails, &p.paused, func() {
				h.search = true
				h.settle(p.cursor)
			})
		case q.purpose == forPlace:
			h.found(p, a.Page)
		default:
			p.fails = 0
			h.partPage(p, q, a.Page)
		}
	case forSource:
		q.source.ask = 0
		if a.Err != nil || a.Page == nil {
			h.again(&q.source.fails, &q.source.paused, func() { h.pollLater(q.source) })
			return
		}
		q.source.fails = 0
		h.sourcePage(q.source, q, a.Page)
	case forPresent:
		q.cursor.ask = 0
		if a.Err != nil {
			h.again(&q.cursor.fails, new(bool), func() { h.askPresent(q.cursor) })
			return
		}
		h.present(q.cursor, a.Revision)
	case forClosing:
		h.closed(q.closing)
	}
}

// again has something done after a pause that grows with the failures in a row.
func (h *Hub) again(fails *uint8, paused *bool, do func()) {
	*paused = true
	h.timers.later(h.pause(*fails), func() {
		*paused = false
		do()
	})
	if *fails < 255 {
		*fails++
	}
}

// partPage takes what a part has pulled.
func (h *Hub) partPage(p *part, q asked, page *Page) {
	c := p.cursor
	if end := string(page.End); endsBefore(end, p.end) {
		h.lose(c.cut(p, end))
	}
	if page.Compacted > q.from {
		h.compact(p, page.Compacted)
		h.settle(c)
		return
	}
	for _, e := range page.Events {
		if e.Revision >= p.next {
			p.hold(e)
		}
	}
	waited := p.quiet
	p.quiet = page.Next <= p.next
	p.next = max(p.next, page.Next)
	switch s := p.source; {
	case s.id != page.Range:
		p.not = s.id
		h.lose(p)
	case waited && p.quiet && !s.local && !s.covers(p.start, p.end):
		h.lose(p) // where the range begins and ends is asked for again
	}
	h.settle(c)
}

// sourcePage takes what a source has pulled.
func (h *Hub) sourcePage(s *source, q asked, page *Page) {
	if page.Range != s.id {
		h.retire(s)
		return
	}
	h.pollLater(s)
	h.narrow(s, s.start, string(page.End), page.Next)
	s.compacted = max(s.compacted, page.Compacted)
	if page.Compacted > q.from {
		for _, p := range append([]*part(nil), s.parts...) {
			if !p.cursor.gone {
				h.compact(p, page.Compacted)
			}
		}
		h.skip(s, page.Compacted)
		h.filled(s)
		return
	}
	s.quiet = page.Next <= s.next
	h.feedSource(s, page.Events, page.Next, q.prev)
	h.filled(s)
}

// compact ends the watches that lack something at a part which is compacted; those that begin later go on from the mark.
func (h *Hub) compact(p *part, mark base.Revision) {
	c := p.cursor
	pos := p.pos()
	if !mutant.Is(mutant.WatchLostAtCompaction) {
		for i := 0; i < len(c.watches); {
			if w := c.watches[i]; max(w.next, pos) < mark {
				h.endWatch(w, Out{Kind: Canceled, Watch: w.id, Revision: max(p.source.next, mark) - 1, Compacted: mark})
			} else {
				i++
			}
		}
	}
	if p.next = max(p.next, mark); len(c.watches) == 0 && !c.gone {
		h.drop(c)
	}
}
