package serve

import (
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

	runs, was []run   // of the response, and of the one before, which often has the same events
	section   section // of the one before
	heads     []byte  // room for what is not shared
	made      []encoded
}

func newPlan() *plan { return &plan{begun: make(map[int64]int32)} }

// take plans what is to be sent.
func (p *plan) take(outs []watch.Out) {
	p.outs = outs
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
	last := &p.outs[p.tail[at]] // whose revision is that of all
	if room := responseBytes + len(last.Reason); cap(p.heads)-len(p.heads) < room {
		p.heads = make([]byte, 0, max(responseBytes*min(len(p.begin), atOnce), room))
	}
	if len(p.made) == 0 {
		p.made = make([]encoded, min(len(p.begin), atOnce))
	}
	e := &p.made[0]
	p.made = p.made[1:]
	begin := len(p.heads)
	p.heads = from.head(p.heads, last)
	e.head = p.heads[begin:len(p.heads):len(p.heads)]
	e.message = append(e.few[:0], &e.head)
	if last.Kind != watch.Events {
		return e
	}
	p.runs = p.runs[:0]
	for i := at; ; i = p.next[i] {
		p.runs = append(p.runs, run{p.outs[i].Events, p.outs[i].Prev})
		if p.next[i] == 0 {
			break
		}
	}
	if len(p.section) == 0 || !same(p.runs, p.was) {
		p.section = newSection(p.runs)
		p.runs, p.was = p.was, p.runs
	}
	e.message = append(e.message, p.section...)
	return e
}

// atOnce is for how many responses room is made at a time.
const atOnce = 128

// forget gives back what was planned.
func (p *plan) forget() {
	clear(p.runs[:cap(p.runs)])
	clear(p.was[:cap(p.was)])
	p.outs, p.section, p.heads, p.made = nil, nil, nil, nil
}
