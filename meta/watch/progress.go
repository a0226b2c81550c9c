package watch

import (
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// Progress asks how far a stream's watches are. What is answered, once all of them are beyond what any range of theirs was known to be
// at when it was asked, is the revision below which everything was sent to each of them. A stream without watches is not answered,
// as with etcd; one that asks again before it was answered is answered once.
func (h *Hub) Progress(id StreamID) {
	st := h.streams[id]
	if st == nil || len(st.list) == 0 {
		return
	}
	for _, w := range st.list {
		st.wanted = max(st.wanted, w.known()-1)
	}
	st.seen = 0
	if !st.asking {
		st.asking = true
		h.asking = append(h.asking, st)
	}
	for _, w := range st.list {
		h.drive(w, st.wanted)
	}
}

// drive has whatever a watch waits for closed, if nothing else takes it beyond a revision.
func (h *Hub) drive(w *watch, to base.Revision) {
	if c := w.cursor; c != nil && w.flags&created != 0 && c.goal < to {
		c.goal = to
		h.wait(c)
	}
}

// pos is the revision below which everything was sent to a watch.
func (w *watch) pos() base.Revision {
	if w.cursor == nil {
		return w.next
	}
	return w.cursor.pos()
}

// known is how far the ranges of a watch are known to be, the furthest of them.
func (w *watch) known() (r base.Revision) {
	if c := w.cursor; c != nil && w.flags&created != 0 {
		for p := &c.part; p != nil; p = p.sibling {
			if p.source != nil {
				r = max(r, p.source.next)
			}
		}
	}
	return r
}

// tellProgress answers the streams that wait for it.
func (h *Hub) tellProgress() {
	still := h.asking[:0]
	for _, st := range h.asking {
		if st.gone {
			continue
		}
		at, any := base.Revision(0), false
		if !st.full && h.beyond(st) {
			at, any = st.least()
		}
		if mutant.Is(mutant.WatchEarlyProgress) && !st.full {
			if at, any = st.least(); any {
				at = st.wanted + 1
			}
		}
		switch {
		case any:
			st.asking = false
			h.emit(st, Out{Kind: Progress, Watch: -1, Revision: at - 1})
		case len(st.list) == 0:
			st.asking = false
		default:
			still = append(still, st)
		}
	}
	clear(h.asking[len(still):])
	h.asking = still
}

// beyond says whether all watches of a stream are beyond what is wanted. Those that were found to be are not looked at again.
func (h *Hub) beyond(st *stream) bool {
	for ; st.seen < len(st.list); st.seen++ {
		w := st.list[st.seen]
		if w.flags&created != 0 && w.pos() <= st.wanted {
			h.drive(w, st.wanted)
			return false
		}
	}
	return true
}

// least is the smallest place of a stream's watches. One that begins in the future does not make it more than what is known.
func (st *stream) least() (at base.Revision, any bool) {
	known := st.wanted + 1
	for _, w := range st.list {
		if known = max(known, w.known()); w.flags&created != 0 && (!any || w.pos() < at) {
			at, any = w.pos(), true
		}
	}
	return min(at, known), any
}

// tick tells watches of a stream that asked for it how far they are, if nothing was sent to them since the last time. Those that
// are behind are not told, as with etcd.
func (h *Hub) tick(st *stream) {
	st.ticking = false
	any := false
	for _, w := range st.list {
		if w.flags&progress == 0 {
			continue
		}
		any = true
		if c := w.cursor; w.flags&(created|busy) == created && c != nil && c.astray == 0 && c.held == 0 && !st.full {
			h.emit(st, Out{Kind: Progress, Watch: w.id, Revision: min(c.pos(), w.known()) - 1})
		}
		w.flags &^= busy
	}
	if any && !st.gone {
		h.ticks(st)
	}
}

// ticks has the next tick come, not at the same time for all streams.
func (h *Hub) ticks(st *stream) {
	if st.ticking {
		return
	}
	st.ticking = true
	every := h.cfg.ProgressInterval
	h.timers.later(every+jitter(h.cfg.Rand, every/10), func() {
		if !st.gone {
			h.tick(st)
		}
	})
}
