// Package transport moves frames of bytes between nodes, by class. A frame's contents are opaque to it.
//
// Two transports stand behind the interface: gRPC streams, and a network in memory for tests; one conformance
// suite (transporttest) holds for both.
package transport

import (
	"context"

	"github.com/cairndb/cairn/internal/base"
)

// Class keeps kinds of traffic apart: one class never waits for another.
type Class uint8

// The classes. Raft frames may be dropped when a queue is full: Raft sends again. Control frames carry requests
// between nodes and their answers; a full queue is an error to the caller. Support frames are asked again.
const (
	Raft Class = iota + 1
	Control
	Support // what nodes promise each other: a few bytes, several times a second
)

// Classes is how many there are, and the last of them.
const Classes = Support

// Transport sends to other nodes. All methods may be called from any goroutine.
type Transport interface {
	// Send queues a frame and returns at once. It takes ownership of the frame. It fails with *base.Throttled if
	// the queue is full, and with ErrUnreachable (wrapped with the reason) while the peer's breaker is open or its
	// address is not known: then nothing was sent. Without an error the frame may still be lost.
	Send(to base.NodeID, class Class, frame []byte) error
	// OpenBulk opens a stream with flow control. ctx bounds the stream's life.
	OpenBulk(ctx context.Context, to base.NodeID) (BulkStream, error)
	// Peers says how each peer that was ever sent to is doing.
	Peers() []PeerStatus
	Close()
}

// BulkStream is one end of a stream. One goroutine may send while another receives.
type BulkStream interface {
	Send(message []byte) error
	// Recv returns io.EOF after the other end's CloseSend (on the opening end: after the handler returned nil).
	Recv() ([]byte, error)
	CloseSend() error
}

// Handler is what the receiving node does with what arrives.
type Handler interface {
	// HandleFrame is called in the order in which one sender sent in one class. The handler may keep the frame.
	// It must not block for long: it holds up that sender in that class.
	HandleFrame(from base.NodeID, class Class, frame []byte)
	// HandleBulk serves one stream; the stream ends when it returns.
	HandleBulk(ctx context.Context, from base.NodeID, s BulkStream) error
	// PeerAddress is told the address that a peer gave for itself when it opened a stream.
	PeerAddress(node base.NodeID, incarnation base.Incarnation, address string)
	// PeerDown is told when a peer's breaker opens, PeerUp when it is reached (again).
	PeerDown(node base.NodeID, reason error)
	PeerUp(node base.NodeID)
}

// Resolver knows where nodes are.
type Resolver interface {
	Address(base.NodeID) (string, bool)
}

// PeerStatus is for people and metrics.
type PeerStatus struct {
	Node                             base.NodeID
	Address                          string
	Up                               bool
	LastError                        string
	Queued, Sent, Dropped, SentBytes uint64
}
