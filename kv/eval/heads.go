package eval

import (
	"github.com/cairndb/cairn/internal/base"
)

// Heads remembers the newest version of keys that were written lately, without their values: a put of such a key needs
// no look into the engine. It is what the engine holds under the batches of its passes, so it lives as long as
// the state machine of one range, and is dropped with it when a batch is not committed. Two generations bound it: when
// the young one is full it becomes the old one, and what is used in the old one comes back.
//
// It remembers too where the range takes keys of the leases that were asked for lately: at most limit of them.
type Heads struct {
	young, old map[string]head
	leases     map[int64]holding
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

// drop forgets a key: it is to be looked up.
func (h *Heads) drop(prefix []byte) {
	if h != nil {
		delete(h.young, string(prefix))
		delete(h.old, string(prefix))
	}
}

func (h *Heads) lease(id int64) (holding, bool) {
	if h == nil {
		return holding{}, false
	}
	x, ok := h.leases[id]
	return x, ok
}

func (h *Heads) putLease(id int64, x holding) {
	switch {
	case h == nil:
		return
	case h.leases == nil || len(h.leases) >= h.limit:
		h.leases = make(map[int64]holding)
	}
	h.leases[id] = x
}

func (h *Heads) dropLease(id int64) {
	if h != nil {
		delete(h.leases, id)
	}
}
