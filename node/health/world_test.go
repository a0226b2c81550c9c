package health

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/node/dispatch"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a real store and dispatcher that hold `sys` alone, and the monitors of a few nodes that reach it. The monitors' clock is set
// by the test, and they are turned by hand.
type world struct {
	t    testing.TB
	disp *dispatch.Dispatcher
	term uint64 // that the node which leads `sys` leads it in; 0: it does not

	mu       sync.Mutex
	now      base.Instant
	between  func() // called once, before the next proposal
	ambig    bool   // the next proposal is carried out, and nobody says so
	monitors map[uint64]*Monitor
	epochs   map[uint64]uint64
	learned  map[uint64]*metapb.NodeRecord // of each node, about itself
	silent   map[uint64]bool
	seq      uint64
}

type nowhere struct{}

func (nowhere) Send(base.NodeID, transport.Class, []byte) error { return transport.ErrUnreachable }
func (nowhere) OpenBulk(context.Context, base.NodeID) (transport.BulkStream, error) {
	return nil, transport.ErrUnreachable
}
func (nowhere) Peers() []transport.PeerStatus { return nil }
func (nowhere) Close()                        {}

func newWorld(t testing.TB, nodes uint64) *world {
	w := &world{
		t: t, term: 1, now: base.Instant(time.Hour), monitors: map[uint64]*Monitor{}, epochs: map[uint64]uint64{},
		learned: map[uint64]*metapb.NodeRecord{}, silent: map[uint64]bool{},
	}
	eng := engine.NewMem()
	must(t, store.Bootstrap(eng, &metapb.StoreIdentity{ClusterId: 7, NodeId: 1, StoreUuid: make([]byte, 16), Format: store.FormatVersion}, &metapb.NodeRecord{NodeId: 1}))
	ready := make(chan struct{})
	s, err := store.New(store.Config{Engine: eng, Node: 1, Incarnation: 1, OnFatal: func(err error) { t.Error(err) },
		OnChange: func(c raftgroup.StateChange) { <-ready; w.disp.Changed(c) }})
	must(t, err)
	w.disp = dispatch.New(dispatch.Config{Node: 1, Store: s, Transport: nowhere{},
		Heartbeat: func(h *metapb.Heartbeat) (*metapb.HeartbeatAnswer, error) { return w.monitors[1].Heartbeat(h) }})
	close(ready)
	must(t, s.Start(nil))
	w.disp.Learn(store.FirstDescriptors(1)...)
	for id := uint64(1); id <= nodes; id++ {
		w.put(nodeKey(id), &metapb.NodeRecord{NodeId: id, State: metapb.NodeState_NODE_STATE_ACTIVE, Generation: 1, Incarnation: 1})
		w.monitors[id] = w.monitor(id, s)
	}
	t.Cleanup(func() {
		for _, m := range w.monitors {
			m.Stop()
		}
		w.disp.Stop()
		s.Stop()
	})
	return w
}

func (w *world) monitor(id uint64, s *store.Store) *Monitor {
	m, err := New(Config{
		Node: base.NodeID(id), Incarnation: 1, Cluster: cluster{w},
		Leads: func() (uint64, bool) {
			st, ok := s.State(base.RangeSys)
			return w.term, id == 1 && w.term > 0 && ok && st.Role == raftgroup.Leader
		},
		Heard: func() []*metapb.HeardOf { return w.heard(id) },
		Load:  func(late time.Duration) *metapb.NodeLoad { return &metapb.NodeLoad{LateMicros: late.Microseconds()} },
		Epoch: func() uint64 { return w.epochs[id] },
		Learn: func(r *metapb.NodeRecord) { w.learned[id] = r },
		Now: func() base.Instant {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.now
		},
		UnixMicros: func() int64 { return 1_000_000 },
	})
	must(w.t, err)
	return m
}

// heard is what a node says of all others: they share ranges, and who is silent is not supported.
func (w *world) heard(id uint64) (out []*metapb.HeardOf) {
	for other := range w.monitors {
		if other != id {
			out = append(out, &metapb.HeardOf{NodeId: other, Supports: !w.silent[other]})
		}
	}
	return out
}

// cluster is the dispatcher, with the faults of the world.
type cluster struct{ w *world }

func (c cluster) Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	return c.w.disp.Range(ctx, ks, req)
}

func (c cluster) Heartbeat(ctx context.Context, h *metapb.Heartbeat) (*metapb.HeartbeatAnswer, base.NodeID, error) {
	return c.w.disp.Heartbeat(ctx, h)
}

func (c cluster) Propose(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error) {
	c.w.mu.Lock()
	between, ambig := c.w.between, c.w.ambig
	c.w.between, c.w.ambig = nil, false
	c.w.mu.Unlock()
	if between != nil {
		between()
	}
	m, err := c.w.disp.Propose(ctx, ks, key, cmd)
	if ambig && err == nil {
		return nil, &base.Ambiguous{Cause: context.DeadlineExceeded}
	}
	return m, err
}

func nodeKey(id uint64) []byte {
	start, _ := join.RecordSpan()
	return binary.BigEndian.AppendUint64(start, id)
}

func (w *world) put(key []byte, m proto.Message) {
	w.t.Helper()
	value, err := proto.Marshal(m)
	must(w.t, err)
	raw, err := proto.Marshal(&pb.PutRequest{Key: key, Value: value})
	must(w.t, err)
	_, err = w.disp.Propose(w.t.Context(), base.KeyspaceSys, key, &kvpb.Command{Body: &kvpb.Command_Put{Put: raw}})
	must(w.t, err)
	if m := w.monitors[1]; m != nil {
		m.Changed()
	}
}

func (w *world) record(id uint64) *metapb.NodeRecord {
	w.t.Helper()
	nodes, err := join.ReadNodes(w.t.Context(), w.disp)
	must(w.t, err)
	for _, r := range nodes {
		if r.NodeId == id {
			return r
		}
	}
	w.t.Fatalf("there is no record of n%d", id)
	return nil
}

// pass lets time go by: a heartbeat of everybody who is not silent each second, and a look at the table after it. What is to be
// written is written before it goes on.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for end := w.now.Add(d); w.now < end; {
		w.mu.Lock()
		w.now = w.now.Add(time.Second)
		w.mu.Unlock()
		w.seq++
		for id, m := range w.monitors {
			if !w.silent[id] {
				must(w.t, m.tell(w.seq, m.cfg.Load(0)))
			}
		}
		_, err := w.monitors[1].step()
		must(w.t, err)
		w.monitors[1].wg.Wait()
	}
}
