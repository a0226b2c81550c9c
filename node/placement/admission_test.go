package placement

import (
	"testing"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/placement"
)

// What a node has been promised and what comes in unasked count alike; who is strained takes what is urgent alone; and a promise that
// nobody renews is gone.
func TestAdmission(t *testing.T) {
	now := base.Instant(time.Second)
	is := room{Room: placement.Room{Moves: 2}}
	a := newAdmission(func() room { return is }, func() base.Instant { return now })
	ask := func(id uint64, urgent bool) string {
		return a.reserve(&rangepb.Reserve{Decider: 1, Seq: id, RangeId: id, Bytes: 64 << 20, TimeoutMicros: 1_000_000, Urgent: urgent}).Refused
	}
	refused := func(what string, why string, want bool) {
		t.Helper()
		if (why != "") != want {
			t.Errorf("%s: refused %q", what, why)
		}
	}
	refused("the first", ask(101, false), false)
	is.coming = []base.RangeID{101}
	refused("the second, while the first comes in", ask(102, false), false)
	refused("a third", ask(103, false), true)
	now = now.Add(2 * time.Second)
	is.coming = []base.RangeID{201, 202}
	refused("one while two come in that nobody asked for", ask(101, false), true)
	is.coming = nil
	refused("one when they are there", ask(101, false), false)
	is.strained = "its writes take long"
	refused("one while it is strained", ask(102, false), true)
	refused("an urgent one while it is strained", ask(102, true), false)
	is.Against = "it is cordoned"
	refused("an urgent one when it is cordoned", ask(103, true), true)
}

// By its record a node knows when it is to take nothing.
func TestAgainst(t *testing.T) {
	for _, c := range []struct {
		record *metapb.NodeRecord
		takes  bool
	}{
		{&metapb.NodeRecord{State: metapb.NodeState_NODE_STATE_ACTIVE}, true},
		{&metapb.NodeRecord{State: metapb.NodeState_NODE_STATE_ACTIVE, Cordoned: true}, false},
		{&metapb.NodeRecord{State: metapb.NodeState_NODE_STATE_ACTIVE, Draining: true}, false},
		{&metapb.NodeRecord{State: metapb.NodeState_NODE_STATE_SUSPECT}, false},
		{&metapb.NodeRecord{State: metapb.NodeState_NODE_STATE_FAILED}, false},
		{&metapb.NodeRecord{State: metapb.NodeState_NODE_STATE_LEAVING}, false},
		{&metapb.NodeRecord{State: metapb.NodeState_NODE_STATE_LEFT}, false},
		{&metapb.NodeRecord{State: metapb.NodeState_NODE_STATE_REPLACED}, false},
		{&metapb.NodeRecord{State: metapb.NodeState_NODE_STATE_JOINING}, false},
	} {
		if why := against(c.record); (why == "") != c.takes {
			t.Errorf("%v: %q", c.record, why)
		}
	}
}
