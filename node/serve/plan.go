package serve

import (
	"slices"
	"sync/atomic"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// plan is how the responses that wait for a stream go out: those of one watch that follow each other as one, so that whoever is a
// little behind costs one message for many events.
type plan struct {
	outs  []watch.Out
	room  []watch.Out     // for what waits at the stream that it is taken for next
	begin []int32         // those of outs that a response begins with
	next  []int32         // that goes out in the same response; 0: none
	tail  []int32         // of a response that begins here: its last
	bytes []int           // of a response that begins here
	begun map[int64]int32 // where the last response of a watch begins

	runs  []run   // of the response
	was   *shared // the events of the one before: often the same
	last  *last   // that any stream was sent: often the same, too
	term  uint64  // as it is now; 0: it was not asked for since outs were taken
	heads []byte  // room for what is not shared
	made  []encoded
}

// shared is the events of a response as all who get them are sent them. Nobody changes it.
type shared struct {
	runs    []run
	section section
	term    uint64 // when they were first sent
}

// last is what a server's streams were sent last. Those of many clients that watch the same get it at the same time, and it is
// made by the first.
type last = atomic.Pointer[shared]

func newPlan(l *last) *plan { return &plan{begun: make(map[int64]int32), last: l} }

// take plans what is to be sent.
func (p *plan) take(outs []watch.Out) {
	p.outs, p.term = outs, 0
	p.begin = p.begin[:0]
	p.next, p.tail, p.bytes = roomFor(p.next, len(outs)), roomFor(p.tail, len(outs)), roomFor(p.bytes, len(outs))
	barrier := int32(0) // whatever is not an event may tell of those before it: none is put before it, or behind it
	for i := range outs {
		o, at := &outs[i], int32(i)
		p.next[i], p.tail[i], p.bytes[i] = 0, at, o.Bytes
		if o.Kind != watch.Events {
			barrier = at
		} else if len(outs) > 1 {
			h, ok := p.begun[o.Watch]
			if ok && h >= barrier && !outs[h].Fragment && !o.Fragment && p.bytes[h]+o.Bytes <= base.WatchResponseBytes {
				p.next[p.tail[h]], p.tail[h] = at, at
				p.bytes[h] += o.Bytes
				continue
			}
			p.begun[o.Watch] = at
		}
		p.begin = append(p.begin, at)
	}
	clear(p.begun)
}

func roomFor[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// encode makes the response that begins at a place.
func (p *plan) encode(from origin, at int32) *encoded {
	end := &p.outs[p.tail[at]] // whose revision is that of all
	if room := responseBytes + len(end.Reason); cap(p.heads)-len(p.heads) < room {
		p.heads = make([]byte, 0, max(responseBytes*min(len(p.begin), atOnce), room))
	}
	if len(p.made) == 0 {
		p.made = make([]encoded, min(len(p.begin), atOnce))
	}
	e := &p.made[0]
	p.made = p.made[1:]
	e.message = append(e.few[:0], &e.head)
	term := uint64(0)
	if end.Kind == watch.Events {
		x := p.share(from, at)
		e.message, term = append(e.message, x.section...), x.term
	} else {
		term = p.termNow(from)
	}
	begin := len(p.heads)
	p.heads = from.head(p.heads, end, term)
	e.head = p.heads[begin:len(p.heads):len(p.heads)]
	return e
}

// share finds the events of the response that begins at a place, or makes them.
func (p *plan) share(from origin, at int32) *shared {
	p.runs = p.runs[:0]
	for i := at; ; i = p.next[i] {
		p.runs = append(p.runs, run{p.outs[i].Events, p.outs[i].Prev})
		if p.next[i] == 0 {
			break
		}
	}
	if p.was != nil && same(p.runs, p.was.runs) {
		return p.was
	}
	if p.was = p.last.Load(); p.was == nil || !same(p.runs, p.was.runs) {
		p.was = &shared{runs: slices.Clone(p.runs), section: newSection(p.runs), term: p.termNow(from)}
		p.last.Store(p.was)
	}
	return p.was
}

func (p *plan) termNow(from origin) uint64 {
	if p.term == 0 {
		p.term = from.term()
	}
	return p.term
}

// atOnce is for how many responses room is made at a time.
const atOnce = 128

// forget gives back what was planned.
func (p *plan) forget() {
	clear(p.runs[:cap(p.runs)])
	p.outs, p.was, p.heads, p.made = nil, nil, nil, nil
}
