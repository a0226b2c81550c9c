package client

import (
	"testing"

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
