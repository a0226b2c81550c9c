package gossip

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/transport"
)

// member is a node that does nothing but gossip, over the real transport.
type member struct {
	t       *testing.T
	id      base.NodeID
	address string
	g       *Gossip
	stop    func()

	mu    sync.Mutex
	known map[base.NodeID]*metapb.NodeRecord
	news  chan struct{} // capacity 1: something was learned
	down  chan error    // why a peer cannot be reached
	seeks chan struct{}
}

// newMember starts a node of a cluster; its address is its own choice. knows are the others that it has heard of.
func newMember(t *testing.T, cluster uint64, id base.NodeID, inc base.Incarnation, knows ...*member) *member {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &member{
		t: t, id: id, address: l.Addr().String(), known: make(map[base.NodeID]*metapb.NodeRecord), news: make(chan struct{}, 1),
		down: make(chan error, 100), seeks: make(chan struct{}, 100),
	}
	for _, o := range append(knows, m) {
		m.known[o.id] = &metapb.NodeRecord{NodeId: uint64(o.id), Address: o.address}
	}
	tr, err := transport.NewGRPC(transport.GRPCConfig{ClusterID: cluster, Node: id, Incarnation: inc, Address: m.address, Resolver: m, Handler: m})
	if err != nil {
		t.Fatal(err)
	}
	m.g, err = New(Config{
		Node: id, Incarnation: inc, Address: m.address, Version: "1.0.0", Transport: tr, Nodes: m.nodes,
		Record: func() *metapb.NodeRecord { return &metapb.NodeRecord{NodeId: uint64(id), Generation: 7} },
		Learn:  m.learn, Seek: func(context.Context) { m.seeks <- struct{}{} }, Seed: uint64(id),
		Interval: 20 * time.Millisecond, Hurry: 5 * time.Millisecond, Silence: time.Second, LoadInterval: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	tr.Register(s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // ends with Stop
	}()
	m.g.Start()
	m.stop = sync.OnceFunc(func() {
		m.g.Stop()
		s.Stop()
		tr.Close()
		<-served
	})
	t.Cleanup(m.stop)
	return m
}

func (m *member) nodes() (out []*metapb.NodeRecord) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.known {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *metapb.NodeRecord) int { return int(int64(a.NodeId) - int64(b.NodeId)) })
	return out
}

func (m *member) learn(id base.NodeID, inc base.Incarnation, address string, _ *metapb.NodeRecord) {
	m.mu.Lock()
	if old := m.known[id]; old == nil || old.Incarnation < uint64(inc) {
		m.known[id] = &metapb.NodeRecord{NodeId: uint64(id), Incarnation: uint64(inc), Address: address}
	}
	m.mu.Unlock()
	select {
	case m.news <- struct{}{}:
	default:
	}
	m.g.Wake()
}

// until waits for what is learned, until want holds.
func (m *member) until(what string, want func() bool) {
	m.t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	look := time.NewTicker(20 * time.Millisecond) // of loads nobody is told
	defer look.Stop()
	for !want() {
		select {
		case <-m.news:
		case <-look.C:
		case <-limit.C:
			m.t.Fatalf("%s: not within 20 s: %s; it knows %v and %v", m.id, what, m.nodes(), m.g.Loads())
		}
	}
}

func (m *member) Address(id base.NodeID) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.known[id]
	return r.GetAddress(), ok
}

func (m *member) HandleFrame(from base.NodeID, class transport.Class, frame []byte) {
	f := &rangepb.SupportFrame{}
	if err := proto.Unmarshal(frame, f); err != nil || class != transport.Support {
		m.t.Errorf("class %d: %v", class, err)
		return
	}
	if err := m.g.Handle(from, f.Gossip); err != nil {
		m.t.Error(err)
	}
}

func (m *member) HandleBulk(context.Context, base.NodeID, transport.BulkStream) error { return nil }

func (m *member) PeerAddress(id base.NodeID, inc base.Incarnation, address string) {
	m.learn(id, inc, address, nil)
}

func (m *member) PeerDown(_ base.NodeID, reason error) {
	select {
	case m.down <- reason:
	default:
	}
}

func (m *member) PeerUp(base.NodeID) {}

// Each knows but the one before it, and all come to know all, and how busy they are: no range is needed for it.
func TestOneAddressIsEnough(t *testing.T) {
	var ms []*member
	for i := range 7 {
		ms = append(ms, newMember(t, 1, base.NodeID(i+1), 1, ms[max(0, i-1):]...))
		ms[i].g.SetLoad(&metapb.NodeLoad{Replicas: uint64(i + 1)})
	}
	for _, m := range ms {
		for _, o := range ms {
			m.until(fmt.Sprintf("where %s is, and its load", o.id), func() bool {
				a, _ := m.Address(o.id)
				return a == o.address && m.g.Loads()[o.id].GetReplicas() == uint64(o.id)
			})
		}
	}
	// One moves, and knows of one other where it is.
	ms[3].stop()
	again := newMember(t, 1, 4, 2, ms[6])
	for _, m := range ms {
		if m != ms[3] {
			m.until("where n4 has moved", func() bool { a, _ := m.Address(4); return a == again.address })
		}
	}
	for _, o := range ms {
		again.until(fmt.Sprintf("where %s is", o.id), func() bool { a, _ := again.Address(o.id); return o.id == 4 || a == o.address })
	}
}

// A node of another cluster, which has the same ids, is let in by nobody: nothing that it says arrives.
func TestGossipOfAnotherClusterDoesNotArrive(t *testing.T) {
	ours := newMember(t, 1, 1, 1)
	foreign := newMember(t, 2, 2, 9, ours)
	foreign.g.SetLoad(&metapb.NodeLoad{Replicas: 1})
	// It was refused, twice: so what it wanted to say before the second time is lost.
	for range 2 {
		select {
		case err := <-foreign.down:
			if !strings.Contains(err.Error(), "of cluster") {
				t.Errorf("it was not let in because: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it is not refused for 20 s")
		}
	}
	if n := ours.nodes(); len(n) != 1 || len(ours.g.Loads()) != 0 {
		t.Errorf("it knows %v, and loads %v", n, ours.g.Loads())
	}
}

// Who hears nobody looks for addresses elsewhere, again and again; who hears somebody does not.
func TestSilenceIsLookedInto(t *testing.T) {
	gone := &member{id: 2, address: "127.0.0.1:1"}
	alone := newMember(t, 1, 1, 1, gone)
	for range 2 {
		select {
		case <-alone.seeks:
		case <-time.After(20 * time.Second):
			t.Fatal("nobody is heard for 20 s")
		}
	}
	alone.stop()
	clear := newMember(t, 1, 3, 1)
	other := newMember(t, 1, 4, 1, clear)
	other.until("a load", func() bool { clear.g.SetLoad(&metapb.NodeLoad{Replicas: 9}); return other.g.Loads()[3] != nil })
	single := newMember(t, 1, 5, 1) // knows of nobody: there is nobody to seek
	limit := time.After(5 * time.Second / 2)
	select {
	case <-single.seeks:
		t.Error("a cluster of one seeks others")
	case <-clear.seeks:
		t.Error("a node that hears another seeks more")
	case <-limit:
	}
}

// A flood is dropped and holds nobody up; frames that are wrong are refused.
func TestHandleDoesNotBlock(t *testing.T) {
	g, err := New(Config{
		Node: 1, Incarnation: 1, Address: "a:1", Transport: &transport.GRPC{}, Nodes: func() []*metapb.NodeRecord { return nil },
		Record: func() *metapb.NodeRecord { return nil }, Learn: func(base.NodeID, base.Incarnation, string, *metapb.NodeRecord) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * base.GossipInbox {
		if err := g.Handle(2, &rangepb.Gossip{Sum: 1}); err != nil {
			t.Fatal(err)
		}
		g.Meet(2)
	}
	bad := &rangepb.Gossip{Entries: []*rangepb.GossipEntry{{Version: &rangepb.GossipVersion{NodeId: 2, Incarnation: 1, Seq: 1}, Address: "nowhere"}}}
	if err := g.Handle(2, bad); err == nil || !strings.Contains(err.Error(), "gossip from n2") {
		t.Errorf("a wrong frame: %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a gossip of nothing")
	}
}
