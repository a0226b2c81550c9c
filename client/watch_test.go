package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/internal/base"
)

// past is what was written: the events of revision r are at r-1. Several nodes may serve it.
type past struct {
	mu        sync.Mutex
	revisions [][]*mvccpb.Event
	grown     chan struct{} // closed when a revision is added
	compacted int64
}

func newPast() *past { return &past{grown: make(chan struct{})} }

// write adds a revision that writes the keys.
func (h *past) write(value string, keys ...string) (revision int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	revision = int64(len(h.revisions)) + 1
	var events []*mvccpb.Event
	for _, k := range keys {
		events = append(events, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(k), Value: []byte(value), ModRevision: revision}})
	}
	h.revisions = append(h.revisions, events)
	close(h.grown)
	h.grown = make(chan struct{})
	return revision
}

func (h *past) at(revision int64) (events []*mvccpb.Event, last, compacted int64, grown chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	last = int64(len(h.revisions))
	if revision <= last {
		events = h.revisions[revision-1]
	}
	return events, last, h.compacted, h.grown
}

// watchNode serves the watches of a past as a node does.
type watchNode struct {
	pb.UnimplementedWatchServer
	t       *testing.T
	past    *past
	addr    string
	server  *grpc.Server
	cut     bool // each revision of several events comes in fragments, one event each
	refuse  bool
	streams atomic.Int64 // opened
	open    atomic.Int64 // and not ended
	creates chan *pb.WatchCreateRequest
}

func startWatchNode(t *testing.T, h *past, change ...func(*watchNode)) *watchNode {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &watchNode{t: t, past: h, addr: l.Addr().String(), server: grpc.NewServer(), creates: make(chan *pb.WatchCreateRequest, 1000)}
	for _, f := range change {
		f(n)
	}
	pb.RegisterWatchServer(n.server, n)
	done := make(chan error, 1)
	go func() { done <- n.server.Serve(l) }()
	t.Cleanup(func() {
		n.server.Stop()
		<-done
	})
	return n
}

func (n *watchNode) Watch(in pb.Watch_WatchServer) error {
	n.streams.Add(1)
	n.open.Add(1)
	defer n.open.Add(-1)
	var (
		wg   sync.WaitGroup
		out  sync.Mutex
		ends = map[int64]context.CancelFunc{}
	)
	defer wg.Wait()
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	send := func(r *pb.WatchResponse) {
		out.Lock()
		defer out.Unlock()
		_ = in.Send(r)
	}
	for {
		r, err := in.Recv()
		if err != nil {
			return err
		}
		if c := r.GetCancelRequest(); c != nil {
			ends[c.WatchId]()
			send(&pb.WatchResponse{WatchId: c.WatchId, Canceled: true})
			continue
		}
		c := r.GetCreateRequest()
		n.creates <- c
		if n.refuse {
			send(&pb.WatchResponse{WatchId: -1, Created: true, Canceled: true, CancelReason: "for a reason"})
			continue
		}
		wctx, end := context.WithCancel(ctx)
		ends[c.WatchId] = end
		_, last, _, _ := n.past.at(0 + 1)
		next := c.StartRevision
		if next == 0 {
			next = last + 1
		}
		send(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: last}, WatchId: c.WatchId, Created: true})
		wg.Go(func() { n.serve(wctx, c, next, send) })
	}
}

func (n *watchNode) serve(ctx context.Context, c *pb.WatchCreateRequest, next int64, send func(*pb.WatchResponse)) {
	for ctx.Err() == nil {
		events, last, compacted, grown := n.past.at(next)
		if next < compacted {
			send(&pb.WatchResponse{WatchId: c.WatchId, Canceled: true, CompactRevision: compacted})
			return
		}
		if next > last {
			send(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: last}, WatchId: c.WatchId})
			select {
			case <-grown:
			case <-ctx.Done():
			}
			continue
		}
		next++
		var found []*mvccpb.Event
		for _, e := range events {
			if bytes.Equal(e.Kv.Key, c.Key) || len(c.RangeEnd) > 0 && bytes.Compare(e.Kv.Key, c.Key) >= 0 && (toTheEnd(c.RangeEnd) || bytes.Compare(e.Kv.Key, c.RangeEnd) < 0) {
				found = append(found, e)
			}
		}
		for len(found) > 1 && n.cut {
			send(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: last}, WatchId: c.WatchId, Events: found[:1], Fragment: true})
			found = found[1:]
		}
		if len(found) > 0 {
			send(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: last}, WatchId: c.WatchId, Events: found})
		}
	}
}

// follow reads a watch in a goroutine of its own, as text: a revision and its events.
func follow(ctx context.Context, k KV, o WatchOptions) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		for u, err := range k.Watch(ctx, o) {
			s := fmt.Sprint(u.Revision)
			for _, e := range u.Events {
				s += fmt.Sprintf(" %s=%s", e.Key, e.Value)
			}
			if err != nil {
				s = err.Error()
			}
			select {
			case out <- s:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func want(t *testing.T, from <-chan string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		select {
		case got := <-from:
			if got != line {
				t.Fatalf("%q, want %q", got, line)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing came, want %q", line)
		}
	}
}

// A watch from now begins with where it begins; one from a revision with that. What belongs to one revision comes at once, however
// it was cut on its way.
func TestWatch(t *testing.T) {
	h := newPast()
	h.write("0", "a", "b")
	n := startWatchNode(t, h, func(n *watchNode) { n.cut = true })
	c, ctx := newClient(t, n.addr), testContext(t)
	now := follow(ctx, c.KV, WatchOptions{})
	want(t, now, "1")
	then := follow(ctx, c.KV, WatchOptions{From: 1, Span: Key("b")})
	want(t, then, "1 b=0")
	h.write("1", "b", "a", "c")
	h.write("2", "a")
	h.write("3", "b")
	want(t, now, "2 b=1 a=1 c=1", "3 a=2", "4 b=3")
	want(t, then, "2 b=1", "4 b=3")
	if s := n.streams.Load(); s != 1 {
		t.Errorf("%d streams for two watches", s)
	}
	told := follow(ctx, c.KV, WatchOptions{Span: Key("c"), From: 3, Progress: true})
	want(t, told, "4")
	h.write("5", "z")
	want(t, told, "5")
}

// When a node is lost its watches go on at another from where they were; the stream ends with its last watch.
func TestWatchGoesOn(t *testing.T) {
	h := newPast()
	nodes := []*watchNode{startWatchNode(t, h), startWatchNode(t, h)}
	c, ctx := newClient(t, nodes[0].addr, nodes[1].addr), testContext(t)
	watching, enough := context.WithCancel(ctx)
	defer enough()
	a, b := follow(watching, c.KV, WatchOptions{}), follow(watching, c.KV, WatchOptions{From: 1, Span: Prefix("b")})
	want(t, a, "0")
	h.write("1", "a", "b/1")
	want(t, a, "1 a=1 b/1=1")
	want(t, b, "1 b/1=1")
	first, second := nodes[0], nodes[1]
	if first.open.Load() == 0 {
		first, second = second, first
	}
	first.server.Stop()
	h.write("2", "b/2")
	want(t, a, "2 b/2=2")
	want(t, b, "2 b/2=2")
	if s := second.streams.Load(); s != 1 {
		t.Errorf("%d streams to the second node", s)
	}
	enough()
	eventually(t, "the stream has ended", func() bool { return second.open.Load() == 0 })
	if len(c.watches.shared) != 0 {
		t.Errorf("streams are remembered: %v", c.watches.shared)
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	limit, tick := time.NewTimer(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not so: %s", what)
		}
	}
}

// What ends a watch for good is its last word.
func TestWatchEnds(t *testing.T) {
	h := newPast()
	for range 9 {
		h.write("", "a")
	}
	h.compacted = 7
	c := newClient(t, startWatchNode(t, h).addr)
	var errs []error
	for _, err := range c.Watch(testContext(t), WatchOptions{From: 3}) {
		errs = append(errs, err)
	}
	var compacted *Compacted
	if len(errs) != 1 || !errors.As(errs[0], &compacted) || compacted.Revision != 7 || !errors.Is(errs[0], ErrCompacted) {
		t.Errorf("compacted: %v", errs)
	}
	refusing := newClient(t, startWatchNode(t, h, func(n *watchNode) { n.refuse = true }).addr)
	want(t, follow(testContext(t), refusing.KV, WatchOptions{}), "the watch was refused: for a reason")

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, err := range newClient(t, nowhere(t)).Watch(short, WatchOptions{}) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody there: %v", err)
		}
	}
	closing := newClient(t, startWatchNode(t, h).addr)
	out := follow(testContext(t), closing.KV, WatchOptions{})
	want(t, out, "9")
	if err := closing.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, out, ErrClosed.Error())
}

// A watch whose caller is slow holds up nobody else, takes bounded memory, and misses nothing.
func TestSlowWatch(t *testing.T) {
	h := newPast()
	n := startWatchNode(t, h)
	c, ctx := newClient(t, n.addr), testContext(t)
	fast := follow(ctx, c.KV, WatchOptions{From: 1, Span: Key("small")})
	slow := follow(ctx, c.KV, WatchOptions{From: 1, Span: Key("large")})
	<-n.creates
	<-n.creates
	large := strings.Repeat("x", 100<<10)
	const rounds = 200 // 20 MB, and the windows of gRPC hold some more than one
	for i := range rounds {
		h.write(large, "large")
		r := h.write("v", "small")
		want(t, fast, fmt.Sprintf("%d small=v", r))
		if i < 2 {
			want(t, slow, fmt.Sprintf("%d large=%s", r-1, large))
		}
	}
	if len(n.creates) != 0 {
		t.Errorf("it goes on before its caller has come so far: %v", <-n.creates)
	}
	for i := 2; i < rounds; i++ {
		want(t, slow, fmt.Sprintf("%d large=%s", 2*i+1, large))
	}
	again := <-n.creates // it had to leave the stream that it shared
	if s := n.streams.Load(); s != 2 || again.StartRevision < 20 || string(again.Key) != "large" {
		t.Errorf("%d streams; it went on as %v", s, again)
	}
}

// A watch hands out every revision of its span once and whole, whatever its node does.
func TestWatchUnderLoss(t *testing.T) {
	h := newPast()
	addrs := make([]string, 3)
	nodes := make([]*watchNode, len(addrs))
	for i := range nodes {
		nodes[i] = startWatchNode(t, h, func(n *watchNode) { n.cut = true })
		addrs[i] = nodes[i].addr
	}
	c, ctx := newClient(t, addrs...), testContext(t)
	const last = 3000
	go func() {
		for i := range last {
			h.write(fmt.Sprint(i), "a", "b", "c")
			if i == last/3 {
				nodes[0].server.Stop()
			}
			if i == last/2 {
				nodes[1].server.Stop()
			}
		}
	}()
	var seen []int64
	for u, err := range c.Watch(ctx, WatchOptions{From: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Events) != 3 {
			t.Fatalf("%d events of revision %d", len(u.Events), u.Revision)
		}
		if seen = append(seen, u.Revision); u.Revision == last {
			break
		}
	}
	if len(seen) != last || !slices.IsSorted(seen) || seen[0] != 1 {
		t.Errorf("%d revisions", len(seen))
	}
}

// The queue of a watch that nobody reads holds what it may, and one response.
func TestWatchQueueBounded(t *testing.T) {
	w := &watcher{news: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	w.begun(0)
	r := &pb.WatchResponse{Events: []*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("k"), Value: make([]byte, 10_000)}}}}
	n := 0
	for w.receive(r) <= base.ClientWatchBytes {
		n++
		r.Events[0].Kv.ModRevision++
	}
	if n < 90 || n > 105 {
		t.Errorf("%d of 10 kB", n)
	}
	for len(w.queue) > 0 {
		if _, err := w.take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if w.bytes != 0 {
		t.Errorf("an empty queue of %d bytes", w.bytes)
	}
}
