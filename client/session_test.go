package client

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
)

// lessor is what several nodes know of leases: the TTL of each.
type lessor struct {
	mu     sync.Mutex
	leases map[int64]int64
	lastID int64
	ttl    int64 // granted, in seconds
}

// leaseNode serves the leases of a lessor as a node does.
type leaseNode struct {
	pb.UnimplementedLeaseServer
	*lessor
	addr    string
	server  *grpc.Server
	silent  atomic.Bool // does not answer keep-alives
	streams atomic.Int64
	kept    atomic.Int64
}

func startLeaseNode(t *testing.T, l *lessor) *leaseNode {
	t.Helper()
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &leaseNode{lessor: l, addr: in.Addr().String(), server: grpc.NewServer()}
	pb.RegisterLeaseServer(n.server, n)
	done := make(chan error, 1)
	go func() { done <- n.server.Serve(in) }()
	t.Cleanup(func() {
		n.server.Stop()
		<-done
	})
	return n
}

func (n *leaseNode) LeaseGrant(context.Context, *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lastID++
	n.leases[n.lastID] = n.ttl
	return &pb.LeaseGrantResponse{ID: n.lastID, TTL: n.ttl}, nil
}

func (n *leaseNode) LeaseRevoke(_ context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leases[r.ID] == 0 {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	delete(n.leases, r.ID)
	return &pb.LeaseRevokeResponse{}, nil
}

func (n *leaseNode) LeaseKeepAlive(in pb.Lease_LeaseKeepAliveServer) error {
	n.streams.Add(1)
	for {
		r, err := in.Recv()
		if err != nil {
			return err
		}
		if n.silent.Load() {
			continue
		}
		n.mu.Lock()
		ttl := n.leases[r.ID]
		n.mu.Unlock()
		n.kept.Add(1)
		if err := in.Send(&pb.LeaseKeepAliveResponse{ID: r.ID, TTL: ttl}); err != nil {
			return err
		}
	}
}

func newSessions(t *testing.T, c *Client, n int) (out []*Session) {
	t.Helper()
	for range n {
		s, err := c.NewSession(testContext(t), 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func over(t *testing.T, s *Session, limit time.Duration) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(limit):
		t.Fatal("the session goes on")
	}
}

// All sessions are kept alive over one stream. One that is closed is closed, one whose lease is gone is lost, and the others go on;
// with the last the stream ends.
func TestSessions(t *testing.T) {
	l := &lessor{leases: map[int64]int64{}, ttl: 2}
	n := startLeaseNode(t, l)
	c := newClient(t, n.addr)
	s := newSessions(t, c, 5)
	eventually(t, "kept alive, twice each", func() bool { return n.kept.Load() >= 10 })
	if n.streams.Load() != 1 {
		t.Errorf("%d streams", n.streams.Load())
	}
	if err := s[0].Close(testContext(t)); err != nil || s[0].Err() == nil {
		t.Errorf("closed: %v, %v", err, s[0].Err())
	}
	if err := s[0].Close(testContext(t)); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	l.mu.Lock()
	delete(l.leases, s[1].Lease().ID)
	l.mu.Unlock()
	over(t, s[1], 2*time.Second)
	if err := s[1].Err(); !errors.Is(err, ErrSessionLost) || !errors.Is(err, ErrLeaseNotFound) {
		t.Errorf("its lease is gone: %v", err)
	}
	for _, s := range s[2:] {
		if err := s.Err(); err != nil {
			t.Error(err)
		}
		s.Orphan()
	}
	eventually(t, "the keeper has ended", func() bool {
		k := c.keeper(c.KV)
		k.mu.Lock()
		defer k.mu.Unlock()
		return !k.running
	})
	if again := newSessions(t, c, 1)[0]; again.Err() != nil {
		t.Error(again.Err())
	}
}

// A node that does not answer is left for another in time.
func TestSessionGoesOn(t *testing.T) {
	l := &lessor{leases: map[int64]int64{}, ttl: 2}
	nodes := []*leaseNode{startLeaseNode(t, l), startLeaseNode(t, l)}
	c := newClient(t, nodes[0].addr, nodes[1].addr)
	s := newSessions(t, c, 2)
	eventually(t, "kept alive", func() bool { return nodes[0].kept.Load()+nodes[1].kept.Load() >= 2 })
	used, other := nodes[0], nodes[1]
	if other.streams.Load() > 0 {
		used, other = other, used
	}
	before := other.kept.Load()
	used.silent.Store(true)
	eventually(t, "kept alive by the other", func() bool { return other.kept.Load() >= before+4 })
	for _, s := range s {
		if err := s.Err(); err != nil {
			t.Error(err)
		}
	}
}

// A session that nobody keeps alive is lost before any node can end its lease: whether nodes are silent or gone.
func TestSessionLostInTime(t *testing.T) {
	for _, gone := range []bool{false, true} {
		l := &lessor{leases: map[int64]int64{}, ttl: 2}
		n := startLeaseNode(t, l)
		n.silent.Store(true)
		c := newClient(t, n.addr)
		began := time.Now()
		s := newSessions(t, c, 1)[0]
		if gone {
			n.server.Stop()
		}
		over(t, s, 10*time.Second)
		ttl := s.Lease().TTL
		took := time.Since(began)
		if took < ttl-ttl/base.ClientLeaseMargin-100*time.Millisecond || took >= ttl || !errors.Is(s.Err(), ErrSessionLost) {
			t.Errorf("gone %v: lost after %s of %s: %v", gone, took, ttl, s.Err())
		}
	}
	c := newClient(t, startLeaseNode(t, &lessor{leases: map[int64]int64{}, ttl: 2}).addr)
	s := newSessions(t, c, 1)[0]
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	over(t, s, time.Second)
	if !errors.Is(s.Err(), ErrClosed) {
		t.Error(s.Err())
	}
}

// A clock that has gone on without this program counts: the session is lost though nothing has told so yet.
func TestSessionLooksAtTheClock(t *testing.T) {
	c := newClient(t, startLeaseNode(t, &lessor{leases: map[int64]int64{}, ttl: 60}).addr)
	s := newSessions(t, c, 1)[0]
	k := c.keeper(c.KV)
	k.mu.Lock()
	s.kept = instant{time.Now().Round(0).Add(-time.Minute)} // by the wall, as after a machine's sleep
	k.mu.Unlock()
	if err := s.Err(); !errors.Is(err, ErrSessionLost) {
		t.Error(err)
	}
	over(t, s, time.Second)
}
