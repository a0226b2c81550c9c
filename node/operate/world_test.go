package operate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/join"
)

// world is a cluster as far as operators see one: its keyspaces sys, root and meta as maps, and nodes that answer or do not.
type world struct {
	mu       sync.Mutex
	now      int64 // Unix micros
	revision int64
	kvs      map[base.KeyspaceID]map[string]*mvccpb.KeyValue
	ranges   map[base.RangeID]*metapb.RangeDescriptor
	leader   map[base.RangeID]uint64
	down     map[uint64]bool
	size     map[base.RangeID]uint64
	watchers []*Manager
	writes   func() // called before each write of sys; nil: nothing
	reads    func() // called before each read; nil: nothing
	vague    int    // so many writes happen, and say that they may not have
}

func newWorld(t *testing.T, nodes int, ranges ...string) *world {
	w := &world{now: 1_000_000_000, kvs: map[base.KeyspaceID]map[string]*mvccpb.KeyValue{}, ranges: map[base.RangeID]*metapb.RangeDescriptor{},
		leader: map[base.RangeID]uint64{}, down: map[uint64]bool{}}
	for ks := base.KeyspaceRoot; ks <= base.KeyspaceSys; ks++ {
		w.kvs[ks] = map[string]*mvccpb.KeyValue{}
	}
	start, _ := join.RecordSpan()
	for n := range uint64(nodes) {
		w.store(base.KeyspaceSys, string(start)+"\x00\x00\x00\x00\x00\x00\x00"+string(rune(n+1)), &metapb.NodeRecord{NodeId: n + 1, State: metapb.NodeState_NODE_STATE_ACTIVE,
			Generation: 1, Epoch: 1, Locality: []*metapb.LocalityTier{{Key: "zone", Value: fmt.Sprintf("z%d", n%3+1)}}})
	}
	for _, text := range ranges {
		w.put(t, text)
	}
	return w
}

// put sets what a range is, and lists it where it belongs. Its first replica's node leads it.
func (w *world) put(t *testing.T, text string) {
	d, err := desctest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := desc.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ranges[base.RangeID(d.RangeId)], w.leader[base.RangeID(d.RangeId)] = d, d.Replicas[0].NodeId
	if index, ok := route.IndexKeyspace(base.KeyspaceID(d.KeyspaceId)); ok {
		k := string(route.DescriptorKey(d))
		w.revision++
		w.kvs[index][k] = &mvccpb.KeyValue{Key: []byte(k), Value: raw, ModRevision: w.revision}
	}
}

func (w *world) store(ks base.KeyspaceID, key string, m proto.Message) {
	raw, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	w.revision++
	w.kvs[ks][key] = &mvccpb.KeyValue{Key: []byte(key), Value: raw, ModRevision: w.revision}
}

func (w *world) Range(_ context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	if w.reads != nil {
		w.reads()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	resp := &pb.RangeResponse{}
	for k, kv := range w.kvs[ks] {
		all := string(req.RangeEnd) == "\x00"
		if k == string(req.Key) || len(req.RangeEnd) > 0 && k >= string(req.Key) && (all || k < string(req.RangeEnd)) {
			resp.Kvs = append(resp.Kvs, kv)
		}
	}
	slices.SortFunc(resp.Kvs, func(a, b *mvccpb.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return resp, nil
}

func (w *world) Propose(_ context.Context, ks base.KeyspaceID, _ []byte, cmd *kvpb.Command) (proto.Message, error) {
	if w.writes != nil {
		w.writes()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	txn := &pb.TxnRequest{}
	if err := proto.Unmarshal(cmd.GetTxn(), txn); err != nil {
		return nil, err
	}
	for _, c := range txn.Compare {
		if w.kvs[ks][string(c.Key)].GetModRevision() != c.GetModRevision() {
			return &pb.TxnResponse{}, nil
		}
	}
	w.revision++
	for _, op := range txn.Success {
		if put := op.GetRequestPut(); put != nil {
			w.kvs[ks][string(put.Key)] = &mvccpb.KeyValue{Key: put.Key, Value: put.Value, ModRevision: w.revision}
		} else {
			delete(w.kvs[ks], string(op.GetRequestDeleteRange().Key))
		}
	}
	for _, m := range w.watchers {
		m.Applied()
	}
	if w.vague > 0 {
		w.vague--
		return nil, &base.Ambiguous{Cause: errors.New("the answer was lost")}
	}
	return &pb.TxnResponse{Succeeded: true}, nil
}

func (w *world) Descriptor(_ context.Context, ks base.KeyspaceID, key []byte) (*metapb.RangeDescriptor, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.ranges {
		if desc.Contains(d, ks, key) {
			return d, nil
		}
	}
	return nil, &route.NoRange{}
}

// report is what a node says of the ranges of an index that it leads, one on each page.
func (w *world) report(_ context.Context, node base.NodeID, req *rangepb.ReportRequest) (*rangepb.Report, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down[uint64(node)] {
		return nil, errors.New("it is down")
	}
	out := &rangepb.Report{Version: req.After + 1}
	for _, id := range slices.Sorted(maps.Keys(w.ranges)) {
		index, ok := route.IndexKeyspace(base.KeyspaceID(w.ranges[id].KeyspaceId))
		if !ok {
			index = base.KeyspaceRoot
		}
		if w.leader[id] != uint64(node) || uint64(index) != req.KeyspaceId || uint64(id) <= req.After {
			continue
		}
		if len(out.Ranges) == 1 {
			out.More = true
			break
		}
		out.Version = uint64(id)
		out.Ranges = append(out.Ranges, &rangepb.RangeReport{Descriptor_: &metapb.RangeDescriptor{RangeId: uint64(id)}, Bytes: w.size[id]})
	}
	return out, nil
}

// status is what all nodes say.
func (w *world) status(context.Context) *clusterpb.StatusResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &clusterpb.StatusResponse{}
	for n := uint64(1); n < 10; n++ {
		out.Nodes = append(out.Nodes, &clusterpb.NodeEntry{Node: &metapb.NodeRecord{NodeId: n}, Reachable: !w.down[n], Error: "it is down"})
	}
	for id, d := range w.ranges {
		e := &clusterpb.RangeEntry{Descriptor_: d, LeaderNode: w.leader[id]}
		for _, r := range d.Replicas {
			e.Replicas = append(e.Replicas, &clusterpb.ReplicaEntry{Node: r.NodeId, Replica: r.ReplicaId, Match: 10, Applied: 10, Reachable: !w.down[r.NodeId]})
		}
		out.Ranges = append(out.Ranges, e)
	}
	return out
}

func (w *world) nodeStatus(_ context.Context, node base.NodeID, ranges bool) (*clusterpb.NodeStatusResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down[uint64(node)] {
		return nil, errors.New("it is down")
	}
	out := &clusterpb.NodeStatusResponse{Store: &clusterpb.StoreMetrics{}}
	for id, n := range w.leader {
		if n != uint64(node) {
			continue
		}
		if out.Store.Leaders++; ranges {
			out.Replicas = append(out.Replicas, &clusterpb.ReplicaStatus{Descriptor_: w.ranges[id], Leader: true})
		}
	}
	return out, nil
}

// manager is one node's; it carries operations on once it is started, as long as it leads.
func (w *world) manager(t *testing.T, leads bool) *Manager {
	m, err := New(Config{
		Cluster: w, Leads: func() bool { return leads }, Holds: func() bool { return true }, NodeStatus: w.nodeStatus,
		Explain: func(context.Context, *metapb.RangeDescriptor) (*metapb.Explanation, base.NodeID, error) {
			return &metapb.Explanation{Reason: "n4 is full"}, 2, nil
		},
		Report: w.report,
		Keyspaces: func(context.Context) ([]*metapb.KeyspaceRecord, error) {
			return []*metapb.KeyspaceRecord{{KeyspaceId: 100, Name: "shards"}}, nil
		},
		UnixMicros: func() int64 {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.now
		},
		Now: func() base.Instant {
			w.mu.Lock()
			defer w.mu.Unlock()
			return base.Instant(w.now * 1000)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.watchers = append(w.watchers, m)
	w.mu.Unlock()
	return m
}

// later lets time pass.
func (w *world) later(d time.Duration) {
	w.mu.Lock()
	w.now += d.Microseconds()
	w.mu.Unlock()
}

func (w *world) node(t *testing.T, m *Manager, id uint64) *metapb.NodeRecord {
	t.Helper()
	r, err := m.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rec, err := r.node(id)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

var three = []string{
	"r1 ks1 [-∞, +∞) gen 5: 1@n1 2@n2 3@n3 next 4", "r2 ks2 [-∞, +∞) gen 5: 1@n1 2@n2 3@n3 next 4", "r3 ks3 [-∞, +∞) gen 5: 1@n2 2@n1 3@n3 next 4",
	"r100 ks100 [-∞, m) gen 5: 1@n3 2@n1 3@n2 next 4", "r101 ks100 [m, +∞) gen 5: 1@n1 2@n2 4@n4 next 5",
}
