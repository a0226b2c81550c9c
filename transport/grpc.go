package transport

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/transportpb"
	"github.com/cairndb/cairn/internal/base"
)

// GRPC moves frames over gRPC streams: for each peer and class one stream in each direction, on a connection of its
// own, so that a class that is held up by flow control holds up nothing else.
type GRPC struct {
	transportpb.UnimplementedTransportServer
	cfg GRPCConfig

	mu     sync.Mutex
	peers  map[base.NodeID]*peer
	heard  map[base.NodeID]*incoming
	closed bool

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var _ Transport = (*GRPC)(nil)

// incoming is what is known of a node that opened streams to this one.
type incoming struct {
	incarnation base.Incarnation
	cancels     map[int]context.CancelFunc // of its streams, by a number
	next        int
}

// NewGRPC makes a transport. Register puts its service into the node's server.
func NewGRPC(cfg GRPCConfig) (*GRPC, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &GRPC{
		cfg: cfg, peers: make(map[base.NodeID]*peer), heard: make(map[base.NodeID]*incoming), ctx: ctx, cancel: cancel,
	}, nil
}

// Register puts the receiving side into a server.
func (t *GRPC) Register(r grpc.ServiceRegistrar) { transportpb.RegisterTransportServer(r, t) }

// Send implements Transport.
func (t *GRPC) Send(to base.NodeID, class Class, frame []byte) error {
	if len(frame) > base.MaxFrameBytes {
		return fmt.Errorf("a frame of %d bytes; at most %d are sent", len(frame), base.MaxFrameBytes)
	}
	p, err := t.peer(to)
	if err != nil {
		return err
	}
	return p.send(class, frame)
}

func (t *GRPC) peer(id base.NodeID) (*peer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	p := t.peers[id]
	if p == nil {
		p = newPeer(t, id)
		t.peers[id] = p
	}
	return p, nil
}

// hello opens a stream to a node.
func (t *GRPC) hello(to base.NodeID, class Class) *transportpb.Hello {
	return &transportpb.Hello{
		ClusterId: t.cfg.ClusterID, FromNode: uint64(t.cfg.Node), FromIncarnation: uint64(t.cfg.Incarnation),
		FromAddress: t.cfg.Address, ToNode: uint64(to), Class: uint32(class),
	}
}

// OpenBulk implements Transport.
func (t *GRPC) OpenBulk(ctx context.Context, to base.NodeID) (BulkStream, error) {
	p, err := t.peer(to)
	if err != nil {
		return nil, err
	}
	conn, err := p.bulkConn()
	if err != nil {
		return nil, err
	}
	s, err := transportpb.NewTransportClient(conn).Bulk(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	}
	if err := s.Send(&transportpb.BulkMessage{Hello: t.hello(to, 0)}); err != nil {
		_, err = s.Recv() // the status says why
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	}
	return bulkClient{s}, nil
}

// Peers implements Transport.
func (t *GRPC) Peers() []PeerStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]PeerStatus, 0, len(t.peers))
	for _, p := range t.peers {
		out = append(out, p.status())
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return int(int64(a.Node) - int64(b.Node)) })
	return out
}

// Close ends all streams and waits for the goroutines behind them.
func (t *GRPC) Close() {
	t.mu.Lock()
	t.closed = true
	t.cancel()
	for _, p := range t.peers {
		p.close()
	}
	t.mu.Unlock()
	t.wg.Wait()
}

// Frames implements the service: one class of one sender's frames, in order.
func (t *GRPC) Frames(s grpc.ClientStreamingServer[transportpb.Frame, transportpb.FramesDone]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	class := Class(first.GetHello().GetClass())
	if class < Raft || class > Classes {
		return status.Errorf(codes.InvalidArgument, "class %d is not known", class)
	}
	ctx, from, leave, err := t.enter(s.Context(), first.GetHello())
	if err != nil {
		return err
	}
	defer leave()
	// A stream that was replaced, or whose node stops, ends at once, also while nothing comes on it. Returning ends the
	// stream, and with it the receiving goroutine.
	ended := make(chan error, 1)
	t.wg.Go(func() { ended <- t.receive(s, from, class, first.Payload) })
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return status.Error(codes.Aborted, "the stream was replaced, or the node stops")
	}
}

// receive hands frames to the handler until the stream ends.
func (t *GRPC) receive(s grpc.ClientStreamingServer[transportpb.Frame, transportpb.FramesDone], from base.NodeID, class Class, payload []byte) error {
	for {
		if len(payload) > 0 {
			t.cfg.Handler.HandleFrame(from, class, payload)
		}
		f, err := s.Recv()
		if err != nil {
			return err
		}
		payload = f.Payload
	}
}

// Bulk implements the service: one stream with flow control.
func (t *GRPC) Bulk(s grpc.BidiStreamingServer[transportpb.BulkMessage, transportpb.BulkMessage]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	ctx, from, leave, err := t.enter(s.Context(), first.GetHello())
	if err != nil {
		return err
	}
	defer leave()
	return t.cfg.Handler.HandleBulk(ctx, from, bulkServer{s})
}

// enter checks who opens a stream. A newer start of a node ends the streams of the older one; an older one is refused.
func (t *GRPC) enter(ctx context.Context, h *transportpb.Hello) (context.Context, base.NodeID, func(), error) {
	from, inc := base.NodeID(h.GetFromNode()), base.Incarnation(h.GetFromIncarnation())
	switch {
	case h == nil || from == 0 || inc == 0:
		return nil, 0, nil, status.Error(codes.InvalidArgument, "a stream begins with a hello that names its node")
	case h.ClusterId != t.cfg.ClusterID:
		return nil, 0, nil, status.Errorf(codes.FailedPrecondition, "%s is of cluster %x, and this node of cluster %x",
			from, h.ClusterId, t.cfg.ClusterID)
	case base.NodeID(h.ToNode) != t.cfg.Node:
		return nil, 0, nil, status.Errorf(codes.FailedPrecondition, "%s looks for node %d here, and this is %s",
			from, h.ToNode, t.cfg.Node)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, 0, nil, status.Error(codes.Unavailable, ErrClosed.Error())
	}
	in := t.heard[from]
	if in == nil {
		in = &incoming{cancels: make(map[int]context.CancelFunc)}
		t.heard[from] = in
	}
	switch {
	case inc < in.incarnation:
		return nil, 0, nil, status.Errorf(codes.FailedPrecondition, "start %d of %s is over: start %d was heard", inc, from, in.incarnation)
	case inc > in.incarnation:
		for _, cancel := range in.cancels {
			cancel()
		}
		in.incarnation = inc
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.ctx, cancel)
	number := in.next
	in.next++
	in.cancels[number] = cancel
	t.wg.Add(1) // under the lock, after closed was seen to be false: Close waits for this stream
	t.cfg.Handler.PeerAddress(from, inc, h.FromAddress)
	return ctx, from, func() {
		stop()
		cancel()
		t.mu.Lock()
		delete(in.cancels, number)
		t.mu.Unlock()
		t.wg.Done()
	}, nil
}

type bulkClient struct {
	s grpc.BidiStreamingClient[transportpb.BulkMessage, transportpb.BulkMessage]
}

func (b bulkClient) Send(m []byte) error { return b.s.Send(&transportpb.BulkMessage{Payload: m}) }

func (b bulkClient) Recv() ([]byte, error) {
	m, err := b.s.Recv()
	return m.GetPayload(), err
}

func (b bulkClient) CloseSend() error { return b.s.CloseSend() }

type bulkServer struct {
	s grpc.BidiStreamingServer[transportpb.BulkMessage, transportpb.BulkMessage]
}

func (b bulkServer) Send(m []byte) error { return b.s.Send(&transportpb.BulkMessage{Payload: m}) }

func (b bulkServer) Recv() ([]byte, error) {
	m, err := b.s.Recv()
	return m.GetPayload(), err
}

func (b bulkServer) CloseSend() error { return nil }
