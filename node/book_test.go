package node

import (
	"log/slog"
	"testing"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
)

// Whichever way a node hears of another, what rests on the records is told: the ranges that have too few replicas would wait
// for ever else, for nothing looks at them without being told.
func TestBookTellsOfEverythingNew(t *testing.T) {
	b, err := openBook(engine.NewMem(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	b.tell(func() { b.all(); told++ })
	for _, c := range []struct {
		name string
		do   func()
		want int
	}{
		{"a node that connects", func() { b.heard(2, 1, "b:1") }, 1},
		{"the same again", func() { b.heard(2, 1, "b:1") }, 1},
		{"its record", func() {
			b.learn(&metapb.NodeRecord{NodeId: 2, Incarnation: 1, Address: "b:1", State: metapb.NodeState_NODE_STATE_ACTIVE})
		}, 2},
		{"the same record", func() {
			b.learn(&metapb.NodeRecord{NodeId: 2, Incarnation: 1, Address: "b:1", State: metapb.NodeState_NODE_STATE_ACTIVE})
		}, 2},
		{"an older one", func() { b.learn(&metapb.NodeRecord{NodeId: 2, Address: "x:1"}) }, 2},
		{"a new address", func() { b.heard(2, 2, "c:1") }, 3},
	} {
		if c.do(); told != c.want {
			t.Errorf("%s: told %d times, want %d", c.name, told, c.want)
		}
	}
}

// What a node has said of itself is known after a restart as well, beside the record that does not say it yet.
func TestBookIsKept(t *testing.T) {
	eng := engine.NewMem()
	b, err := openBook(eng, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b.learn(&metapb.NodeRecord{NodeId: 2, Generation: 4, Incarnation: 1, Address: "b:1", Version: "1.0.0"})
	b.heard(2, 3, "c:1")
	b.told(3, 2, "d:1", &metapb.NodeRecord{NodeId: 3, Generation: 7, Incarnation: 1, Address: "x:1"})
	again, err := openBook(eng, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// An older start, and a record that is no newer, change nothing.
	again.heard(2, 2, "y:1")
	again.learn(&metapb.NodeRecord{NodeId: 2, Generation: 4, Incarnation: 1, Address: "b:1", Version: "1.0.0"})
	for id, want := range map[base.NodeID]string{2: "c:1", 3: "d:1"} {
		if got, ok := again.Address(id); !ok || got != want {
			t.Errorf("%s is at %q, want %q", id, got, want)
		}
	}
	if r := again.record(2); r.Generation != 4 || r.Incarnation != 1 || r.Address != "b:1" {
		t.Errorf("the record by itself: %v", r)
	}
}

// A node that has gone for good is nowhere: another may have its address, and who would connect for it again and again is told so each
// time.
func TestBookForgetsWhereTheGoneWere(t *testing.T) {
	b, err := openBook(engine.NewMem(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for state, there := range map[metapb.NodeState]bool{
		metapb.NodeState_NODE_STATE_ACTIVE: true, metapb.NodeState_NODE_STATE_FAILED: true, metapb.NodeState_NODE_STATE_LEAVING: true,
		metapb.NodeState_NODE_STATE_LEFT: false, metapb.NodeState_NODE_STATE_REPLACED: false,
	} {
		id := base.NodeID(state)
		b.learn(&metapb.NodeRecord{NodeId: uint64(id), Generation: 1, Address: "b:1", State: state})
		if _, ok := b.Address(id); ok != there {
			t.Errorf("%s: an address %t, want %t", state, ok, there)
		}
	}
}
