package watch

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// world is a keyspace of ranges as a hub sees it: their logs, the replicas of this node, which may be behind, and those of others. A
// replica is a place in its range's log, and holds all versions of its span up to there. What clients are sent is checked as it comes.
type world struct {
	t       fataler
	hub     *Hub
	twin    *Hub // is told the same, and must want the same
	now     base.Instant
	clock   base.Revision
	ranges  []*rangeLog // by id; those that are gone too
	written []*version  // by all, in the order of writing
	local   map[base.RangeID]*replica
	wants   map[base.RangeID]Want
	asks    []Ask
	clients map[StreamID]*client
	nextID  base.RangeID
	big     []byte
	log     func(format string, args ...any)

	closes, nows, pullsAsked int
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// version is what was written, and by whom.
type version struct {
	Event
	first bool // there is none before
}

// state is a range between two entries of its log.
type state struct {
	d         *metapb.RangeDescriptor
	rev       base.Revision
	compacted base.Revision
	events    []*version // of the entry that led here
	merged    bool       // by which another was taken over
	right     base.RangeID
}

type rangeLog struct {
	id     base.RangeID
	states []state
	gone   bool
}

func (r *rangeLog) last() *state { return &r.states[len(r.states)-1] }

// replica is one of this node's.
type replica struct {
	at   int           // in the states of its range
	told base.Revision // up to here
	prev bool
}

const worldKS base.KeyspaceID = 100

func newWorld(t fataler) *world {
	w := &world{
		t: t, local: map[base.RangeID]*replica{}, wants: map[base.RangeID]Want{}, clients: map[StreamID]*client{}, nextID: 10, clock: 100,
		big: make([]byte, 1<<20), log: func(string, ...any) {},
	}
	w.hub, w.twin = NewHub(worldConfig()), NewHub(worldConfig())
	w.addRange("", "", 100, 0)
	return w
}

func worldConfig() Config { return Config{Rand: base.NewRand(1), ProgressInterval: time.Second} }

func (w *world) addRange(start, end string, rev, compacted base.Revision) *rangeLog {
	r := &rangeLog{id: w.nextID}
	w.nextID++
	r.states = []state{{d: descriptor(r.id, start, end, 1), rev: rev, compacted: compacted}}
	w.ranges = append(w.ranges, r)
	return r
}

func descriptor(id base.RangeID, start, end string, generation uint64) *metapb.RangeDescriptor {
	return &metapb.RangeDescriptor{RangeId: uint64(id), KeyspaceId: uint64(worldKS), Start: []byte(start), End: []byte(end), Generation: generation}
}

func within(d *metapb.RangeDescriptor, key []byte) bool {
	return bytes.Compare(key, d.Start) >= 0 && before(key, string(d.End))
}

// holder is the range that holds a key.
func (w *world) holder(key string) *rangeLog {
	for _, r := range w.ranges {
		if !r.gone && within(r.last().d, []byte(key)) {
			return r
		}
	}
	return nil
}

func (w *world) byID(id base.RangeID) *rangeLog {
	for _, r := range w.ranges {
		if r.id == id {
			return r
		}
	}
	return nil
}

// both tells the hub and its twin something.
func (w *world) both(f func(*Hub)) {
	f(w.hub)
	f(w.twin)
}

func (r *rangeLog) entry(change func(*state)) {
	s := *r.last()
	s.events, s.merged, s.right = nil, false, 0
	change(&s)
	r.states = append(r.states, s)
}

// write writes keys of one range in one transaction; a key that begins with "-" is deleted.
func (w *world) write(r *rangeLog, size int, keys ...string) base.Revision {
	r.entry(func(s *state) {
		s.rev = max(s.rev+1, w.clock)
		for _, k := range keys {
			v := &version{Event: Event{Revision: s.rev, Delete: k[0] == '-', Wire: w.big[:size:size]}, first: true}
			v.Key = bytes.TrimPrefix([]byte(k), []byte("-"))
			for _, old := range w.written {
				v.first = v.first && !bytes.Equal(old.Key, v.Key)
			}
			w.written, s.events = append(w.written, v), append(s.events, v)
		}
	})
	return r.last().rev
}

func (w *world) raise(r *rangeLog, to base.Revision) {
	r.entry(func(s *state) { s.rev = max(s.rev, to) })
}

func (w *world) split(r *rangeLog, at string) *rangeLog {
	old := r.last()
	right := w.addRange(at, string(old.d.End), old.rev, old.compacted)
	r.entry(func(s *state) {
		s.d = descriptor(r.id, string(s.d.Start), at, s.d.Generation+1)
		s.right = right.id
	})
	return right
}

// merge has a range take its right neighbour over; the replica here is that of the right one no more.
func (w *world) merge(r *rangeLog) *rangeLog {
	right := w.holder(string(r.last().d.End))
	if len(r.last().d.End) == 0 || right == nil {
		return nil
	}
	right.gone = true
	r.entry(func(s *state) {
		s.d = descriptor(r.id, string(s.d.Start), string(right.last().d.End), s.d.Generation+1)
		s.rev, s.compacted, s.merged = max(s.rev, right.last().rev), max(s.compacted, right.last().compacted), true
	})
	return right
}

// event is a version as it is sent, with the one before if that is wanted and there is one.
func (v *version) event(prev bool) *Event {
	e := v.Event
	if prev && !v.first {
		e.WithPrev = e.Wire
	}
	return &e
}

// place puts a replica of a range on this node.
func (w *world) place(id base.RangeID, at int) {
	w.local[id] = &replica{at: at}
	w.stands(id)
}

// stands tells where the replica is, if that is wanted.
func (w *world) stands(id base.RangeID) {
	rep, want := w.local[id], w.wants[id]
	if rep == nil || !want.Events {
		return
	}
	s := &w.byID(id).states[rep.at]
	rep.told, rep.prev = s.rev+1, want.Prev
	w.both(func(h *Hub) {
		h.Applied(&Applied{Range: id, Descriptor: s.d, From: s.rev + 1, Next: s.rev + 1, Prev: want.Prev, Compacted: s.compacted})
	})
}

// apply has a replica of this node apply its log up to a state, in one pass. What splits bring forth is there then.
func (w *world) apply(id base.RangeID, to int) {
	rep, r := w.local[id], w.byID(id)
	var events []*Event
	merged := false
	for i := rep.at + 1; i <= to; i++ {
		for _, v := range r.states[i].events {
			events = append(events, v.event(rep.prev))
		}
		merged = merged || r.states[i].merged
		if right := r.states[i].right; right != 0 && w.local[right] == nil {
			w.place(right, 0)
		}
	}
	rep.at = to
	s := &r.states[to]
	a := &Applied{Range: id, Descriptor: s.d, From: rep.told, Next: s.rev + 1, Prev: rep.prev, Compacted: s.compacted}
	if merged {
		a.From = a.Next
	} else {
		a.Events = slices.DeleteFunc(events, func(e *Event) bool { return !within(s.d, e.Key) })
	}
	if rep.told = a.Next; w.wants[id].Events {
		w.both(func(h *Hub) { h.Applied(a) })
	}
}

// snapshot has it jump there.
func (w *world) snapshot(id base.RangeID, to int) {
	w.local[id].at = to
	w.stands(id)
}

func (w *world) remove(id base.RangeID) {
	delete(w.local, id)
	w.both(func(h *Hub) { h.Gone(id) })
}

// step steps the hubs and takes what they want.
func (w *world) step(d time.Duration) Effects {
	w.t.Helper()
	w.now = w.now.Add(d)
	eff, twin := w.hub.Step(w.now), w.twin.Step(w.now)
	if !reflect.DeepEqual(eff, twin) {
		w.t.Fatalf("two hubs that were told the same want\n%+v\n%+v", eff, twin)
	}
	for _, o := range eff.Out {
		w.log("out %s", show(o))
		c := w.clients[o.Stream]
		if c == nil {
			w.t.Fatalf("the stream is closed: %s", show(o))
		}
		c.take(w, o)
	}
	for _, e := range eff.Ends {
		w.log("stream %d ends: %v", e.Stream, e.Err)
		delete(w.clients, e.Stream)
	}
	w.asks = append(w.asks, eff.Asks...)
	for _, a := range eff.Asks {
		w.log("ask %+v", a)
		w.pullsAsked++
	}
	for _, id := range eff.Cancel {
		if i := slices.IndexFunc(w.asks, func(a Ask) bool { return a.ID == id }); i >= 0 {
			w.asks = slices.Delete(w.asks, i, i+1)
		}
	}
	for _, want := range eff.Wants {
		w.log("want %+v", want)
		w.wants[want.Range] = want
		w.stands(want.Range)
	}
	audit(w.t, w.hub)
	return eff
}

// server is a replica that can answer for a key.
type server struct {
	r  *rangeLog
	at int
}

// servers are the replicas that hold a key as far as they know: this node's if there is one, else all that others may be.
func (w *world) servers(key []byte) (out []server) {
	for _, r := range w.ranges {
		if rep := w.local[r.id]; rep != nil && within(r.states[rep.at].d, key) {
			return []server{{r, rep.at}}
		}
	}
	for _, r := range w.ranges {
		for at := range r.states {
			if within(r.states[at].d, key) {
				out = append(out, server{r, at})
			}
		}
	}
	return out
}

// latest is the newest of those.
func (w *world) latest(key []byte) server {
	all := w.servers(key)
	slices.SortStableFunc(all, func(a, b server) int {
		return cmp.Compare(a.r.states[a.at].d.Generation, b.r.states[b.at].d.Generation)
	})
	if r := w.holder(string(key)); len(all) > 1 {
		return server{r, len(r.states) - 1}
	}
	return all[len(all)-1]
}

// page answers a pull from a replica, with so many revisions at most; nil: it is to wait.
func (w *world) page(a Ask, s server, most int) *Page {
	st := &s.r.states[s.at]
	p := &Page{Range: s.r.id, Start: a.Start, End: a.End, Next: max(a.From, st.rev+1)}
	whole := true
	if len(st.d.End) > 0 && (len(a.End) == 0 || bytes.Compare(st.d.End, a.End) < 0) {
		whole, p.End = false, st.d.End
	}
	switch {
	case a.From == 0:
		return p
	case a.From < st.compacted:
		p.Compacted, p.Next = st.compacted, a.From
		return p
	case a.Wait && whole && st.rev < a.From && (a.Known == 0 || st.rev <= a.Known):
		return nil
	}
	for _, v := range w.history(string(p.Start), string(p.End), a.From, st.rev) {
		if n := len(p.Events); n > 0 && p.Events[n-1].Revision != v.Revision {
			if most--; most == 0 {
				p.Next = v.Revision
				break
			}
		}
		p.Events = append(p.Events, v.event(a.Prev))
	}
	return p
}

// history is what was written in a span from a revision up to another, in order.
func (w *world) history(start, end string, from, to base.Revision) (out []*version) {
	for _, v := range w.written {
		if string(v.Key) >= start && before(v.Key, end) && v.Revision >= from && v.Revision <= to {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(a, b *version) int { return cmp.Compare(a.Revision, b.Revision) })
	return out
}

// answer takes an ask out and answers it.
func (w *world) answer(i int, a Answer) {
	ask := w.asks[i]
	w.log("answer %d: %+v", ask.ID, a)
	w.asks = slices.Delete(w.asks, i, i+1)
	w.both(func(h *Hub) { h.Answered(ask.ID, a) })
}

// serve answers an ask as well as it can be by now; false: it waits.
func (w *world) serve(i int, from func(Ask) server, most int) bool {
	switch a := w.asks[i]; a.Kind {
	case Pull:
		p := w.page(a, from(a), most)
		if p == nil {
			return false
		}
		w.answer(i, Answer{Page: p})
	case Close:
		w.closes++
		for _, q := range a.Quiet {
			w.raise(w.holder(string(q.Key)), max(w.clock, q.Above))
		}
		w.answer(i, Answer{})
	case Now:
		w.nows++
		r := w.clock
		for _, l := range w.ranges {
			r = max(r, l.last().rev)
		}
		for _, l := range w.ranges {
			if !l.gone && overlaps(l.last().d, string(a.Start), string(a.End)) && l.last().rev < r {
				w.raise(l, r)
			}
		}
		w.answer(i, Answer{Revision: r})
	}
	return true
}

func overlaps(d *metapb.RangeDescriptor, start, end string) bool {
	return before(string(d.Start), end) && before(start, string(d.End))
}

func show(o Out) string {
	s := ""
	switch o.Kind {
	case Created:
		s = fmt.Sprintf("s%d w%d created at %d", o.Stream, o.Watch, o.Revision)
	case Events:
		s = fmt.Sprintf("s%d w%d at %d:", o.Stream, o.Watch, o.Revision)
		for _, e := range o.Events {
			s += fmt.Sprintf(" %s@%d", e.Key, e.Revision)
			if e.Delete {
				s += "-"
			}
			if o.Prev && e.WithPrev != nil {
				s += "+prev"
			}
		}
		if o.Fragment {
			s += " …"
		}
	case Progress:
		s = fmt.Sprintf("s%d w%d progress %d", o.Stream, o.Watch, o.Revision)
	case Canceled:
		s = fmt.Sprintf("s%d w%d canceled at %d", o.Stream, o.Watch, o.Revision)
		if o.Compacted > 0 {
			s += fmt.Sprintf(", compacted %d", o.Compacted)
		}
		if o.Reason != "" {
			s += ": " + o.Reason
		}
	}
	return s
}
