package client

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"

	"github.com/cairndb/cairn/internal/base"
)

// conns are the connections to nodes, one for each address, opened when it is first needed. What is not used goes idle by
// itself; and when there are too many, the one that was used longest ago and has nothing under way is closed.
type conns struct {
	cfg *Config

	mu     sync.Mutex
	byAddr map[string]*conn
	clock  uint64 // counts uses
	closed bool
}

// conn is a connection to one node.
type conn struct {
	addr string
	cc   *grpc.ClientConn

	used uint64      // conns.clock at the last use
	busy int         // requests under way
	down atomic.Bool // it could not be had when it was last waited for: others are tried first
}

func newConns(cfg *Config) *conns { return &conns{cfg: cfg, byAddr: make(map[string]*conn)} }

// take returns the connection to an address, which the caller gives back.
func (c *conns) take(addr string) (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	n := c.byAddr[addr]
	if n == nil {
		if len(c.byAddr) >= base.ClientNodes {
			c.evict()
		}
		cc, err := grpc.NewClient(addr, c.options()...)
		if err != nil {
			return nil, err
		}
		n = &conn{addr: addr, cc: cc}
		c.byAddr[addr] = n
	}
	c.clock++
	n.used = c.clock
	n.busy++
	return n, nil
}

func (c *conns) give(n *conn) {
	c.mu.Lock()
	n.busy--
	c.mu.Unlock()
}

// evict closes the connection that is needed least. If all have requests under way, one more is opened.
func (c *conns) evict() {
	var oldest *conn
	for _, n := range c.byAddr {
		if n.busy == 0 && (oldest == nil || n.used < oldest.used) {
			oldest = n
		}
	}
	if oldest != nil {
		delete(c.byAddr, oldest.addr)
		_ = oldest.cc.Close() // nothing is under way on it
	}
}

// options are those of every connection. gRPC sends nothing again by itself but what certainly did not reach a node: whether
// a request may be sent again is decided in outcome.go alone.
func (c *conns) options() []grpc.DialOption {
	return append(slices.Clone(c.cfg.DialOptions),
		grpc.WithTransportCredentials(c.cfg.Credentials),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: base.ReconnectMin, Multiplier: 2, Jitter: 0.2, MaxDelay: base.ReconnectMax},
			MinConnectTimeout: c.cfg.DialTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: base.PeerKeepAlive, Timeout: base.PeerKeepAliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(base.ClientMaxAnswerBytes), grpc.MaxCallSendMsgSize(base.MaxFrameBytes)),
		grpc.WithInitialWindowSize(base.ServerWindowBytes),
		grpc.WithInitialConnWindowSize(base.ServerWindowBytes),
	)
}

func (c *conns) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, n := range c.byAddr {
		_ = n.cc.Close() // it fails only if it was closed before
	}
	clear(c.byAddr)
}

// up says whether a request can leave now; if not, the connection is begun.
func (n *conn) up() bool {
	switch n.cc.GetState() {
	case connectivity.Ready:
		n.down.Store(false)
		return true
	case connectivity.Idle:
		n.cc.Connect()
	}
	return false
}

// wait returns when a request can leave, or false when the attempt to connect failed or ctx ended.
func (n *conn) wait(ctx context.Context) bool {
	for !n.up() {
		s := n.cc.GetState()
		if s == connectivity.TransientFailure || s == connectivity.Shutdown || s != connectivity.Ready && !n.cc.WaitForStateChange(ctx, s) {
			n.down.Store(true)
			return false
		}
	}
	return true
}
