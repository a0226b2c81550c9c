package workloads

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/askpb"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// Workloads that watch: their clients write nothing, and ask the cluster where things are and single nodes whether that is so.

// restful is how many of a watcher's turns in the mean it does nothing in: those who write are to be watched, not held up.
const restful = 4

// known is what a watcher was told last of who is where. Nodes are in the order of their ids.
type known struct {
	nodes  []*metapb.NodeRecord
	ranges []*clusterpb.IndexedRange // that clients can read
}

func (k *known) ended(op *linearizability.Op) {
	if op.Outcome != linearizability.OK {
		return
	}
	switch resp := op.Response.(type) {
	case *clusterpb.ListNodesResponse:
		k.nodes = k.nodes[:0:0]
		for _, n := range resp.Nodes {
			k.nodes = append(k.nodes, n.Record)
		}
		slices.SortFunc(k.nodes, func(a, b *metapb.NodeRecord) int { return cmp.Compare(a.NodeId, b.NodeId) })
	case *clusterpb.ListRangesResponse:
		k.ranges = k.ranges[:0:0]
		for _, r := range resp.Ranges {
			if base.KeyspaceID(r.Descriptor_.GetKeyspaceId()) >= base.KeyspaceDefault {
				k.ranges = append(k.ranges, r)
			}
		}
	}
}

// address is where a node is; empty: it is not known.
func (k *known) address(node uint64) string {
	for _, n := range k.nodes {
		if n.NodeId == node {
			return n.Address
		}
	}
	return ""
}

// ask asks a node for the first key of a range.
func (k *known) ask(r *clusterpb.IndexedRange, node uint64, serializable bool) *askpb.AskRequest {
	d := r.Descriptor_
	key := d.GetStart()
	if len(key) == 0 {
		key = []byte{0} // there is no empty key
	}
	return &askpb.AskRequest{
		Address: k.address(node), NodeId: node, Keyspace: r.Keyspace, KeyspaceId: d.GetKeyspaceId(), Key: key, Serializable: serializable,
		RangeId: d.GetRangeId(), Generation: d.GetGeneration(),
	}
}

// placement is W9: readers that go by what the index says, and by what those whom it names say is better.
type placement struct {
	none
	known
	better map[int]*askpb.AskRequest // by client: whom to ask next, as an answer said
}

func newPlacement(string, int) linearizability.Workload {
	return &placement{better: map[int]*askpb.AskRequest{}}
}

// Next implements linearizability.Workload.
func (w *placement) Next(client int, r *base.Rand) proto.Message {
	next := w.better[client]
	delete(w.better, client)
	switch {
	case next != nil:
		return next
	case r.Int63n(restful) != 0:
		return nil
	case len(w.nodes) == 0 || r.Int63n(20) == 0:
		return &clusterpb.ListNodesRequest{}
	case len(w.ranges) == 0 || r.Int63n(8) == 0:
		return &clusterpb.ListRangesRequest{}
	}
	at := w.ranges[r.Int63n(int64(len(w.ranges)))]
	replicas := at.Descriptor_.GetReplicas()
	ask := w.ask(at, replicas[r.Int63n(int64(len(replicas)))].NodeId, r.Int63n(3) == 0)
	if ask.Address == "" {
		return &clusterpb.ListNodesRequest{}
	}
	return ask
}

// Ended implements linearizability.Workload.
func (w *placement) Ended(op *linearizability.Op) {
	w.ended(op)
	resp, ok := op.Response.(*askpb.AskResponse)
	if !ok || resp.Route.GetRange() == nil || resp.Route.LeaderNode == 0 || resp.Route.LeaderNode == resp.NodeId {
		return
	}
	next := proto.CloneOf(op.Request.(*askpb.AskRequest))
	next.NodeId, next.Address = resp.Route.LeaderNode, w.address(resp.Route.LeaderNode)
	for _, n := range resp.Route.Nodes {
		if n.NodeId == next.NodeId {
			next.Address = n.Address
		}
	}
	next.RangeId, next.Generation = resp.Route.Range.GetRangeId(), resp.Route.Range.GetGeneration()
	if next.Address != "" {
		w.better[op.Client] = next
	}
}

// Final implements linearizability.Workload: the index, and all whom it named last, for a read that must be fresh.
func (w *placement) Final() []proto.Message {
	out := []proto.Message{&clusterpb.ListRangesRequest{}}
	for _, r := range w.ranges {
		for _, replica := range r.Descriptor_.GetReplicas() {
			if ask := w.ask(r, replica.NodeId, false); ask.Address != "" {
				out = append(out, ask)
			}
		}
	}
	return out
}

// Checkers implements linearizability.Workload.
func (w *placement) Checkers() []linearizability.Checker {
	return []linearizability.Checker{checkers.Placement()}
}

// liveness is W10: who looks at the nodes' records, and asks the nodes themselves, those above all that are not well.
type liveness struct {
	none
	known
}

func newLiveness(string, int) linearizability.Workload { return &liveness{} }

// Next implements linearizability.Workload.
func (w *liveness) Next(_ int, r *base.Rand) proto.Message {
	switch {
	case r.Int63n(restful) != 0:
		return nil
	case len(w.nodes) == 0 || r.Int63n(3) == 0:
		return &clusterpb.ListNodesRequest{}
	}
	of := w.nodes
	if r.Int63n(2) == 0 {
		if bad := slices.DeleteFunc(slices.Clone(of), wellNode); len(bad) > 0 {
			of = bad
		}
	}
	n := of[r.Int63n(int64(len(of)))]
	return &askpb.AskRequest{
		Address: n.Address, NodeId: n.NodeId, Keyspace: base.KeyspaceDefault.String(), KeyspaceId: uint64(base.KeyspaceDefault),
		Key: []byte{0}, Serializable: r.Int63n(2) == 0,
	}
}

func wellNode(n *metapb.NodeRecord) bool { return n.State == metapb.NodeState_NODE_STATE_ACTIVE }

// Ended implements linearizability.Workload.
func (w *liveness) Ended(op *linearizability.Op) { w.ended(op) }

// Final implements linearizability.Workload.
func (w *liveness) Final() []proto.Message {
	return []proto.Message{&clusterpb.ListNodesRequest{}}
}

// Checkers implements linearizability.Workload.
func (w *liveness) Checkers() []linearizability.Checker {
	return []linearizability.Checker{checkers.Members()}
}
