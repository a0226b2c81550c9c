package eval

import (
	"github.com/cairndb/cairn/internal/base"
)

// Heads remembers the newest version of keys that were written lately, without their values: a put of such a key needs
// no look into the engine. It is what the engine holds under the batches of its passes, so it lives as long as
// the state machine of one range, and is dropped with it when a batch is not committed. Two generations bound it: when
// the young one is full it becomes the old one, and what is used in the old one comes back.
type Heads struct {
	young, old map[string]head
	limit      int
}

// head is the newest version of a key; one that does not exist, or is deleted, has no version.
type head struct {
	create  base.Revision
	version int64
	lease   int64
}

// NewHeads returns an empty memory of at most twice limit keys.
func NewHeads(limit int) *Heads { return &Heads{young: make(map[string]head), limit: limit} }

func (h *Heads) get(prefix []byte) (head, bool) {
	if h == nil {
		return head{}, false
	}
	if x, ok := h.young[string(prefix)]; ok {
		return x, true
	}
	x, ok := h.old[string(prefix)]
	if ok {
		h.put(prefix, x)
	}
	return x, ok
}

func (h *Heads) put(prefix []byte, x head) {
	if h == nil {
		return
	}
	if len(h.young) >= h.limit {
		h.old, h.young = h.young, make(map[string]head, h.limit)
	}
	h.young[string(prefix)] = x
}
