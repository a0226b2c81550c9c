package jepsen

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// fakeNode is a node of a test: a map, and a mood that says how it answers.
type fakeNode struct {
	etcdserverpb.UnimplementedKVServer
	address string
	server  *grpc.Server
	data    *fakeData
	mood    atomic.Int32
	asked   atomic.Int64
}

const (
	moodWell    = iota
	moodNoWrite // refuses: there is no leader
	moodMute    // does what it is asked, and never answers
)

// fakeData is what the nodes of one test share.
type fakeData struct {
	mu       sync.Mutex
	revision int64
	keys     map[string]*mvccpb.KeyValue
}

func newFakes(t *testing.T, n int) []*fakeNode {
	t.Helper()
	data := &fakeData{revision: 1, keys: make(map[string]*mvccpb.KeyValue)}
	var out []*fakeNode
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f := &fakeNode{address: l.Addr().String(), server: grpc.NewServer(), data: data}
		etcdserverpb.RegisterKVServer(f.server, f)
		go func() { _ = f.server.Serve(l) }() // it ends with the server
		t.Cleanup(f.server.Stop)
		out = append(out, f)
	}
	return out
}

func endpointsOf(fakes []*fakeNode) func() []string {
	return func() (out []string) {
		for _, f := range fakes {
			out = append(out, f.address)
		}
		return out
	}
}

func (f *fakeNode) Put(ctx context.Context, r *etcdserverpb.PutRequest) (*etcdserverpb.PutResponse, error) {
	f.asked.Add(1)
	if f.mood.Load() == moodNoWrite {
		return nil, rpctypes.ErrGRPCNoLeader
	}
	f.data.mu.Lock()
	f.data.revision++
	rev := f.data.revision
	f.data.keys[string(r.Key)] = &mvccpb.KeyValue{Key: r.Key, Value: r.Value, ModRevision: rev, CreateRevision: rev, Version: 1}
	f.data.mu.Unlock()
	if f.mood.Load() == moodMute {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &etcdserverpb.PutResponse{Header: &etcdserverpb.ResponseHeader{Revision: rev}}, nil
}

// Range answers in pages, as etcd does; revisions of the past are not kept.
func (f *fakeNode) Range(_ context.Context, r *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	f.asked.Add(1)
	f.data.mu.Lock()
	defer f.data.mu.Unlock()
	out := &etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{Revision: f.data.revision}}
	for key := range sortedKeys(f.data.keys) {
		switch {
		case key != string(r.Key) && (key < string(r.Key) || key >= string(r.RangeEnd)):
		case r.Limit > 0 && int64(len(out.Kvs)) == r.Limit:
			out.More = true
			return out, nil
		default:
			out.Kvs = append(out.Kvs, f.data.keys[key])
		}
	}
	return out, nil
}

// counting is a workload of puts: of each it is told once how it ended.
type counting struct {
	next, ended int
	clients     map[int]int
	outcomes    Counts
}

func (c *counting) Setup() []proto.Message {
	return []proto.Message{&etcdserverpb.PutRequest{Key: []byte("s000/counting/0"), Value: []byte("0")}}
}

func (c *counting) Next(client int, _ *base.Rand) proto.Message {
	c.next++
	c.clients[client]++
	return &etcdserverpb.PutRequest{Key: fmt.Appendf(nil, "s000/counting/%d", c.next%7), Value: fmt.Append(nil, c.next)}
}

func (c *counting) Ended(op *linearizability.Op) {
	c.ended++
	c.outcomes.count(op.Outcome)
}

func (c *counting) Final() []proto.Message {
	return []proto.Message{&etcdserverpb.RangeRequest{Key: []byte("s000/counting/"), RangeEnd: []byte("s000/counting0")}}
}

func (c *counting) Checkers() []linearizability.Checker { return nil }

func newLoad(t *testing.T, fakes []*fakeNode, w linearizability.Workload) *load {
	t.Helper()
	rec, err := newRecorder(filepath.Join(t.TempDir(), "history"), noClock, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rec.close(); err != nil {
			t.Error(err)
		}
	})
	return &load{endpoints: endpointsOf(fakes), record: rec, meter: newMeter(time.Now()), ids: new(atomic.Int64),
		works: []*work{{name: "counting", prefix: "s000/counting/", w: w}}}
}

// Clients go on at other nodes when one refuses or says nothing. A refusal is told as such, silence is Unknown and ends
// the client's number; nothing is sent twice; each request is told to the workload and stands in the history once.
func TestClientsMoveOn(t *testing.T) {
	const clients = 6
	fakes := newFakes(t, 3)
	w := &counting{clients: make(map[int]int)}
	l := newLoad(t, fakes, w)
	ctx := t.Context()
	if err := l.setup(ctx); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { l.run(ctx, stop, clients, base.NewRand(1)); close(ended) }()
	await(t, l.recovered(clients))

	fakes[0].mood.Store(moodMute)
	fakes[1].mood.Store(moodNoWrite)
	await(t, l.recovered(clients)) // node 3 serves them all
	fakes[2].server.Stop()
	fakes[0].mood.Store(moodWell)
	await(t, l.recovered(clients))
	if left := l.left(); left != 0 {
		t.Errorf("%d clients have not recovered", left)
	}
	close(stop)
	await(t, ended)
	if err := l.final(ctx); err != nil {
		t.Fatal(err)
	}

	got := count(l.record.history.Ops)
	if w.next != w.ended || w.outcomes.Unknown == 0 || w.outcomes.Failed == 0 || w.outcomes.OK == 0 {
		t.Errorf("%d requests, %d ended, outcomes %+v", w.next, w.ended, w.outcomes)
	}
	if got.Total() != w.ended+2 { // the setup's and the closing read
		t.Errorf("%d operations in the history, %d ended", got.Total(), w.ended)
	}
	if want := clients + w.outcomes.Unknown; len(w.clients) > want || len(w.clients) < want-clients {
		t.Errorf("%d numbers of clients after %d unknown outcomes", len(w.clients), w.outcomes.Unknown)
	}
	var asked int64
	for _, f := range fakes {
		asked += f.asked.Load()
	}
	if asked > int64(got.Total()) {
		t.Errorf("%d operations were sent %d times", got.Total(), asked)
	}
	last := l.record.history.Ops[got.Total()-1]
	if !last.Final || last.Outcome != linearizability.OK {
		t.Errorf("the last operation is %+v", last)
	}
	if open := l.record.open(); len(open) != w.outcomes.Unknown || written(open).has("probe") {
		t.Errorf("%d operations are open, %d are unknown", len(open), w.outcomes.Unknown)
	}
}

func await(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("not within 30 s")
	}
}

// Without a node that listens nothing is asked, and so nothing is unknown.
func TestNobodyListens(t *testing.T) {
	fakes := newFakes(t, 1)
	fakes[0].server.Stop()
	l := newLoad(t, fakes, &counting{clients: make(map[int]int)})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := l.setup(ctx); err == nil {
		t.Error("a setup without a node succeeded")
	}
	l.run(ctx, nil, 2, base.NewRand(1))
	if n := len(l.record.history.Ops); n != 0 {
		t.Errorf("%d operations were recorded", n)
	}
}

func noClock() time.Duration { return 0 }
