package watch

import (
	"slices"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// stream is a client's stream: its watches, and what it is still to be sent. Once that is too much, whatever comes for a watch parks
// it: nothing is kept for it but its next revision. When half is sent the parked ones go on, first come first, each from
// there, by the tail or by pulls; as long as some wait, whatever comes for another parks that one behind them. So a slow reader costs what
// one queue holds, holds up nobody else, and passes none of its own watches over.
type stream struct {
	id     StreamID
	ks     base.KeyspaceID // of all its watches
	list   []*watch
	byID   map[int64]*watch // once there are some
	nextID int64
	unsent int
	full   bool
	parked []parking // first come first; some of them have ended since
	ready  bool      // it is in Hub.ready
	gone   bool

	creating []creation // not answered yet, in order
	turn     uint32     // of the first of them; of a watch's it is watch.turn

	wanted  base.Revision // progress up to here was asked for
	asking  bool          // and not answered
	seen    int           // these of list have been found to be above
	ticking bool
}

const (
	someWatches = 8  // a list is searched faster than a map, and costs less
	outBytes    = 48 // of a response beside its events
	eventBytes  = 6  // of an event beside its encoding
)

func (st *stream) watch(id int64) *watch {
	if st.byID != nil {
		return st.byID[id]
	}
	for _, w := range st.list {
		if w.id == id {
			return w
		}
	}
	return nil
}

func (st *stream) add(w *watch) {
	w.place = int32(len(st.list))
	st.list = append(st.list, w)
	if st.byID == nil && len(st.list) > someWatches {
		st.byID = make(map[int64]*watch, 2*someWatches)
		for _, w := range st.list {
			st.byID[w.id] = w
		}
	}
	if st.byID != nil {
		st.byID[w.id] = w
	}
}

func (st *stream) remove(w *watch) {
	last := st.list[len(st.list)-1]
	st.list[w.place], last.place = last, w.place
	st.list[len(st.list)-1] = nil
	st.list = st.list[:len(st.list)-1]
	delete(st.byID, w.id)
	st.seen = 0 // the order has changed
}

// emit has something sent.
func (h *Hub) emit(st *stream, o Out) {
	o.Stream = st.id
	o.Bytes += outBytes + len(o.Reason)
	st.unsent += o.Bytes
	st.full = st.full || st.unsent >= h.cfg.StreamBytes
	h.eff.Out = append(h.eff.Out, o)
}

// Sent says that so many bytes of a stream's responses are on their way to its client.
func (h *Hub) Sent(id StreamID, bytes int) {
	st := h.streams[id]
	if st == nil {
		return
	}
	if st.unsent -= bytes; st.full && st.unsent <= h.cfg.StreamBytes/2 {
		st.full = false
		h.resume(st)
	}
}

func (h *Hub) resume(st *stream) {
	if !st.ready && len(st.parked) > 0 {
		st.ready = true
		h.ready = append(h.ready, st)
	}
}

// unpark lets parked watches of streams that have room go on, some of each stream in turn; what is left is for the next step.
func (h *Hub) unpark() {
	h.looked = 0
	for n := 0; len(h.ready) > 0 && n < base.WatchStepWatches && h.looked < base.WatchStepEvents; {
		st := h.ready[0]
		h.ready = base.Without(h.ready, 1)
		st.ready = false
		if st.gone || st.full {
			continue
		}
		n += h.goOn(st)
		if !st.full {
			h.resume(st)
		}
	}
}

// goOn has the first of a stream's parked watches go on, and those behind it that are at the same place: they stand at one cursor again
// and are sent the same slices. Those for which there is no room then are the first again. It says how many it has looked at.
func (h *Hub) goOn(st *stream) (n int) {
	list, group := st.parked, h.group[:0]
	var in span
	for ; n < len(list) && n < base.WatchStepGroup; n++ {
		p := &list[n]
		if p.watch.flags&ended != 0 {
			continue
		}
		if len(group) > 0 && (p.watch.next != group[0].next || p.span != in) {
			break
		}
		in = p.span
		group = append(group, p.watch)
		p.watch.flags &^= parked
	}
	st.parked = h.parked[:0]
	if len(group) > 0 {
		h.enter(in, group...)
	}
	left := n - len(st.parked) // of the group alone some can be there: nobody else was given anything
	copy(list[left:n], st.parked)
	h.parked, h.group = base.Emptied(st.parked), base.Emptied(group)
	st.parked = base.Without(list, left)
	return n
}

// park takes a watch from its cursor: it goes on from next once its stream has room.
func (h *Hub) park(w *watch, next base.Revision) {
	w.stream.parked = append(w.stream.parked, parking{w, w.cursor.span})
	w.cursor.remove(w)
	w.next = max(w.next, next)
	w.flags |= parked
}

// parking is a parked watch: only such a one has to know what it watches.
type parking struct {
	watch *watch
	span  span
}

// batch is what is sent as one response: some revisions, all of each.
type batch struct {
	events      []*Event
	bytes       int
	first, last base.Revision
}

// deliver gives events, all there are of a cursor's span between two of its places, to its watches. Those that want the same get
// the same slices.
func (h *Hub) deliver(c *cursor, events []*Event) {
	next := c.pos()
	var cut [filters + 1][]batch
	var done [filters + 1]bool
	for i := 0; i < len(c.watches); {
		w := c.watches[i]
		kind := w.flags & filters
		if !done[kind] {
			cut[kind], done[kind] = batches(events, kind, c.prev, h.cfg.ResponseBytes), true
		}
		b := cut[kind]
		if len(b) > 0 && w.next > b[0].first {
			later := slices.IndexFunc(events, func(e *Event) bool { return e.Revision >= w.next })
			if b = nil; later >= 0 {
				b = batches(events[later:], kind, c.prev, h.cfg.ResponseBytes)
			}
		}
		if h.give(w, b, c.prev, next) {
			i++
		}
	}
	if len(c.watches) == 0 {
		h.drop(c)
	}
}

// give sends batches to a watch, up to the first for which its stream has no room; false: there was one, and the watch is parked. It is as
// well while others of the stream wait: what room there is is theirs first, and more events of a watch at once cost less.
func (h *Hub) give(w *watch, batches []batch, prev bool, next base.Revision) bool {
	before := w.next
	for i, b := range batches {
		if w.stream.full || len(w.stream.parked) > 0 {
			if mutant.Is(mutant.WatchDoubleAtResume) {
				w.next = before
				h.park(w, before)
				return false
			}
			h.park(w, b.first)
			return false
		}
		o := Out{Kind: Events, Watch: w.id, Revision: b.last, Events: b.events, Prev: prev, Bytes: b.bytes}
		w.next = b.last + 1
		if i == len(batches)-1 {
			o.Revision = max(o.Revision, next-1)
		}
		w.flags |= busy
		h.fragments(w, o)
	}
	w.next = max(w.next, next)
	return true
}

// fragments sends a response in pieces, if it is too large and its watch wants that.
func (h *Hub) fragments(w *watch, o Out) {
	if w.flags&fragment != 0 {
		for o.Bytes > h.cfg.ResponseBytes && len(o.Events) > 1 {
			piece, n := o, 0
			piece.Bytes, piece.Fragment = 0, true
			for n < len(o.Events)-1 && (n == 0 || piece.Bytes+wire(o.Events[n], o.Prev) <= h.cfg.ResponseBytes) {
				piece.Bytes += wire(o.Events[n], o.Prev)
				n++
			}
			piece.Events, o.Events = o.Events[:n:n], o.Events[n:]
			o.Bytes -= piece.Bytes
			h.emit(w.stream, piece)
		}
	}
	h.emit(w.stream, o)
}

// wire is how many bytes of a response an event takes.
func wire(e *Event, prev bool) int {
	if prev && e.WithPrev != nil {
		return len(e.WithPrev) + eventBytes
	}
	return len(e.Wire) + eventBytes
}

// batches cuts events, without those that a filter leaves out, behind the revision at which a response is large enough.
func batches(events []*Event, filter flags, prev bool, most int) []batch {
	if filter != 0 {
		events = slices.Collect(func(yield func(*Event) bool) {
			for _, e := range events {
				if e.Delete && filter&noDelete == 0 || !e.Delete && filter&noPut == 0 {
					if !yield(e) {
						return
					}
				}
			}
		})
	}
	var out []batch
	for from, n := 0, 0; n < len(events); from = n {
		b := batch{first: events[n].Revision}
		for n < len(events) && b.bytes < most {
			for b.last = events[n].Revision; n < len(events) && events[n].Revision == b.last; n++ {
				b.bytes += wire(events[n], prev)
			}
		}
		b.events = events[from:n:n]
		out = append(out, b)
	}
	return out
}
