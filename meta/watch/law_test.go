package watch

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/internal/base"
)

// TestWatches: whatever happens to the ranges, the replicas, the pulls and the readers, each watch gets what was written in its span from
// its revision on, in order, once, and no revision in pieces; what a stream is told of its progress is true. And once all is well again
// each has got everything, each question for progress was answered, and nothing is asked any more but where news is waited for.
func TestWatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.log = t.Logf
		l := &law{t: t, w: w, sizes: []int{10, 1000}}
		if rapid.Bool().Draw(t, "large") {
			l.sizes = []int{10, 100 << 10, 400 << 10}
		}
		for range rapid.IntRange(0, 3).Draw(t, "splits") {
			l.split()
		}
		for range rapid.IntRange(1, 120).Draw(t, "moves") {
			l.move()
		}
		if rapid.IntRange(0, 9).Draw(t, "dropped") == 0 {
			l.drop()
		} else {
			l.settle()
		}
	})
}

type law struct {
	t      *rapid.T
	w      *world
	sizes  []int
	stream StreamID
}

func (l *law) n(lo, hi int, what string) int { return rapid.IntRange(lo, hi).Draw(l.t, what) }

func (l *law) key(what string) string {
	return string(rune('a'+l.n(0, 7, what))) + []string{"", "1", "2"}[l.n(0, 2, "tail")]
}

// some draws one of a list.
func some[T any](l *law, list []T, what string) (x T, ok bool) {
	if len(list) == 0 {
		return x, false
	}
	return list[l.n(0, len(list)-1, what)], true
}

func (l *law) live() (out []*rangeLog) {
	for _, r := range l.w.ranges {
		if !r.gone {
			out = append(out, r)
		}
	}
	return out
}

// here are the ids of the ranges of which this node has a replica, in order.
func (l *law) here() (out []base.RangeID) {
	for _, r := range l.w.ranges {
		if l.w.local[r.id] != nil {
			out = append(out, r.id)
		}
	}
	return out
}

func (l *law) clients() (out []*client) {
	for id := range l.stream {
		if c := l.w.clients[id+1]; c != nil {
			out = append(out, c)
		}
	}
	return out
}

func (l *law) move() {
	w := l.w
	if l.n(0, 2, "clock") == 0 {
		w.clock += base.Revision(l.n(1, 5, "ticks"))
	}
	switch l.n(0, 27, "move") {
	case 0, 1, 2, 3, 4, 5:
		r, _ := some(l, l.live(), "range")
		l.write(r)
	case 6:
		r, _ := some(l, l.live(), "range")
		to := w.clock
		if l.n(0, 3, "ahead") == 0 { // by a node whose clock is: none here comes to that
			to += 1_000_000
		}
		w.log("r%d is raised to %d", r.id, to)
		w.raise(r, to)
	case 7:
		l.split()
	case 8:
		r, _ := some(l, l.live(), "range")
		right := w.merge(r)
		w.log("r%d takes over %v", r.id, right != nil)
		if right != nil && w.local[right.id] != nil {
			w.remove(right.id)
		}
	case 9:
		r, _ := some(l, l.live(), "range")
		mark := base.Revision(l.n(int(r.last().compacted), int(r.last().rev), "mark"))
		w.log("r%d is compacted at %d", r.id, mark)
		r.entry(func(s *state) { s.compacted = mark })
	case 10, 11, 12:
		if id, ok := some(l, l.here(), "replica"); ok {
			l.behind(id, w.apply)
		}
	case 13:
		if id, ok := some(l, l.here(), "replica"); ok {
			l.behind(id, w.snapshot)
		}
	case 14:
		if id, ok := some(l, l.here(), "replica"); ok && l.n(0, 2, "really") == 0 {
			w.remove(id)
		}
	case 15:
		if r, _ := some(l, l.live(), "range"); w.local[r.id] == nil {
			w.place(r.id, l.n(0, len(r.states)-1, "at"))
		}
	case 16, 17:
		l.create()
	case 18:
		if c, ok := some(l, l.clients(), "client"); ok {
			id := int64(l.n(1, 4, "watch"))
			w.log("s%d cancels w%d", c.id, id)
			w.cancel(c, id)
		}
	case 19:
		if c, ok := some(l, l.clients(), "client"); ok {
			w.both(func(h *Hub) { h.Progress(c.id) })
		}
	case 20, 21:
		if c, ok := some(l, l.clients(), "client"); ok {
			w.read(c, l.n(1, 10, "read"))
		}
	case 22:
		if c, ok := some(l, l.clients(), "client"); ok && l.n(0, 5, "close") == 0 {
			w.step(0)
			w.both(func(h *Hub) { h.CloseStream(c.id) })
			delete(w.clients, c.id)
		}
	default:
		l.answers()
	}
	if l.n(0, 1, "step") == 0 {
		w.step(time.Duration(l.n(0, 300, "ms")) * time.Millisecond)
	}
}

func (l *law) write(r *rangeLog) {
	var keys []string
	for range l.n(1, 3, "keys") {
		k := l.key("key")
		if within(r.last().d, []byte(k)) && !slices.Contains(keys, k) && !slices.Contains(keys, "-"+k) {
			if l.n(0, 3, "delete") == 0 {
				k = "-" + k
			}
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		size, _ := some(l, l.sizes, "size")
		l.w.log("r%d writes %q", r.id, keys)
		l.w.write(r, size, keys...)
	}
}

func (l *law) split() {
	r, _ := some(l, l.live(), "range")
	if at := l.key("at"); within(r.last().d, []byte(at)) && at != string(r.last().d.Start) {
		l.w.log("r%d is split at %q", r.id, at)
		l.w.split(r, at)
	}
}

// behind has a replica that is behind go on.
func (l *law) behind(id base.RangeID, how func(base.RangeID, int)) {
	at, last := l.w.local[id].at, len(l.w.byID(id).states)-1
	if at < last {
		to := l.n(at+1, last, "to")
		l.w.log("r%d applies %d to %d", id, at, to)
		how(id, to)
	}
}

func (l *law) create() {
	clients := l.clients()
	if len(clients) < 3 && l.n(0, 1, "open") == 0 || len(clients) == 0 {
		l.stream++
		clients = append(clients, l.w.open(l.stream))
	}
	c, _ := some(l, clients, "client")
	spec := Spec{
		Start: []byte(l.key("start")), PrevKV: l.n(0, 2, "prev") == 0, NoPut: l.n(0, 5, "noput") == 0, NoDelete: l.n(0, 5, "nodelete") == 0,
		Fragment: l.n(0, 2, "fragment") == 0, Progress: l.n(0, 2, "progress") == 0,
	}
	switch l.n(0, 3, "span") {
	case 0:
		spec.Start = nil
	case 1:
		spec.End = []byte(l.key("end"))
	default:
		spec.End = append(slices.Clone(spec.Start), 0)
	}
	switch l.n(0, 2, "from") {
	case 0:
		spec.From = base.Revision(l.n(90, int(l.w.clock)+20, "revision"))
	case 1:
		spec.From = max(1, l.w.clock-base.Revision(l.n(0, 5, "ago")))
	}
	l.w.step(0) // it knows which of its watches have ended
	l.w.create(c, int64(l.n(1, 4, "watch")), spec)
}

// answers answers an ask, well or badly, or late.
func (l *law) answers() {
	if len(l.w.asks) == 0 {
		return
	}
	i := l.n(0, len(l.w.asks)-1, "ask")
	switch a := l.w.asks[i]; {
	case l.n(0, 4, "lost") == 0:
		l.w.answer(i, Answer{Err: base.ErrStopped})
	case a.Kind == Pull && a.Wait && l.n(0, 3, "late") == 0:
		s := l.server(a)
		a.Wait = false
		l.w.answer(i, Answer{Page: l.w.page(a, s, l.n(1, 3, "most"))})
	default:
		l.w.serve(i, func(a Ask) server { return l.server(a) }, l.n(1, 3, "most"))
	}
}

func (l *law) server(a Ask) server {
	s, _ := some(l, l.w.servers(a.Start), "server")
	return s
}

// drop has the keyspace dropped: each stream ends, and nothing is asked any more.
func (l *law) drop() {
	w := l.w
	w.log("the keyspace is dropped")
	w.both(func(h *Hub) { h.dropped(&base.KeyspaceDropped{Keyspace: worldKS}) })
	w.step(0)
	for _, c := range l.clients() {
		if len(c.taken) > 0 || len(c.asked) > 0 {
			l.t.Fatalf("stream %d goes on", c.id)
		}
	}
	w.step(time.Minute)
	if h := w.hub; len(h.sources)+len(h.layout)+len(h.lost)+len(h.queued) > 0 {
		l.t.Fatalf("not all has ended:\n%s", dump(h))
	}
	for _, a := range w.asks {
		if a.Kind != Close { // what is being closed may be
			l.t.Fatalf("it is still asked: %+v", a)
		}
	}
	for id, want := range w.wants {
		if want.Events {
			l.t.Fatalf("%s is wanted", id)
		}
	}
}

// settle lets all be well until nothing happens any more.
func (l *law) settle() {
	w := l.w
	w.log("all is well from now on")
	for round, calm := 0, 0; calm < 6; round++ {
		calm++
		busy := false
		w.clock++
		for _, id := range l.here() {
			if r := w.byID(id); r.gone {
				w.remove(id)
				busy = true
			} else if last := len(r.states) - 1; w.local[id].at < last {
				w.apply(id, last)
				busy = true
			}
		}
		for _, c := range l.clients() {
			w.read(c, len(c.unsent))
		}
		for i := 0; i < len(w.asks); {
			latest := func(a Ask) server { return w.latest(a.Start) }
			if w.serve(i, latest, 100) {
				busy = true
			} else if a := w.asks[i]; calm == 3 { // it has waited for long enough
				a.Wait = false
				w.answer(i, Answer{Page: w.page(a, latest(a), 100)})
			} else {
				i++
			}
		}
		eff := w.step(10 * time.Second)
		told := func(o Out) bool { return o.Kind == Progress && o.Watch != -1 } // this has no end
		polls := func(a Ask) bool { return a.Wait }
		eff.Out, eff.Asks = slices.DeleteFunc(eff.Out, told), slices.DeleteFunc(eff.Asks, polls)
		if busy || len(eff.Out)+len(eff.Asks) > 0 || eff.Wake == w.now {
			calm = 0
		}
		if round == 300 {
			l.t.Fatalf("it does not come to rest: %+v\n%s", eff, dump(w.hub))
		}
	}
	for _, c := range l.clients() {
		w.read(c, len(c.unsent))
	}
	w.log("at rest:\n%s", dump(w.hub))
	for _, c := range l.clients() {
		l.check(c)
	}
}

// check checks that a client has everything.
func (l *law) check(c *client) {
	if st := l.w.hub.streams[c.id]; st.full || st.asking || len(st.parked) > 0 || st.unsent != 0 {
		l.t.Fatalf("stream %d has read everything, and is full, or not answered: %+v", c.id, st)
	}
	if len(c.asked) > 0 {
		l.t.Fatalf("s%d w%d was never answered", c.id, c.asked[0].id)
	}
	for id, x := range c.watches {
		switch due := l.w.due(x, x.done+1, 1<<40); {
		case x.ended:
		case x.open:
			l.t.Fatalf("s%d w%d ends within a revision", c.id, id)
		case len(due) > 0:
			l.t.Fatalf("s%d w%d has all up to %d, and did not get %s@%d", c.id, id, x.done, due[0].Key, due[0].Revision)
		}
	}
}
