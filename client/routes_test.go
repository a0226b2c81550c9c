package client

import (
	"testing"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc/desctest"
)

// Who knows a range and not its leader is told who leads, also by the leader itself: that says nothing to those who know all that
// it could say. Broken, a client that forgot a leader goes to it by chance alone, for ever.
func TestHintOfAnUnledRange(t *testing.T) {
	r := newRoutes(10)
	d := desctest.First(100, 100)
	d.Generation = 7
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
