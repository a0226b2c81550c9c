package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
	"github.com/cairndb/cairn/node/join"
)

// fakeBackend is a node without a cluster behind it. Its fields are set before it serves.
type fakeBackend struct {
	id       Identity
	members  []*metapb.NodeRecord
	replicas []*clusterpb.ReplicaStatus
	kvs      []*mvccpb.KeyValue // ordered; what Range reads
	sys      []*mvccpb.KeyValue // what Range reads of the keyspace sys
	answer   proto.Message      // of every proposal
	err      error              // of every call
	where    Where
	health   []*metapb.NodeHealth
	toldBy   base.NodeID
	age      time.Duration // of health
	leases   Leases
	alarms   []*pb.AlarmMember
	quota    int64
	blocks   int  // of a megabyte that a snapshot has
	hang     bool // proposals wait for their context

	mu       sync.Mutex
	proposed []*kvpb.Command
	keys     [][]byte
	readTxns int
	reads    []*pb.RangeRequest
	spaces   []base.KeyspaceID // that were read

	defragmented []base.KeyspaceID

	watches  chan *fakeStream // that were opened
	leadless atomic.Bool
}

const fakeRevision = 42

// Keyspace knows one beside default.
func (b *fakeBackend) Keyspace(_ context.Context, name string) (base.KeyspaceID, error) {
	if name != "shards" {
		return 0, status.Error(codes.NotFound, "no such keyspace")
	}
	return 100, b.err
}

func (b *fakeBackend) Alarm(context.Context, *pb.AlarmRequest) ([]*pb.AlarmMember, error) {
	return b.alarms, b.err
}
func (b *fakeBackend) Alarms() []*pb.AlarmMember { return b.alarms }
func (b *fakeBackend) Admit(grows bool) error {
	if grows && len(b.alarms) > 0 {
		return rpctypes.ErrGRPCNoSpace
	}
	return nil
}
func (b *fakeBackend) Quota() int64 { return b.quota }

func (b *fakeBackend) Snapshot(ctx context.Context, w io.Writer) error {
	for range b.blocks {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
	}
	return b.err
}

func (b *fakeBackend) CreateKeyspace(context.Context, string, bool) (*metapb.KeyspaceRecord, error) {
	return nil, b.err
}
func (b *fakeBackend) DropKeyspace(context.Context, string) (int, error) { return 0, b.err }
func (b *fakeBackend) Keyspaces(context.Context) ([]*metapb.KeyspaceRecord, error) {
	return nil, b.err
}
func (b *fakeBackend) Ranges(context.Context, string) ([]*clusterpb.IndexedRange, error) {
	return nil, b.err
}
func (b *fakeBackend) SplitRange(context.Context, string, []byte, bool) (*metapb.RangeDescriptor, *metapb.RangeDescriptor, error) {
	return nil, nil, b.err
}

func (b *fakeBackend) Check(context.Context, *clusterpb.CheckRequest, func(context.Context) *clusterpb.StatusResponse, func(*clusterpb.CheckResponse) error) error {
	return b.err
}
func (b *fakeBackend) MergeRange(context.Context, string, []byte, bool) (*metapb.RangeDescriptor, error) {
	return nil, b.err
}

func (b *fakeBackend) Propose(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error) {
	b.mu.Lock()
	b.proposed, b.keys = append(b.proposed, cmd), append(b.keys, key)
	b.mu.Unlock()
	if b.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return b.answer, b.err
}

func (b *fakeBackend) Range(_ context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	if b.err != nil {
		return nil, b.err
	}
	b.mu.Lock()
	b.reads, b.spaces = append(b.reads, proto.CloneOf(req)), append(b.spaces, ks)
	b.mu.Unlock()
	kvs := b.kvs
	if ks == base.KeyspaceSys {
		kvs = b.sys
	}
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: fakeRevision}}
	for _, kv := range kvs {
		if bytes.Compare(kv.Key, req.Key) < 0 || len(req.RangeEnd) > 0 && bytes.Compare(kv.Key, req.RangeEnd) >= 0 {
			continue
		}
		resp.Count++
		if req.Limit > 0 && int64(len(resp.Kvs)) == req.Limit {
			resp.More = true
			continue
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	return resp, nil
}

// fakePageKeys is how many keys a page has at most.
const fakePageKeys = 100

func (b *fakeBackend) Page(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, []byte, error) {
	page := proto.CloneOf(req)
	if page.Limit <= 0 || page.Limit > fakePageKeys {
		page.Limit = fakePageKeys
	}
	resp, err := b.Range(ctx, ks, page)
	if err != nil || !resp.More {
		return resp, nil, err
	}
	resp.Count = int64(len(resp.Kvs))
	return resp, append(bytes.Clone(resp.Kvs[len(resp.Kvs)-1].Key), 0), nil
}

func (b *fakeBackend) ReadTxn(context.Context, base.KeyspaceID, *pb.TxnRequest) (*pb.TxnResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readTxns++
	return &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: fakeRevision}, Succeeded: true}, b.err
}

func (b *fakeBackend) Leases() (Leases, error) { return b.leases, b.err }

// HashKV answers with what it was asked.
func (b *fakeBackend) HashKV(_ context.Context, ks base.KeyspaceID, revision int64) (*pb.HashKVResponse, error) {
	return &pb.HashKVResponse{Header: &pb.ResponseHeader{Revision: fakeRevision}, Hash: uint32(ks), HashRevision: revision, CompactRevision: 3}, b.err
}

func (b *fakeBackend) HasLeader(base.KeyspaceID, []byte) bool { return !b.leadless.Load() }

// fakeStream is a stream of watches that keeps what it is asked, and sends what the test says.
type fakeStream struct {
	WatchSink
	asked chan string
	sent  chan int
}

func (b *fakeBackend) OpenWatches(sink WatchSink) (WatchStream, error) {
	if b.watches == nil {
		return nil, errors.New("this backend has no watches")
	}
	s := &fakeStream{WatchSink: sink, asked: make(chan string, 100), sent: make(chan int, 1000)}
	b.watches <- s
	return s, b.err
}

func (s *fakeStream) Create(id int64, spec watch.Spec) {
	s.asked <- fmt.Sprintf("create %d [%q,%q) from %d, keyspace %d, prev %v, no put %v, no delete %v, progress %v, fragment %v", id, spec.Start,
		spec.End, spec.From, spec.Keyspace, spec.PrevKV, spec.NoPut, spec.NoDelete, spec.Progress, spec.Fragment)
}
func (s *fakeStream) Cancel(id int64) { s.asked <- fmt.Sprint("cancel ", id) }
func (s *fakeStream) Progress()       { s.asked <- "progress" }
func (s *fakeStream) Sent(bytes int)  { s.sent <- bytes }
func (s *fakeStream) Close()          { close(s.asked) }

func (b *fakeBackend) Where(base.KeyspaceID, []byte) Where { return b.where }

func (b *fakeBackend) Identity() Identity                  { return b.id }
func (b *fakeBackend) RaftTerm(base.KeyspaceID) uint64     { return 7 }
func (b *fakeBackend) Members() []*metapb.NodeRecord       { return b.members }
func (b *fakeBackend) Supports() []*clusterpb.SupportEntry { return nil }

func (b *fakeBackend) Health() ([]*metapb.NodeHealth, base.NodeID, time.Duration) {
	return b.health, b.toldBy, b.age
}

func (b *fakeBackend) StoreMetrics() *clusterpb.StoreMetrics {
	return &clusterpb.StoreMetrics{Syncs: 7}
}

func (b *fakeBackend) StoreStats() (total, inUse int64) {
	return 1000, 100
}

func (b *fakeBackend) Defragment(_ context.Context, ks base.KeyspaceID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.defragmented = append(b.defragmented, ks)
	return b.err
}

func (b *fakeBackend) LocalReplicas(context.Context) ([]*clusterpb.ReplicaStatus, error) {
	return b.replicas, b.err
}

// fakeMembership answers what it is asked.
type fakeMembership struct{ err error }

func (m fakeMembership) Init(context.Context) (*clusterpb.InitResponse, error) {
	return &clusterpb.InitResponse{ClusterId: 9}, m.err
}

func (m fakeMembership) Consent(context.Context, *clusterpb.ConsentRequest) (*clusterpb.ConsentResponse, error) {
	return &clusterpb.ConsentResponse{Granted: true}, m.err
}

func (m fakeMembership) Join(context.Context, *clusterpb.JoinRequest) (*clusterpb.JoinResponse, error) {
	return nil, join.ErrNotInitialised
}

func (m fakeMembership) Announce(context.Context, *clusterpb.AnnounceRequest) (*clusterpb.AnnounceResponse, error) {
	return &clusterpb.AnnounceResponse{}, m.err
}

// member is a backend whose node is part of a cluster.
func memberBackend() *fakeBackend {
	return &fakeBackend{leases: newFakeLeases(), id: Identity{ClusterID: 0xc1, NodeID: 1, StoreUUID: bytes.Repeat([]byte{1}, 16),
		Address: "127.0.0.1:1", Version: "0.1.0", Incarnation: 3}}
}

// listen reserves an address.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveOn serves the backend until the test ends, and returns a connection to it.
func serveOn(t testing.TB, l net.Listener, cfg Config) (*Server, *grpc.ClientConn) {
	t.Helper()
	if cfg.Membership == nil {
		cfg.Membership = fakeMembership{}
	}
	cfg.StatusTimeout = 2 * time.Second
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err := join.Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // before it began
			t.Error(err)
		}
	})
	return s, conn
}

func serveFake(t testing.TB, b *fakeBackend) *grpc.ClientConn {
	t.Helper()
	_, conn := serveOn(t, listen(t), Config{Backend: b})
	return conn
}

// serveAlso is another connection to a server, until the test ends.
func serveAlso(t testing.TB, s *Server) *grpc.ClientConn {
	t.Helper()
	l := listen(t)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err := join.Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // before it began
			t.Error(err)
		}
	})
	return conn
}
