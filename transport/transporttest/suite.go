// Package transporttest is what every transport must do: one suite for gRPC and for the network in memory.
package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/transport"
)

// Cluster is what the suite runs on: nodes 1 and 2 that can reach each other.
type Cluster struct {
	Nodes [2]transport.Transport
	// Pump delivers what is under way, where the transport does not do so by itself.
	Pump func()
	// Stop makes node 2 unreachable; Restart brings it back with a new handler.
	Stop    func()
	Restart func(transport.Handler)
}

// limit is how long something may take that takes no time if it works.
const limit = 20 * time.Second

// Run runs the suite; open connects two handlers.
func Run(t *testing.T, open func(t *testing.T, one, two transport.Handler) *Cluster) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *Cluster, *Recorder, *Recorder)
	}{
		{"frames of a class arrive in order", testOrder},
		{"a blocked class holds up no other", testClasses},
		{"a full queue refuses", testFullQueue},
		{"a frame that is too large is refused", testTooLarge},
		{"an unknown node is unreachable", testUnknown},
		{"a node that stops is told of once, and found again", testRestart},
		{"bulk: messages, end and error", testBulk},
		{"bulk: a slow receiver holds up the sender", testBulkFlow},
		{"nothing is sent after Close", testClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			one, two := NewRecorder(), NewRecorder()
			cl := open(t, one, two)
			c.test(t, cl, one, two)
		})
	}
}

// Recorder is a handler that keeps what it is told.
type Recorder struct {
	mu     sync.Mutex
	frames map[transport.Class][]string
	down   int
	up     int
	signal chan struct{} // capacity 1: something was recorded

	Block map[transport.Class]chan struct{}                              // a class's handler waits for its channel to be closed
	Bulk  func(context.Context, base.NodeID, transport.BulkStream) error // serves bulk streams
}

// NewRecorder returns an empty one.
func NewRecorder() *Recorder {
	return &Recorder{frames: make(map[transport.Class][]string), signal: make(chan struct{}, 1), Block: make(map[transport.Class]chan struct{})}
}

func (r *Recorder) record(f func()) {
	r.mu.Lock()
	f()
	r.mu.Unlock()
	select {
	case r.signal <- struct{}{}:
	default:
	}
}

// HandleFrame implements transport.Handler.
func (r *Recorder) HandleFrame(_ base.NodeID, class transport.Class, frame []byte) {
	if block := r.Block[class]; block != nil {
		<-block
	}
	r.record(func() { r.frames[class] = append(r.frames[class], string(frame)) })
}

// HandleBulk implements transport.Handler.
func (r *Recorder) HandleBulk(ctx context.Context, from base.NodeID, s transport.BulkStream) error {
	return r.Bulk(ctx, from, s)
}

// PeerAddress implements transport.Handler.
func (r *Recorder) PeerAddress(base.NodeID, base.Incarnation, string) {}

// PeerDown implements transport.Handler.
func (r *Recorder) PeerDown(base.NodeID, error) { r.record(func() { r.down++ }) }

// PeerUp implements transport.Handler.
func (r *Recorder) PeerUp(base.NodeID) { r.record(func() { r.up++ }) }

// until waits until ok holds, pumping where that is needed.
func (r *Recorder) until(t *testing.T, c *Cluster, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond) // what is asked for may change without a word to this recorder
	defer tick.Stop()
	for {
		c.Pump()
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.signal:
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func testOrder(t *testing.T, c *Cluster, _, two *Recorder) {
	const n = 500
	for i := range n {
		for _, class := range []transport.Class{transport.Raft, transport.Control} {
			if err := c.Nodes[0].Send(2, class, fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	two.until(t, c, "all frames", func() bool {
		return len(two.frames[transport.Raft]) == n && len(two.frames[transport.Control]) == n
	})
	for class, frames := range two.frames {
		for i, f := range frames {
			if f != fmt.Sprint(i) {
				t.Fatalf("class %d: frame %q where %d should be", class, f, i)
			}
		}
	}
}

func testClasses(t *testing.T, c *Cluster, _, two *Recorder) {
	block := make(chan struct{})
	two.Block[transport.Raft] = block
	if err := errors.Join(c.Nodes[0].Send(2, transport.Raft, []byte("stuck")), c.Nodes[0].Send(2, transport.Control, []byte("through"))); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // the twin's pump is one goroutine, which the blocked handler would hold
		defer close(done)
		c.Pump()
	}()
	c2 := *c
	c2.Pump = func() {}
	if !pumped(c) {
		two.until(t, &c2, "the other class", func() bool { return len(two.frames[transport.Control]) == 1 })
	}
	close(block)
	<-done
	two.until(t, c, "both", func() bool { return len(two.frames[transport.Raft]) == 1 && len(two.frames[transport.Control]) == 1 })
}

// pumped says whether the transport delivers only when it is told to.
func pumped(c *Cluster) bool {
	p, ok := c.Nodes[0].(interface{ Pumped() bool })
	return ok && p.Pumped()
}

func testFullQueue(t *testing.T, c *Cluster, _, two *Recorder) {
	block := make(chan struct{})
	two.Block[transport.Raft] = block
	frame := make([]byte, base.MaxFrameBytes/2)
	var refused error
	for i := 0; i < 200 && refused == nil; i++ {
		refused = c.Nodes[0].Send(2, transport.Raft, frame)
	}
	var throttled *base.Throttled
	if !errors.As(refused, &throttled) || throttled.RetryAfter <= 0 {
		t.Errorf("200 frames of %d bytes at once: %v, want a refusal", len(frame), refused)
	}
	dropped := uint64(0)
	for _, p := range c.Nodes[0].Peers() {
		dropped += p.Dropped
	}
	if dropped == 0 {
		t.Error("what was refused is not counted")
	}
	close(block)
}

func testTooLarge(t *testing.T, c *Cluster, _, _ *Recorder) {
	if err := c.Nodes[0].Send(2, transport.Raft, make([]byte, base.MaxFrameBytes+1)); err == nil {
		t.Error("a frame above the limit was taken")
	}
}

func testUnknown(t *testing.T, c *Cluster, one, _ *Recorder) {
	_ = c.Nodes[0].Send(99, transport.Control, []byte("x")) // the first may be queued before the address is looked up
	one.until(t, c, "down", func() bool { return one.down > 0 })
	if err := c.Nodes[0].Send(99, transport.Control, []byte("x")); !errors.Is(err, transport.ErrUnreachable) {
		t.Errorf("sent to a node that nobody knows: %v", err)
	}
	if _, err := c.Nodes[0].OpenBulk(context.Background(), 99); !errors.Is(err, transport.ErrUnreachable) {
		t.Errorf("a stream to a node that nobody knows: %v", err)
	}
}

func testRestart(t *testing.T, c *Cluster, one, two *Recorder) {
	if err := c.Nodes[0].Send(2, transport.Control, []byte("before")); err != nil {
		t.Fatal(err)
	}
	two.until(t, c, "a frame", func() bool { return len(two.frames[transport.Control]) == 1 })
	c.Stop()
	one.until(t, c, "down", func() bool {
		one.mu.Unlock()
		_ = c.Nodes[0].Send(2, transport.Control, []byte("lost"))
		one.mu.Lock()
		return one.down > 0
	})
	if one.down != 1 || one.up != 1 {
		t.Errorf("told of down %d times, of up %d times", one.down, one.up)
	}
	again := NewRecorder()
	c.Restart(again)
	again.until(t, c, "a frame after the restart", func() bool {
		again.mu.Unlock()
		_ = c.Nodes[0].Send(2, transport.Control, []byte("after"))
		again.mu.Lock()
		return len(again.frames[transport.Control]) > 0
	})
	one.until(t, c, "up", func() bool { return one.up == 2 })
}

func testBulk(t *testing.T, c *Cluster, _, two *Recorder) {
	two.Bulk = func(_ context.Context, from base.NodeID, s transport.BulkStream) error {
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if string(m) == "fail" {
				return errors.New("as it was told to")
			}
			if err := s.Send(fmt.Appendf(nil, "%s from %s", m, from)); err != nil {
				return err
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	s, err := c.Nodes[0].OpenBulk(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := s.Send(fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Recv(); err != nil || string(m) != fmt.Sprintf("%d from n1", i) {
			t.Fatalf("answer %q, %v", m, err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if s, err = c.Nodes[0].OpenBulk(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if err := s.Send([]byte("fail")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the handler's error is lost: %v", err)
	}
}

func testBulkFlow(t *testing.T, c *Cluster, _, two *Recorder) {
	release := make(chan struct{})
	two.Bulk = func(_ context.Context, _ base.NodeID, s transport.BulkStream) error {
		<-release
		for {
			if _, err := s.Recv(); err != nil {
				return nil
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	s, err := c.Nodes[0].OpenBulk(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	const total = 256 // MiB, in messages of one: far more than any buffer may hold
	sent := make(chan int, total)
	failed := make(chan error, 1)
	go func() {
		m := make([]byte, 1<<20)
		for i := range total {
			if err := s.Send(m); err != nil {
				failed <- err
				return
			}
			sent <- i
		}
		close(sent)
	}()
	quiet := time.NewTimer(300 * time.Millisecond)
	n := 0
	for stuck := false; !stuck; {
		select {
		case <-sent:
			if n++; n == total {
				t.Fatalf("%d MiB were sent to a receiver that takes nothing", total)
			}
			quiet.Reset(300 * time.Millisecond)
		case <-quiet.C:
			stuck = true
		}
	}
	close(release)
	for range sent {
		n++
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	if n != total {
		t.Errorf("%d of %d messages went out", n, total)
	}
	if err := s.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func testClosed(t *testing.T, c *Cluster, _, _ *Recorder) {
	c.Nodes[0].Close()
	if err := c.Nodes[0].Send(2, transport.Raft, []byte("x")); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Send: %v", err)
	}
	if _, err := c.Nodes[0].OpenBulk(context.Background(), 2); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("OpenBulk: %v", err)
	}
	c.Nodes[0].Close()
}
