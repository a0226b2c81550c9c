package watch

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/cairndb/cairn/internal/base"
)

// client is who reads a stream. It checks each response against what was written: ordered, unique, atomic, nothing left out up to what
// it was told of, progress that is true, and an end that is explained.
type client struct {
	id      StreamID
	watches map[int64]*watching
	asked   []asking       // creates that were not answered, in order
	taken   map[int64]bool // ids of watches that were asked for, and not to be ended
	unsent  []int          // bytes of responses that it has not read
	told    int            // of the progress of all
	refused int
}

// asking is a create: watch is nil if it is to be refused.
type asking struct {
	id    int64
	watch *watching
}

type watching struct {
	spec      Spec
	created   bool
	ended     bool
	cancelled bool          // by the client
	open      bool          // the last response was a fragment
	done      base.Revision // everything up to here was got
	got       int
	pending   []*Event // fragments
}

func (c *client) take(w *world, o Out) {
	w.t.Helper()
	c.unsent = append(c.unsent, o.Bytes)
	x := c.watches[o.Watch]
	fail := func(format string, args ...any) {
		w.t.Helper()
		w.log("%s", dump(w.hub))
		w.t.Fatalf("%s: %s", show(o), fmt.Sprintf(format, args...))
	}
	if o.Kind == Created || o.Kind == Canceled && o.Watch == -1 {
		if len(c.asked) == 0 {
			fail("nothing was asked for")
		}
		next := c.asked[0]
		c.asked = c.asked[1:]
		if (next.watch == nil) != (o.Kind == Canceled) || next.watch != nil && next.id != o.Watch {
			fail("w%d was asked for before", next.id)
		}
		if next.watch != nil {
			x = next.watch
			c.watches[o.Watch] = x
		}
	}
	switch {
	case o.Kind == Canceled && o.Watch == -1:
		c.refused++
		return
	case o.Kind == Progress && o.Watch == -1:
		c.told++
		for id, x := range c.watches {
			if x.created && !x.ended {
				w.claim(x, o.Revision, func(format string, args ...any) { fail("w%d: "+format, append([]any{id}, args...)...) })
			}
		}
		return
	case x == nil || x.ended:
		fail("there is no such watch")
	case o.Kind == Created:
		if x.created {
			fail("it was created before")
		}
		x.created = true
		if x.done = x.spec.From - 1; x.spec.From == 0 {
			x.done = o.Revision
			for _, r := range w.ranges {
				if s := r.last(); !r.gone && overlaps(s.d, string(x.spec.Start), string(x.spec.End)) && s.rev < o.Revision {
					fail("r%d is at %d: what is written there from now on would be missed", r.id, s.rev)
				}
			}
		}
	case !x.created:
		fail("it was not created")
	case x.open && (o.Kind != Events):
		fail("within a revision")
	case o.Kind == Events:
		w.events(x, o, fail)
	case o.Kind == Progress:
		w.claim(x, o.Revision, fail)
	case o.Kind == Canceled:
		x.ended = true
		if !x.cancelled {
			delete(c.taken, o.Watch)
		}
		if o.Compacted > 0 && o.Compacted <= x.done+1 {
			fail("it has all up to %d", x.done)
		}
		if o.Compacted > 0 {
			w.compactedThere(x, o.Compacted, fail)
		}
	}
}

// compactedThere checks that a range of the watch was compacted up to there.
func (w *world) compactedThere(x *watching, at base.Revision, fail func(string, ...any)) {
	for _, r := range w.ranges {
		for _, s := range r.states {
			if s.compacted >= at && overlaps(s.d, string(x.spec.Start), string(x.spec.End)) {
				return
			}
		}
	}
	fail("nothing is compacted up to there")
}

// due is what a watch is to get between two revisions.
func (w *world) due(x *watching, from, to base.Revision) (out []*version) {
	for _, v := range w.history(string(x.spec.Start), string(x.spec.End), from, to) {
		if !(v.Delete && x.spec.NoDelete || !v.Delete && x.spec.NoPut) {
			out = append(out, v)
		}
	}
	return out
}

func (w *world) events(x *watching, o Out, fail func(string, ...any)) {
	if len(o.Events) == 0 {
		fail("it is empty")
	}
	if o.Fragment && !x.spec.Fragment {
		fail("nobody wants fragments")
	}
	x.pending, x.open = append(x.pending, o.Events...), o.Fragment
	if o.Prev != x.spec.PrevKV {
		fail("the version before is wanted or not")
	}
	if o.Fragment {
		return
	}
	due := w.due(x, x.done+1, o.Revision)
	if len(due) != len(x.pending) {
		all := ""
		for _, v := range due {
			all += fmt.Sprintf(" %s@%d", v.Key, v.Revision)
		}
		fail("after %d these are due: %s", x.done, all)
	}
	ranges := 0
	for _, r := range w.ranges {
		if slices.ContainsFunc(r.states, func(s state) bool { return overlaps(s.d, string(x.spec.Start), string(x.spec.End)) }) {
			ranges++
		}
	}
	if ranges > 1 { // the order of writing within a revision is not known of what was cut in two since
		byKey := func(a, b *Event) int { return cmp.Or(cmp.Compare(a.Revision, b.Revision), bytes.Compare(a.Key, b.Key)) }
		slices.SortFunc(due, func(a, b *version) int { return byKey(&a.Event, &b.Event) })
		if !slices.IsSortedFunc(x.pending, func(a, b *Event) int { return cmp.Compare(a.Revision, b.Revision) }) {
			fail("out of order")
		}
		x.pending = slices.Clone(x.pending)
		slices.SortFunc(x.pending, byKey)
	}
	for i, e := range x.pending {
		v := due[i]
		if string(e.Key) != string(v.Key) || e.Revision != v.Revision || e.Delete != v.Delete {
			fail("%s@%d came, and %s@%d is due", e.Key, e.Revision, v.Key, v.Revision)
		}
		if x.spec.PrevKV && !v.first && e.WithPrev == nil {
			fail("%s@%d is without the version before", e.Key, e.Revision)
		}
	}
	x.got += len(x.pending)
	x.pending, x.done = nil, max(x.done, o.Revision)
}

// claim checks that a watch has everything up to a revision, and remembers that nothing may come up to it.
func (w *world) claim(x *watching, r base.Revision, fail func(string, ...any)) {
	if r <= x.done {
		return // it begins later
	}
	if due := w.due(x, x.done+1, r); len(due) > 0 {
		fail("%s@%d is missing", due[0].Key, due[0].Revision)
	}
	for _, l := range w.ranges {
		if s := l.last(); !l.gone && overlaps(s.d, string(x.spec.Start), string(x.spec.End)) && s.rev < r {
			fail("r%d is at %d", l.id, s.rev)
		}
	}
	x.done = r
}

// create begins a watch for a client; the hub chooses as etcd does, the lowest that was not used yet.
func (w *world) create(c *client, id int64, spec Spec) {
	spec.Keyspace = worldKS
	w.log("s%d creates w%d [%q, %q) from %d prev %v noput %v nodelete %v", c.id, id, spec.Start, spec.End, spec.From, spec.PrevKV, spec.NoPut, spec.NoDelete)
	a := asking{id: id}
	if id == 0 {
		for c.taken[a.id] {
			a.id++
		}
	}
	if !c.taken[a.id] && before(string(spec.Start), string(spec.End)) && spec.From >= 0 {
		a.watch = &watching{spec: spec}
		c.taken[a.id] = true
	}
	c.asked = append(c.asked, a)
	w.both(func(h *Hub) { h.Create(c.id, id, spec) })
}

// cancel ends a watch of a client's, be it answered or not.
func (w *world) cancel(c *client, id int64) {
	delete(c.taken, id)
	for _, a := range c.asked {
		if a.id == id && a.watch != nil {
			a.watch.cancelled = true
		}
	}
	if x := c.watches[id]; x != nil {
		x.cancelled = true
	}
	w.both(func(h *Hub) { h.Cancel(c.id, id) })
}

func (w *world) open(id StreamID) *client {
	w.both(func(h *Hub) { h.Open(id) })
	w.clients[id] = &client{id: id, watches: map[int64]*watching{}, taken: map[int64]bool{}}
	return w.clients[id]
}

// read has a client read so many responses.
func (w *world) read(c *client, n int) {
	for ; n > 0 && len(c.unsent) > 0; n-- {
		w.both(func(h *Hub) { h.Sent(c.id, c.unsent[0]) })
		c.unsent = c.unsent[1:]
	}
}
