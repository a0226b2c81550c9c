package main

import (
	"context"
	"strings"
	"testing"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
)

// nodesNode answers ListNodes.
type nodesNode struct {
	clusterpb.UnimplementedClusterServer
	resp *clusterpb.ListNodesResponse
}

func (f *nodesNode) ListNodes(context.Context, *clusterpb.ListNodesRequest) (*clusterpb.ListNodesResponse, error) {
	return f.resp, nil
}

func TestNodeLs(t *testing.T) {
	f := &nodesNode{resp: &clusterpb.ListNodesResponse{ToldBy: 1, Nodes: []*clusterpb.NodeInfo{
		{
			Record: &metapb.NodeRecord{NodeId: 1, Address: "10.0.0.1:7400", Version: "0.1.0", State: metapb.NodeState_NODE_STATE_ACTIVE, Generation: 4,
				Locality: []*metapb.LocalityTier{{Key: "zone", Value: "a"}}, Attributes: []string{"ssd"}, Cpus: 8, Draining: true, Cordoned: true},
			Health: &metapb.NodeHealth{NodeId: 1, HeardMicros: 412_000, Reporters: []uint64{2, 3}, Supporters: []uint64{2},
				Why: "1 of 2 nodes that share ranges with it support it, not n3; its heartbeats come", Slow: "its disk takes 210ms to sync",
				Load: &metapb.NodeLoad{Replicas: 12, Leaders: 4, DiskUsed: 30 << 30, DiskBytes: 120 << 30, SyncMicros: 210_000}},
		},
		{
			Record: &metapb.NodeRecord{NodeId: 2, Address: "10.0.0.2:7400", Version: "0.1.0", State: metapb.NodeState_NODE_STATE_FAILED, Epoch: 1},
			Health: &metapb.NodeHealth{NodeId: 2, HeardMicros: -1, SuspectedMicros: 0, Why: "it was suspect for 5m0s"},
		},
		{Record: &metapb.NodeRecord{NodeId: 3, Address: "10.0.0.3:7400", State: metapb.NodeState_NODE_STATE_LEFT, Reason: "it was decommissioned"}},
	}}}
	address := serve(t, f)
	for _, c := range []struct{ args, file string }{{"node ls", "nodes.txt"}, {"node ls -o json", "nodes.json"}} {
		out, errs, code := cairn(t, nil, append(strings.Fields(c.args), "--host", address)...)
		if code != exitOK || errs != "" {
			t.Fatalf("%s: exit %d, %q", c.args, code, errs)
		}
		golden(t, c.file, out)
	}
	f.resp = &clusterpb.ListNodesResponse{}
	out, errs, code := cairn(t, nil, "node", "ls", "-o", "json", "--host", address)
	if code != exitOK || out != "{\n  \"nodes\": [],\n  \"told_by\": 0,\n  \"remembered\": false\n}\n" || !strings.Contains(errs, "who is well is not known") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

// TestNodeMatrix: it is the matrix of support.
func TestNodeMatrix(t *testing.T) {
	address := serveFake(t, &fakeNode{status: sampleStatus()}, nil)
	out, errs, code := cairn(t, nil, "node", "matrix", "--host", address)
	if code != exitOK || errs != "" {
		t.Fatalf("exit %d, %q", code, errs)
	}
	golden(t, "support.txt", out)
}
