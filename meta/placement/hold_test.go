package placement_test

import (
	"testing"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/change"
)

// A node that somebody said to stop is not replaced while it is held, however long it is away; and is when the hold ends.
func TestHeldIsNotReplaced(t *testing.T) {
	const hold = 60 * time.Second
	w := newWorld(1, 4)
	w.addRange(descriptor(100, 1, 2, 3))
	w.ops = []*metapb.Operation{{OpId: 7, Kind: metapb.OperationKind_OPERATION_KIND_HOLD, State: metapb.OperationState_OPERATION_STATE_RUNNING, Nodes: []uint64{3},
		UntilUnixMicros: int64(w.now.Add(hold) / 1000)}}
	w.decider(0)
	w.run(10 * time.Second)
	w.nodes[3].down = true
	w.run(hold - 11*time.Second)
	if w.nodes[3].record.State != metapb.NodeState_NODE_STATE_FAILED {
		t.Fatal("n3 should have failed by now")
	}
	on := func() []base.NodeID { return change.Voters(w.ranges[100].desc) }
	if got := on(); len(got) != 3 || got[2] != 3 {
		t.Errorf("while n3 is held the range is on %v\n%s", got, w.log.String())
	}
	w.run(40 * time.Second)
	if got := on(); len(got) != 3 || got[2] != 4 {
		t.Errorf("after the hold the range is on %v\n%s", got, w.log.String())
	}
}
