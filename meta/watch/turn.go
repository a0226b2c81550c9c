package watch

import "github.com/cairndb/cairn/internal/base"

// The creates of a stream are answered in the order in which they were asked for, as with etcd: a client that asks for several at once
// knows by that whose an answer is. Where a watch's range is may have to be asked for. What comes after it on its stream and
// could be answered waits until it is, with what it is to be told, and goes on then from where it begins, as what was parked does.

// creation is a create that is not answered yet.
type creation struct {
	watch *watch // nil: it is refused, or canceled
	span  span
	outs  []Out // the answer; none: it is not known yet
}

// expect has a watch's create answered in its turn.
func (st *stream) expect(w *watch, in span) {
	w.turn = st.turn + uint32(len(st.creating))
	st.creating = append(st.creating, creation{watch: w, span: in})
}

// creation is what is to be answered to a watch.
func (st *stream) creation(w *watch) *creation { return &st.creating[w.turn-st.turn] }

// created answers a watch's create; false: it is not its turn, and until then it has no cursor.
func (h *Hub) created(w *watch, at base.Revision) bool {
	if w.flags&created != 0 {
		return true
	}
	st, out := w.stream, Out{Kind: Created, Watch: w.id, Revision: at}
	if w.turn == st.turn {
		w.flags |= created
		h.emit(st, out)
		h.nextTurn(st, at)
		return true
	}
	if next := st.creation(w); len(next.outs) == 0 {
		next.outs = []Out{out}
		if w.cursor != nil {
			h.withdraw(w)
		}
	}
	return false
}

// refuse answers a create that makes no watch.
func (h *Hub) refuse(st *stream, o Out) {
	if len(st.creating) == 0 {
		h.emit(st, o)
		return
	}
	st.creating = append(st.creating, creation{outs: []Out{o}})
}

// nextTurn ends the turn of a stream's first create, which is answered at a revision, and of those after it up to one whose answer is
// not known.
func (h *Hub) nextTurn(st *stream, at base.Revision) {
	for {
		st.turn++
		if st.creating = base.Without(st.creating, 1); len(st.creating) == 0 || len(st.creating[0].outs) == 0 {
			return
		}
		next := st.creating[0]
		for _, o := range next.outs {
			if at = max(at, o.Revision); o.Kind == Canceled {
				o.Revision = at // of what was refused when no revision was known yet too
			}
			h.emit(st, o)
		}
		if w := next.watch; w != nil {
			w.flags |= created | parked
			st.parked = append(st.parked, parking{w, next.span})
			h.resume(st)
		}
	}
}
