package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/cairndb/cairn/api/transportpb"
	"github.com/cairndb/cairn/internal/base"
)

// peer is the way to one node: a queue and a sender for each class, and one breaker for all. The breaker is open while
// no stream stands: what is sent then fails at once, and a sender tries to connect, with growing pauses.
type peer struct {
	t  *GRPC
	id base.NodeID

	mu      sync.Mutex
	queues  [Classes + 1]*queue
	bulk    *grpc.ClientConn
	address string // that bulk is connected to
	up      bool
	tried   bool  // whether it was ever up or down
	err     error // why it is down
	sent    uint64
	bytes   uint64
	dropped uint64
}

// queue holds the frames of one class that wait for the sender.
type queue struct {
	class  Class
	frames [][]byte
	bytes  int
	signal chan struct{} // capacity 1
}

func newPeer(t *GRPC, id base.NodeID) *peer { return &peer{t: t, id: id} }

// send queues a frame, and starts the class's sender at the first.
func (p *peer) send(class Class, frame []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tried && !p.up {
		p.dropped++
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, p.id, p.err)
	}
	q := p.queues[class]
	if q == nil {
		q = &queue{class: class, signal: make(chan struct{}, 1)}
		p.queues[class] = q
		p.t.wg.Go(func() { p.run(q) })
	}
	if len(q.frames) >= base.FrameQueueLen || q.bytes+len(frame) > base.FrameQueueBytes {
		p.dropped++
		return &base.Throttled{What: "frames to " + p.id.String(), RetryAfter: base.ThrottleRetry}
	}
	q.frames = append(q.frames, frame)
	q.bytes += len(frame)
	select {
	case q.signal <- struct{}{}:
	default:
	}
	return nil
}

// run is the sender of one class: connect, send what comes until the stream breaks, and again.
func (p *peer) run(q *queue) {
	pause := base.ReconnectMin
	for p.t.ctx.Err() == nil {
		began := time.Now()
		err := p.connectAndSend(q)
		if p.t.ctx.Err() != nil {
			return
		}
		p.down(q, err)
		if time.Since(began) > base.ReconnectMax {
			pause = base.ReconnectMin // it stood for a while: what broke it is new
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-timer.C:
		case <-p.t.ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, base.ReconnectMax)
	}
}

// connectAndSend returns why the stream broke.
func (p *peer) connectAndSend(q *queue) error {
	address, ok := p.t.cfg.Resolver.Address(p.id)
	if !ok {
		return fmt.Errorf("its address is not known")
	}
	conn, err := dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(p.t.ctx)
	defer cancel()
	s, err := transportpb.NewTransportClient(conn).Frames(ctx)
	if err != nil {
		return err
	}
	// The receiver says something only when it ends the stream: then nothing more will arrive.
	ended := make(chan error, 1)
	p.t.wg.Go(func() {
		err := s.RecvMsg(&transportpb.FramesDone{})
		if err == nil {
			err = fmt.Errorf("%s ended the stream", p.id)
		}
		ended <- err
	})
	send := func(frame *transportpb.Frame) error {
		err := s.Send(frame)
		if errors.Is(err, io.EOF) {
			err = <-ended // Send says only that the stream is over; why, is heard by the one who receives
		}
		return err
	}
	if err := send(&transportpb.Frame{Hello: p.t.hello(p.id, q.class)}); err != nil {
		return err
	}
	p.isUp()
	var frame transportpb.Frame
	for {
		select {
		case <-q.signal:
		case err := <-ended:
			return err
		}
		for _, payload := range p.takeAll(q) {
			frame.Payload = payload
			if err := send(&frame); err != nil {
				return err
			}
		}
	}
}

// dial makes a connection that is opened at the first stream. gRPC's own pauses are short: the breaker has its own.
func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: base.ReconnectMin, Multiplier: 2, MaxDelay: base.ReconnectMax},
			MinConnectTimeout: base.ConnectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: base.PeerKeepAlive, Timeout: base.PeerKeepAliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(base.MaxFrameBytes+base.RequestOverheadBytes),
			grpc.MaxCallSendMsgSize(base.MaxFrameBytes+base.RequestOverheadBytes)),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20),
	)
}

func (p *peer) takeAll(q *queue) [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	frames := q.frames
	p.sent += uint64(len(frames))
	p.bytes += uint64(q.bytes)
	q.frames, q.bytes = nil, 0
	return frames
}

// isUp closes the breaker.
func (p *peer) isUp() {
	p.mu.Lock()
	was := p.up
	p.up, p.tried, p.err = true, true, nil
	p.mu.Unlock()
	if !was {
		p.t.cfg.Handler.PeerUp(p.id)
	}
}

// down opens the breaker and drops what waits in the class whose stream broke.
func (p *peer) down(q *queue, err error) {
	p.mu.Lock()
	was := p.up || !p.tried
	p.up, p.tried, p.err = false, true, err
	p.dropped += uint64(len(q.frames))
	q.frames, q.bytes = nil, 0
	p.mu.Unlock()
	if was {
		p.t.cfg.Handler.PeerDown(p.id, err)
	}
}

// bulkConn is the connection for bulk streams, made anew when the node's address changed.
func (p *peer) bulkConn() (*grpc.ClientConn, error) {
	address, ok := p.t.cfg.Resolver.Address(p.id)
	if !ok {
		return nil, fmt.Errorf("%w: %s: its address is not known", ErrUnreachable, p.id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bulk != nil && p.address == address {
		return p.bulk, nil
	}
	conn, err := dial(address)
	if err != nil {
		return nil, err
	}
	if p.bulk != nil {
		_ = p.bulk.Close() // streams on it end with the old address
	}
	p.bulk, p.address = conn, address
	return conn, nil
}

func (p *peer) status() PeerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PeerStatus{Node: p.id, Up: p.up || !p.tried, Sent: p.sent, SentBytes: p.bytes, Dropped: p.dropped}
	s.Address, _ = p.t.cfg.Resolver.Address(p.id)
	if p.err != nil {
		s.LastError = p.err.Error()
	}
	for _, q := range p.queues {
		if q != nil {
			s.Queued += uint64(len(q.frames))
		}
	}
	return s
}

func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bulk != nil {
		_ = p.bulk.Close() // nothing more is sent
		p.bulk = nil
	}
}
