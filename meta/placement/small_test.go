package placement_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/placement"
)

// Replicas that hold next to nothing share a place: those of a new cluster come in together, and large ones beside them do not.
func TestSmallReplicasShareAPlace(t *testing.T) {
	r := placement.NewReservations()
	ask := func(id uint64, bytes uint64) bool {
		req := &rangepb.Reserve{Decider: 1, Seq: id, RangeId: id, Bytes: bytes, TimeoutMicros: 1e6}
		return r.Reserve(req, placement.Room{Moves: 2}, base.Instant(time.Second)).Granted
	}
	granted := 0
	for id := uint64(1); id <= 20; id++ {
		if ask(id, 1000) {
			granted++
		}
	}
	if granted != 2*base.ReserveSmallShare {
		t.Errorf("%d small replicas come in at once", granted)
	}
	if ask(30, base.ReserveSmallBytes) {
		t.Error("a large one comes in where no place is left")
	}
	r = placement.NewReservations()
	if !ask(1, 64<<20) || !ask(2, 1000) || ask(3, 64<<20) || !ask(4, 1000) {
		t.Error("beside a large one and a small one another small one has room, and no large one")
	}
}

// A decider that begins, hours after its node did, does not hold a node that is slow now to have been slow for all that time: its
// replicas stay where they are for as long as the policy says.
func TestSlowFromNow(t *testing.T) {
	d := placement.New(placement.Config{Node: 1, Life: 1 << 16, Index: base.KeyspaceMeta, First: true})
	active, voter := metapb.NodeState_NODE_STATE_ACTIVE, metapb.ReplicaRole_REPLICA_ROLE_VOTER
	r := &metapb.RangeDescriptor{RangeId: 4, KeyspaceId: 4, Generation: 1, NextReplicaId: 4, Replicas: []*metapb.Replica{
		{ReplicaId: 1, NodeId: 1, Role: voter}, {ReplicaId: 2, NodeId: 2, Role: voter}, {ReplicaId: 3, NodeId: 3, Role: voter}}}
	d.Learn(r)
	now := base.Instant(14 * time.Hour)
	look := func() {
		d.SetNodes([]*metapb.NodeRecord{{NodeId: 1, State: active}, {NodeId: 2, State: active}, {NodeId: 3, State: active}, {NodeId: 4, State: active}},
			[]*metapb.NodeHealth{{NodeId: 3, Slow: "its disk is"}})
	}
	look()
	decides := func() bool {
		actions, _ := d.Step(now)
		for _, a := range actions {
			if a.Report == nil {
				return true
			}
			report := &rangepb.Report{All: true, Version: 1, Incarnation: 1}
			if a.Node == 1 {
				report.Ranges = []*rangepb.RangeReport{{Descriptor_: r}}
			}
			d.Reported(a.Node, report, nil, now)
		}
		return false
	}
	began := now
	for ; now.Sub(began) < placement.Policies(nil).SlowAfter; now = now.Add(base.DecideInterval) {
		if decides() {
			t.Fatalf("a replica leaves the node %s after the decider began", now.Sub(began))
		}
		look()
	}
	for ; now.Sub(began) < placement.Policies(nil).SlowAfter+time.Minute; now = now.Add(base.DecideInterval) {
		if decides() {
			return
		}
		look()
	}
	t.Error("no replica leaves the node, however long it is slow")
}

// A leader that is new has counted nothing yet, and its node seems to be served little: it is not given more than its share for that,
// and none of it back.
func TestNewLeaderIsNotIdle(t *testing.T) {
	const ranges = 30
	for _, load := range []float64{3, 40, 1000} {
		w := newWorld(1, 3)
		for i := range ranges {
			d := parse(t, fmt.Sprintf("r%d ks100 [%03d, %03d) gen 5: 1@n1 2@n2 3@n3 next 4", 1000+i, i, i+1))
			w.addRange(d)
			w.ranges[base.RangeID(d.RangeId)].load = load
		}
		handed := 0
		w.watch.event = func(_ int, e placement.Event) {
			if e.Kind == placement.Done && e.Goal == allocator.GoalLeader {
				handed++
			}
		}
		w.decider(0)
		w.run(2 * time.Minute)
		leads := make(map[base.NodeID]int)
		for _, r := range w.ranges {
			leads[r.leader]++
		}
		if handed > ranges*2/3+2 || leads[1] > ranges/3+2 {
			t.Errorf("at %g requests a second %d leaders were handed over: %v", load, handed, leads)
		}
	}
}

// Who is the first to decide waits for nothing but what the nodes say; whoever comes after another waits until that one's directives
// have ended.
func TestTheFirstDoesNotWait(t *testing.T) {
	for _, first := range []bool{true, false} {
		d := placement.New(placement.Config{Node: 1, Life: 1 << 16, Index: base.KeyspaceMeta, First: first})
		r := &metapb.RangeDescriptor{RangeId: 4, KeyspaceId: 4, Generation: 1, NextReplicaId: 2,
			Replicas: []*metapb.Replica{{ReplicaId: 1, NodeId: 1, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}}}
		d.Learn(r)
		active := metapb.NodeState_NODE_STATE_ACTIVE
		d.SetNodes([]*metapb.NodeRecord{{NodeId: 1, State: active}, {NodeId: 2, State: active}, {NodeId: 3, State: active}}, nil)
		now := base.Instant(time.Second)
		actions, _ := d.Step(now)
		for i, a := range actions {
			if a.Report == nil {
				t.Fatalf("first %v: %v is sent before anybody has said what it leads", first, a)
			}
			report := &rangepb.Report{All: true, Version: 1, Incarnation: 1}
			if a.Node == 1 {
				report.Ranges = []*rangepb.RangeReport{{Descriptor_: r}}
			}
			d.Reported(a.Node, report, nil, now)
			if i+1 < len(actions) {
				if more, _ := d.Step(now); len(more) > 0 {
					t.Fatalf("first %v: %v is sent before all have said what they lead", first, more)
				}
			}
		}
		actions, _ = d.Step(now)
		if decided := len(actions) > 0; decided != first {
			t.Errorf("first %v: %v is sent once all have said what they lead", first, actions)
		}
		if actions, _ = d.Step(now.Add(base.DecideGrace)); !first && len(actions) == 0 {
			t.Error("nothing is decided after the grace")
		}
	}
}
