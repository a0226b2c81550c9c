package workloads

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/askpb"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// scene is a cluster whose nodes are given up and let in again, and whose ranges move, while watchers look on. It does everything
// at once and right.
type scene struct {
	nodes  []*metapb.NodeRecord
	starts []uint64 // of each node's process
	ranges []*clusterpb.IndexedRange
}

func newScene() *scene {
	s := &scene{}
	for i := range uint64(5) {
		s.nodes = append(s.nodes, &metapb.NodeRecord{NodeId: i + 1, Address: fmt.Sprint("a", i+1), Incarnation: 1, Generation: 1, State: metapb.NodeState_NODE_STATE_ACTIVE})
		s.starts = append(s.starts, 1)
	}
	for i, start := range []string{"", "g", "p"} {
		d := &metapb.RangeDescriptor{RangeId: uint64(10 + i), KeyspaceId: 100, Generation: 1, Start: []byte(start), End: []byte([]string{"g", "p", ""}[i]), NextReplicaId: 4}
		for n := range uint64(3) {
			d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: n + 1, NodeId: n + 1, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
		}
		s.ranges = append(s.ranges, &clusterpb.IndexedRange{Keyspace: "k", Descriptor_: d})
	}
	return s
}

// happen lets something become of a node and of a range. What was handed out stays as it was.
func (s *scene) happen(r *base.Rand) {
	i := int(r.Int63n(int64(len(s.nodes))))
	n := proto.CloneOf(s.nodes[i])
	n.Generation++
	if n.State == metapb.NodeState_NODE_STATE_ACTIVE {
		n.State, n.Epoch = metapb.NodeState_NODE_STATE_FAILED, n.Epoch+1
		s.starts[i]++
	} else {
		n.State, n.Incarnation = metapb.NodeState_NODE_STATE_ACTIVE, s.starts[i]
	}
	s.nodes[i] = n
	j := int(r.Int63n(int64(len(s.ranges))))
	d := proto.CloneOf(s.ranges[j].Descriptor_)
	d.Replicas = append(d.Replicas[1:], &metapb.Replica{ReplicaId: d.NextReplicaId, NodeId: 1 + uint64(r.Int63n(5)), Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	d.NextReplicaId, d.Generation = d.NextReplicaId+1, d.Generation+1
	s.ranges[j] = &clusterpb.IndexedRange{Keyspace: "k", Descriptor_: d}
}

func (s *scene) do(req proto.Message) proto.Message {
	switch req.(type) {
	case *clusterpb.ListNodesRequest:
		resp := &clusterpb.ListNodesResponse{}
		for _, n := range s.nodes {
			resp.Nodes = append(resp.Nodes, &clusterpb.NodeInfo{Record: n})
		}
		return resp
	case *clusterpb.ListRangesRequest:
		return &clusterpb.ListRangesResponse{Ranges: slices.Clone(s.ranges)}
	}
	ask := req.(*askpb.AskRequest)
	i := slices.IndexFunc(s.nodes, func(n *metapb.NodeRecord) bool { return n.Address == ask.Address })
	resp := &askpb.AskResponse{NodeId: s.nodes[i].NodeId, Incarnation: s.starts[i], Fenced: s.nodes[i].State != metapb.NodeState_NODE_STATE_ACTIVE}
	resp.Served = !resp.Fenced
	for _, r := range s.ranges {
		if d := r.Descriptor_; d.KeyspaceId == ask.KeyspaceId && string(d.Start) <= string(ask.Key) && (len(d.End) == 0 || string(ask.Key) < string(d.End)) {
			leader := d.Replicas[0].NodeId
			resp.Route = &clusterpb.Route{KeyspaceId: 100, Range: d, LeaderNode: leader, Leads: leader == resp.NodeId}
		}
	}
	return resp
}

// look plays a watcher's clients against a scene; their requests overlap.
func look(w linearizability.Workload, seed uint64) *linearizability.History {
	h, r, s := &linearizability.History{}, base.NewRand(seed), newScene()
	open := make([]*linearizability.Op, 4)
	done := make([]proto.Message, 4)
	for range 4000 {
		c := int(r.Int63n(4))
		switch op := open[c]; {
		case r.Int63n(30) == 0:
			s.happen(r)
		case op == nil:
			if req := w.Next(c, r); req != nil {
				open[c] = h.Invoke(c, 3, req)
			}
		case done[c] == nil:
			done[c] = s.do(op.Request)
		default:
			h.Return(op, linearizability.OK, done[c], "")
			w.Ended(op)
			open[c], done[c] = nil, nil
		}
	}
	for i, n := range s.nodes { // all are well in the end
		s.nodes[i] = proto.CloneOf(n)
		s.nodes[i].State, s.nodes[i].Generation, s.nodes[i].Incarnation = metapb.NodeState_NODE_STATE_ACTIVE, n.Generation+1, s.starts[i]
	}
	last := h.Invoke(4, 3, &clusterpb.ListRangesRequest{}) // what Final goes by is what was told last
	h.Return(last, linearizability.OK, s.do(last.Request), "")
	w.Ended(last)
	for _, req := range w.Final() {
		op := h.Invoke(4, 3, req)
		op.Final = true
		h.Return(op, linearizability.OK, s.do(req), "")
	}
	return h
}

// Each watcher sees nodes and ranges change and asks those who are not well, and nobody complains of what is right.
func TestWatchersOfRightHistories(t *testing.T) {
	for _, k := range Kinds() {
		if !k.Watches {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			for seed := range uint64(20) {
				w := k.New("p/", 0)
				h := look(w, seed)
				for _, v := range complaints(w, h) {
					t.Fatalf("seed %d: %s: %s", seed, v.Checker, v.What)
				}
				kinds := map[string]int{}
				for _, op := range h.Ops {
					kinds[fmt.Sprintf("%T", op.Request)]++
					if resp, ok := op.Response.(*askpb.AskResponse); ok {
						kinds[fmt.Sprint("fenced ", resp.Fenced)]++
					}
				}
				if kinds["fenced true"] == 0 || kinds["fenced false"] < 20 || kinds["*clusterpb.ListNodesRequest"] < 5 {
					t.Fatalf("seed %d: %v", seed, kinds)
				}
			}
		})
	}
}

// One wrong answer is found: each way of it, in whichever place.
func TestWatchersOfWrongHistories(t *testing.T) {
	ways := map[string]func(op *linearizability.Op) bool{
		"placement: another node has the replica": func(op *linearizability.Op) bool {
			resp, ok := op.Response.(*clusterpb.ListRangesResponse)
			if ok {
				d := proto.CloneOf(resp.Ranges[0].Descriptor_)
				d.Replicas[0].NodeId += 5
				resp.Ranges[0] = &clusterpb.IndexedRange{Keyspace: "k", Descriptor_: d}
			}
			return ok
		},
		"placement: the node speaks of another range": func(op *linearizability.Op) bool {
			resp, ok := op.Response.(*askpb.AskResponse)
			if ok = ok && resp.Route != nil; ok {
				resp.Route = proto.CloneOf(resp.Route)
				resp.Route.Range.Start = []byte("zz")
			}
			return ok
		},
		"liveness: the epoch is of another time": func(op *linearizability.Op) bool {
			resp, ok := op.Response.(*clusterpb.ListNodesResponse)
			if ok {
				n := proto.CloneOf(resp.Nodes[0].Record)
				n.Epoch++
				resp.Nodes[0] = &clusterpb.NodeInfo{Record: n}
			}
			return ok
		},
		"liveness: a process serves that is not known": func(op *linearizability.Op) bool {
			resp, ok := op.Response.(*askpb.AskResponse)
			if ok {
				resp.Served, resp.Fenced, resp.Incarnation = true, false, resp.Incarnation+1000
			}
			return ok
		},
	}
	for name, spoil := range ways {
		t.Run(name, func(t *testing.T) {
			kind, _ := Named(name[:slices.Index([]byte(name), ':')])
			for seed := range uint64(20) {
				w := kind.New("p/", 0)
				h, r := look(w, seed), base.NewRand(seed)
				for !spoil(h.Ops[r.Int63n(int64(len(h.Ops)/2))]) {
				}
				if len(complaints(w, h)) == 0 {
					t.Errorf("seed %d: nobody complains", seed)
				}
			}
		})
	}
}
