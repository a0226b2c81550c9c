// Package memnet is the transport's twin in memory: a network whose links can be cut or held, and which delivers only
// when it is told to, from one goroutine, in an order that is always the same.
package memnet

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/transport"
)

// Network connects nodes. Frames wait until Deliver; bulk streams flow by themselves, with a bounded buffer. Its methods
// may be called from any goroutine, handlers are called by whoever calls Deliver.
type Network struct {
	mu    sync.Mutex
	nodes map[base.NodeID]*Node
	wire  []frame
	cut   map[link]bool
	held  map[link]bool
}

type link struct{ from, to base.NodeID }

type frame struct {
	link
	class transport.Class
	bytes []byte
}

// New returns a network without nodes.
func New() *Network {
	return &Network{nodes: make(map[base.NodeID]*Node), cut: make(map[link]bool), held: make(map[link]bool)}
}

// Node is one node's transport.
type Node struct {
	net    *Network
	id     base.NodeID
	h      transport.Handler
	closed bool
	down   map[base.NodeID]bool // peers whose handler was told that they are down
	known  map[base.NodeID]bool
	status map[base.NodeID]*transport.PeerStatus
}

var _ transport.Transport = (*Node)(nil)

// Join adds a node, or one that was closed again.
func (n *Network) Join(id base.NodeID, h transport.Handler) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := &Node{
		net: n, id: id, h: h, down: make(map[base.NodeID]bool), known: make(map[base.NodeID]bool),
		status: make(map[base.NodeID]*transport.PeerStatus),
	}
	n.nodes[id] = node
	return node
}

// Partition cuts the link from one node to another: what is sent on it is lost, and the sender is told that it is down.
func (n *Network) Partition(from, to base.NodeID) { n.set(n.cut, from, to, true) }

// Hold keeps what is sent on a link until Release.
func (n *Network) Hold(from, to base.NodeID) { n.set(n.held, from, to, true) }

// Release ends Hold.
func (n *Network) Release(from, to base.NodeID) { n.set(n.held, from, to, false) }

// Heal ends Partition.
func (n *Network) Heal(from, to base.NodeID) { n.set(n.cut, from, to, false) }

func (n *Network) set(m map[link]bool, from, to base.NodeID, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m[link{from, to}] = on
}

// Drop loses the frames under way that lose says, and returns how many.
func (n *Network) Drop(lose func(from, to base.NodeID, class transport.Class) bool) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := len(n.wire)
	n.wire = slices.DeleteFunc(n.wire, func(f frame) bool { return lose(f.from, f.to, f.class) })
	return before - len(n.wire)
}

// Deliver hands over up to limit frames, in the order in which they were sent, and returns how many it did. Frames of
// links that are held stay.
func (n *Network) Deliver(limit int) int {
	done := 0
	for done < limit {
		n.mu.Lock()
		i := slices.IndexFunc(n.wire, func(f frame) bool { return !n.held[f.link] })
		if i < 0 {
			n.mu.Unlock()
			return done
		}
		f := n.wire[i]
		n.wire = slices.Delete(n.wire, i, i+1)
		to := n.nodes[f.to]
		lost := n.cut[f.link] || to == nil || to.closed
		n.mu.Unlock()
		if !lost {
			to.h.HandleFrame(f.from, f.class, f.bytes)
		}
		done++
	}
	return done
}

// Pumped says that frames move only in Deliver.
func (t *Node) Pumped() bool { return true }

// Send implements transport.Transport.
func (t *Node) Send(to base.NodeID, class transport.Class, bytes []byte) error {
	n := t.net
	n.mu.Lock()
	if t.closed {
		n.mu.Unlock()
		return transport.ErrClosed
	}
	if len(bytes) > base.MaxFrameBytes {
		n.mu.Unlock()
		return fmt.Errorf("a frame of %d bytes; at most %d are sent", len(bytes), base.MaxFrameBytes)
	}
	st := t.peer(to)
	l := link{t.id, to}
	if reason := n.unreachable(l); reason != "" {
		st.Dropped++
		st.Up, st.LastError = false, reason
		tell := !t.down[to]
		t.down[to] = true
		n.mu.Unlock()
		err := fmt.Errorf("%w: %s: %s", transport.ErrUnreachable, to, reason)
		if tell {
			t.h.PeerDown(to, err)
		}
		return err
	}
	count, size := n.waiting(l, class)
	if count >= base.FrameQueueLen || size+len(bytes) > base.FrameQueueBytes {
		st.Dropped++
		n.mu.Unlock()
		return &base.Throttled{What: "frames to " + to.String(), RetryAfter: base.ThrottleRetry}
	}
	n.wire = append(n.wire, frame{l, class, bytes})
	st.Sent++
	st.SentBytes += uint64(len(bytes))
	st.Up = true
	tell := t.down[to] || !t.known[to]
	t.down[to], t.known[to] = false, true
	n.mu.Unlock()
	if tell {
		t.h.PeerUp(to)
	}
	return nil
}

func (t *Node) peer(id base.NodeID) *transport.PeerStatus {
	if t.status[id] == nil {
		t.status[id] = &transport.PeerStatus{Node: id, Address: id.String()}
	}
	return t.status[id]
}

// unreachable says why a link carries nothing; empty if it does. mu is held.
func (n *Network) unreachable(l link) string {
	switch to := n.nodes[l.to]; {
	case to == nil:
		return "its address is not known"
	case to.closed:
		return "connection refused"
	case n.cut[l]:
		return "no route"
	}
	return ""
}

func (n *Network) waiting(l link, class transport.Class) (count, size int) {
	for i := range n.wire {
		if n.wire[i].link == l && n.wire[i].class == class {
			count++
			size += len(n.wire[i].bytes)
		}
	}
	return count, size
}

// OpenBulk implements transport.Transport. The handler runs in a goroutine of its own, as a server's does.
func (t *Node) OpenBulk(ctx context.Context, to base.NodeID) (transport.BulkStream, error) {
	n := t.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.closed {
		return nil, transport.ErrClosed
	}
	if reason := n.unreachable(link{t.id, to}); reason != "" {
		return nil, fmt.Errorf("%w: %s: %s", transport.ErrUnreachable, to, reason)
	}
	there, back := make(chan []byte, bulkBuffer), make(chan []byte, bulkBuffer)
	s := &stream{ctx: ctx, out: there, in: back, ended: make(chan struct{})}
	h, id := n.nodes[to].h, t.id
	go func() {
		s.err = h.HandleBulk(ctx, id, &stream{ctx: ctx, out: back, in: there, server: true, ended: s.ended})
		close(s.ended)
	}()
	return s, nil
}

// bulkBuffer is how many messages a stream holds in one direction before its sender waits.
const bulkBuffer = 4

// stream is one end of a bulk stream.
type stream struct {
	ctx    context.Context
	out    chan<- []byte
	in     <-chan []byte
	server bool
	ended  chan struct{} // closed when the handler has returned
	err    error         // the handler's
	once   sync.Once
}

// Send implements transport.BulkStream.
func (s *stream) Send(m []byte) error {
	ended := s.ended
	if s.server {
		ended = nil // it is the handler that is still running
	}
	select {
	case s.out <- slices.Clone(m):
		return nil
	case <-ended:
		return io.EOF // Recv says why
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// Recv implements transport.BulkStream.
func (s *stream) Recv() ([]byte, error) {
	ended := s.ended
	if s.server {
		ended = nil
	}
	select {
	case m, ok := <-s.in:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case <-ended:
		select {
		case m := <-s.in: // sent before the handler returned
			return m, nil
		default:
		}
		if s.err != nil {
			return nil, s.err
		}
		return nil, io.EOF
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// CloseSend implements transport.BulkStream.
func (s *stream) CloseSend() error {
	if !s.server {
		s.once.Do(func() { close(s.out) })
	}
	return nil
}

// Peers implements transport.Transport.
func (t *Node) Peers() []transport.PeerStatus {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	out := make([]transport.PeerStatus, 0, len(t.status))
	for _, st := range t.status {
		count, _ := t.net.waiting(link{t.id, st.Node}, transport.Raft)
		more, _ := t.net.waiting(link{t.id, st.Node}, transport.Control)
		s := *st
		s.Queued = uint64(count + more)
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b transport.PeerStatus) int { return int(int64(a.Node) - int64(b.Node)) })
	return out
}

// Close implements transport.Transport.
func (t *Node) Close() {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	t.closed = true
}
