package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/lessor"
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

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	must(t, err)
	return raw
}

// world is a few dispatchers with stores, and a network that calls. Node 1 holds the first ranges alone; the others hold
// nothing and know only the root range.
type world struct {
	t     testing.TB
	nodes map[base.NodeID]*Dispatcher

	lessors map[base.NodeID]*lessor.Lessor

	mu    sync.Mutex
	sent  []*rangepb.Request                                 // that left, in order
	lose  func(to base.NodeID, f *rangepb.ControlFrame) bool // frames that are lost without a word
	fails map[base.NodeID]bool                               // nodes that nothing can be sent to
	lost  chan base.NodeID                                   // told of each frame that is lost
}

func newWorld(t testing.TB, nodes base.NodeID) *world {
	w := &world{t: t, nodes: map[base.NodeID]*Dispatcher{}, lessors: map[base.NodeID]*lessor.Lessor{}, fails: map[base.NodeID]bool{}, lost: make(chan base.NodeID, 100)}
	root := store.FirstDescriptors(1)[0]
	for id := base.NodeID(1); id <= nodes; id++ {
		eng := engine.NewMem()
		if id == 1 {
			must(t, store.Bootstrap(eng, &metapb.StoreIdentity{ClusterId: 7, NodeId: 1, StoreUuid: make([]byte, 16), Format: store.FormatVersion}, &metapb.NodeRecord{NodeId: 1}))
		}
		var d *Dispatcher
		var leases *lessor.Lessor
		ready := make(chan struct{})
		s, err := store.New(store.Config{
			Engine: eng, Node: id, Incarnation: 1, OnFatal: func(err error) { t.Error(err) },
			OnChange:  func(c raftgroup.StateChange) { <-ready; d.Changed(c); leases.Changed(c) },
			OnApplied: func(r base.RangeID) { <-ready; leases.Applied(r) },
			OnLeases:  func(r base.RangeID, c []apply.LeaseChange, moved bool) { <-ready; leases.Leases(r, c, moved) },
		})
		must(t, err)
		d = New(Config{Node: id, Store: s, Transport: wire{w, id}, Leases: lateLeases{&leases},
			Root: func(context.Context) (*metapb.RangeDescriptor, error) { return root, nil }})
		leases = lessor.New(lessor.Config{Store: s, Dispatch: d})
		leases.Start()
		close(ready)
		w.nodes[id], w.lessors[id] = d, leases
		must(t, s.Start(silent{wire{w, id}}))
		t.Cleanup(func() { d.Stop(); leases.Stop(); s.Stop() })
	}
	d := w.nodes[1]
	d.Learn(store.FirstDescriptors(1)...)
	for _, desc := range store.FirstDescriptors(1) {
		index, ok := route.IndexKeyspace(base.KeyspaceID(desc.KeyspaceId))
		if !ok {
			continue
		}
		key := route.DescriptorKey(desc)
		_, err := d.Propose(w.ctx(), index, key, &kvpb.Command{Body: &kvpb.Command_PublishDescriptor{
			PublishDescriptor: &kvpb.PublishDescriptor{Key: key, Descriptor_: desc}}})
		must(t, err)
	}
	return w
}

// lateLeases is a lessor that is made after its dispatcher.
type lateLeases struct{ l **lessor.Lessor }

func (x lateLeases) Answer(ctx context.Context, id base.RangeID, q *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error) {
	return (*x.l).AnswerWithin(ctx, id, q)
}

// ctx bounds what a test waits for.
func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	w.t.Cleanup(cancel)
	return ctx
}

// requests counts those of a kind that left.
func (w *world) requests(kind rangepb.RequestKind) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, q := range w.sent {
		if q.Kind == kind {
			n++
		}
	}
	return n
}

// loseFrames says which frames are lost from now on.
func (w *world) loseFrames(lose func(base.NodeID, *rangepb.ControlFrame) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = lose
}

type wire struct {
	w    *world
	from base.NodeID
}

func (x wire) Send(to base.NodeID, _ transport.Class, frame []byte) error {
	f := &rangepb.ControlFrame{}
	if err := proto.Unmarshal(frame, f); err != nil {
		return err
	}
	x.w.mu.Lock()
	peer := x.w.nodes[to]
	if peer == nil || x.w.fails[to] {
		x.w.mu.Unlock()
		return fmt.Errorf("%s: %w", to, transport.ErrUnreachable)
	}
	x.w.sent = append(x.w.sent, f.GetRequests().GetRequests()...)
	lost := x.w.lose != nil && x.w.lose(to, f)
	x.w.mu.Unlock()
	if lost {
		x.w.lost <- to
		return nil
	}
	return peer.HandleControl(x.from, frame)
}

func (x wire) OpenBulk(context.Context, base.NodeID) (transport.BulkStream, error) {
	return nil, errors.New("no snapshots here")
}
func (x wire) Peers() []transport.PeerStatus { return nil }
func (x wire) Close()                        {}

// silent carries nothing of what the replicas of a range say to each other: each of them is alone.
type silent struct{ wire }

func (silent) Send(base.NodeID, transport.Class, []byte) error { return nil }

func putCommand(t testing.TB, key, value string) *kvpb.Command {
	return &kvpb.Command{Body: &kvpb.Command_Put{Put: encode(t, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})}}
}

func get(t testing.TB, w *world, d *Dispatcher, key string) string {
	t.Helper()
	resp, err := d.Range(w.ctx(), base.KeyspaceDefault, &pb.RangeRequest{Key: []byte(key)})
	must(t, err)
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}
