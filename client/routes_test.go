package client

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Who knows a range and not its leader is told who leads, also by the leader itself: that says nothing to those who know all that
// it could say. Broken, a client that forgot a leader goes to it by chance alone, for ever.
func TestHintOfAnUnledRange(t *testing.T) {
	r := newRoutes(10)
	d := &metapb.RangeDescriptor{RangeId: 100, KeyspaceId: 100, Generation: 7, NextReplicaId: 2,
		Replicas: []*metapb.Replica{{ReplicaId: 1, NodeId: 1, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}}}
	r.learn("shards", place{}, &clusterpb.Route{KeyspaceId: 100, Range: d, LeaderNode: 1, Leads: true, Nodes: []*clusterpb.NodeAddress{{NodeId: 1, Address: "a:1"}}})
	known := r.find("shards", []byte("k"))
	if known.Addr != "a:1" || known.hint() != "100.7" {
		t.Errorf("where it is known: %+v, %s", known, known.hint())
	}
	r.unled(known)
	if p := r.find("shards", []byte("k")); base.RangeID(p.Range.GetRangeId()) != 100 || p.Leader != 0 || p.hint() != "100.0" {
		t.Errorf("where the leader is not: %+v, %s", p, p.hint())
	}
}

// A range that is known to be at nodes which do not serve it, and none of whose answers says more, is asked for elsewhere. Broken, a
// client whose range has gone to other nodes while these are cut off from the cluster asks them for ever.
func TestNodesThatServeNothingAreNotAskedForEver(t *testing.T) {
	notDone := func(context.Context) error {
		return with(codes.Unavailable, "etcdserver: no leader", &clusterpb.Failure{Kind: clusterpb.FailureKind_FAILURE_KIND_NOT_DONE})
	}
	cutOff := []*node{startNode(t, notDone), startNode(t, notDone), startNode(t, notDone)}
	well := startNode(t, fine)
	c := newClient(t, well.addr)
	d := &metapb.RangeDescriptor{RangeId: 4, KeyspaceId: 4, Generation: 7, NextReplicaId: 4}
	told := &clusterpb.Route{KeyspaceId: 4, Range: d}
	for i, n := range cutOff {
		id := uint64(i + 1)
		d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: id, NodeId: id, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
		told.Nodes = append(told.Nodes, &clusterpb.NodeAddress{NodeId: id, Address: n.addr})
	}
	c.routes.learn(c.cfg.Keyspace, place{}, told)
	if rev, err := c.Put(testContext(t), "a", nil); err != nil || rev != 7 {
		t.Errorf("%d, %v", rev, err)
	}
	for i, n := range cutOff {
		if n.asked.Load() == 0 {
			t.Errorf("replica %d was not asked: those that were took turns without it", i+1)
		}
	}
	if p := c.routes.find(c.cfg.Keyspace, []byte("a")); p.Range != nil {
		t.Errorf("the range is still looked for at %v", p.Range)
	}
}
