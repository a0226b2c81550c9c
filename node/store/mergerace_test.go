package store

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/raftgroup"
)

// The two ranges of a merge are in different loops as a rule, whose appliers and the compactor run at once. hooked has something
// happen just when a key is read.
type hooked struct {
	engine.Engine
	key  []byte
	hook func()
}

func (h *hooked) Get(key []byte) ([]byte, error) {
	if h.hook != nil && bytes.Equal(key, h.key) {
		f := h.hook
		h.hook = nil
		f()
	}
	return h.Engine.Get(key)
}

// The right one's applier has an entry of a replica that went cold, and reads its state again; while it does so, the left one's
// applies the merge. There is nothing to apply to then, and that is no corruption. Broken, the store stops.
func TestMergeWhileTheRightOneWarmsUp(t *testing.T) {
	h := &hooked{key: keys.RangeDescriptor(rightRange)}
	n := newSplitNodeOn(t, func(e engine.Engine) engine.Engine { h.Engine = e; return h }, func(engine.Writer) {})
	n.s.cfg.OnFatal = func(err error) { t.Errorf("stopped: %v", err) }
	right := n.frozen()
	n.s.Propose(raftgroup.Proposal{Range: leftRange, Data: body(t, n.mergeCommand(right))}, base.Never, func(proto.Message, error) {})
	n.s.Propose(raftgroup.Proposal{Range: rightRange, Data: body(t, putCommand(t, "z"))}, base.Never, func(proto.Message, error) {})
	lefts, rights := n.s.worker(leftRange).applier, n.s.worker(rightRange).applier
	for len(lefts.queue) == 0 || len(rights.queue) == 0 {
		n.now = n.now.Add(time.Millisecond)
		_, err := n.h.Pass(nil)
		must(t, err)
		for _, y := range n.h.Syncs() {
			must(t, n.h.Synced(y))
		}
	}
	n.s.cool(rightRange)
	h.hook = lefts.once
	rights.once()
	if h.hook != nil {
		t.Fatal("the right one was not cold")
	}
	n.turn()
	n.merged("a", "x")
}
