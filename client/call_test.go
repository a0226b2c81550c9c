package client

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// node is a node's KV service that does as a test says, behind a real gRPC server.
type node struct {
	pb.UnimplementedKVServer
	addr   string
	server *grpc.Server
	asked  atomic.Int64
	do     func(context.Context) error
}

func startNode(t *testing.T, do func(context.Context) error) *node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{addr: l.Addr().String(), server: grpc.NewServer(), do: do}
	pb.RegisterKVServer(n.server, n)
	done := make(chan error, 1)
	go func() { done <- n.server.Serve(l) }()
	t.Cleanup(func() {
		n.server.Stop()
		<-done
	})
	return n
}

func (n *node) Put(ctx context.Context, _ *pb.PutRequest) (*pb.PutResponse, error) {
	n.asked.Add(1)
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 7}}, n.do(ctx)
}

func (n *node) Range(ctx context.Context, _ *pb.RangeRequest) (*pb.RangeResponse, error) {
	n.asked.Add(1)
	return &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 7}}, n.do(ctx)
}

func fine(context.Context) error { return nil }

func newClient(t *testing.T, endpoints ...string) *Client {
	t.Helper()
	c, err := New(Config{Endpoints: endpoints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// nowhere is an address at which nobody listens.
func nowhere(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A connection that breaks while a request is under way: a write is ambiguous and is not sent again, a read is asked elsewhere.
func TestBrokenConnection(t *testing.T) {
	for _, write := range []bool{true, false} {
		var dying *node
		dying = startNode(t, func(ctx context.Context) error {
			go dying.server.Stop()
			<-ctx.Done()
			return ctx.Err()
		})
		well := startNode(t, fine)
		c := newClient(t, dying.addr)
		var err error
		if write {
			_, err = c.Put(testContext(t), "a", nil)
			if !errors.As(err, new(*Ambiguous)) || c.Stats().Ambiguous != 1 {
				t.Errorf("a write: %v, %+v", err, c.Stats())
			}
		} else {
			c.cfg.Endpoints = append(c.cfg.Endpoints, well.addr)
			c.turn.Store(1)
			if _, _, err = c.Get(testContext(t), "a"); err != nil || well.asked.Load() != 1 {
				t.Errorf("a read: %v, asked elsewhere %d times", err, well.asked.Load())
			}
		}
		if n := dying.asked.Load(); n != 1 {
			t.Errorf("write %v: the node was asked %d times", write, n)
		}
	}
}

// What cannot leave is sent to a node that is there; if none is, it certainly was not carried out.
func TestNobodyThere(t *testing.T) {
	n := startNode(t, fine)
	c := newClient(t, nowhere(t), n.addr)
	for range 4 {
		if rev, err := c.Put(testContext(t), "a", nil); err != nil || rev != 7 {
			t.Fatalf("%d, %v", rev, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := newClient(t, nowhere(t)).Put(ctx, "a", nil)
	if !errors.As(err, new(*Unavailable)) || errors.As(err, new(*Ambiguous)) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody there: %v", err)
	}
}

// A write that a node certainly did not carry out is sent again; one that the caller gave up on is ambiguous.
func TestWriteAgain(t *testing.T) {
	var n *node
	n = startNode(t, func(context.Context) error {
		if n.asked.Load() == 1 {
			return with(codes.Unavailable, "etcdserver: leader changed", &clusterpb.Failure{Kind: clusterpb.FailureKind_FAILURE_KIND_NOT_DONE})
		}
		return nil
	})
	c := newClient(t, n.addr)
	if _, err := c.Put(testContext(t), "a", nil); err != nil || n.asked.Load() != 2 {
		t.Errorf("%v after %d tries", err, n.asked.Load())
	}
	stuck := startNode(t, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := newClient(t, stuck.addr).Put(ctx, "a", nil)
	if !errors.As(err, new(*Ambiguous)) || !errors.Is(err, context.DeadlineExceeded) || stuck.asked.Load() != 1 {
		t.Errorf("%v after %d tries", err, stuck.asked.Load())
	}
}

// A node that says who leads the range is asked once; then the leader is.
func TestStraightToTheLeader(t *testing.T) {
	leader := startNode(t, fine)
	told := &clusterpb.Route{
		KeyspaceId: 4, LeaderNode: 2, Nodes: []*clusterpb.NodeAddress{{NodeId: 2, Address: leader.addr}},
		Range: &metapb.RangeDescriptor{RangeId: 4, KeyspaceId: 4, Generation: 1, NextReplicaId: 2,
			Replicas: []*metapb.Replica{{ReplicaId: 1, NodeId: 2, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}}},
	}
	raw, err := proto.Marshal(told)
	if err != nil {
		t.Fatal(err)
	}
	other := startNode(t, func(ctx context.Context) error {
		return grpc.SetTrailer(ctx, metadata.Pairs(base.RouteTrailer, string(raw)))
	})
	c := newClient(t, other.addr)
	for range 5 {
		if _, err := c.Put(testContext(t), "a", nil); err != nil {
			t.Fatal(err)
		}
	}
	if o, l, s := other.asked.Load(), leader.asked.Load(), c.Stats(); o != 1 || l != 4 || s.Direct != 4 || s.Sent != 5 {
		t.Errorf("the other was asked %d times, the leader %d: %+v", o, l, s)
	}
	leader.server.Stop() // an idle connection breaks: the next one is not sent there
	if _, err := c.Put(testContext(t), "a", nil); err != nil && !errors.As(err, new(*Ambiguous)) {
		t.Fatal(err)
	}
	if _, err := c.Put(testContext(t), "a", nil); err != nil || other.asked.Load() < 2 {
		t.Errorf("%v; the other was asked %d times", err, other.asked.Load())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(testContext(t), "a", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestConfig(t *testing.T) {
	_, err := New(Config{Endpoints: []string{"nowhere"}, DialTimeout: -1, CachedRanges: -1})
	if j, ok := errors.Unwrap(err).(interface{ Unwrap() []error }); !ok || len(j.Unwrap()) != 3 {
		t.Errorf("not every problem at once: %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a client of nobody")
	}
}

func TestPrefix(t *testing.T) {
	for p, end := range map[string]string{"a/": "a0", "a\xff": "b", "\xff\xff": "", "": ""} {
		if got := Prefix(p); got != (Span{p, end}) {
			t.Errorf("%q: %q", p, got)
		}
	}
}
