package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/transport"
)

// queueLen bounds the frames between two nodes. Frames grow with the load and not in number: a handful is under way.
const queueLen = 1024

// network joins the nodes: a queue for each direction between two of them, and a goroutine that hands what arrives to
// the receiver, as a connection's reader would.
type network struct {
	queues  map[link]chan []byte
	done    chan struct{}
	readers sync.WaitGroup
}

type link struct{ from, to base.NodeID }

func newNetwork() *network {
	n := &network{queues: map[link]chan []byte{}, done: make(chan struct{})}
	for from := range base.NodeID(closed.Nodes) {
		for to := range base.NodeID(closed.Nodes) {
			if from != to {
				n.queues[link{from + 1, to + 1}] = make(chan []byte, queueLen)
			}
		}
	}
	return n
}

// start lets frames arrive. stores[i] is node i+1.
func (n *network) start(stores []*store.Store) {
	for l, queue := range n.queues {
		n.readers.Go(func() { n.read(l, queue, stores[l.to-1]) })
	}
}

func (n *network) read(l link, queue <-chan []byte, to *store.Store) {
	for {
		select {
		case <-n.done:
			return
		case frame := <-queue:
			if err := to.HandleRaft(l.from, frame); err != nil {
				panic(fmt.Sprintf("a frame from %s was not understood by %s: %v", l.from, l.to, err)) // nothing in between changes it
			}
		}
	}
}

func (n *network) stop() {
	close(n.done)
	n.readers.Wait()
}

// end is the network as one node sees it.
func (n *network) end(node base.NodeID) transport.Transport { return end{n, node} }

type end struct {
	network *network
	node    base.NodeID
}

// Send implements transport.Transport.
func (e end) Send(to base.NodeID, _ transport.Class, frame []byte) error {
	queue, ok := e.network.queues[link{e.node, to}]
	if !ok {
		return fmt.Errorf("%s: %w", to, transport.ErrUnreachable)
	}
	select {
	case queue <- frame:
		return nil
	default:
		return &base.Throttled{What: "frames", RetryAfter: base.ThrottleRetry}
	}
}

// OpenBulk implements transport.Transport: nobody falls so far behind here that it needs a snapshot.
func (e end) OpenBulk(_ context.Context, to base.NodeID) (transport.BulkStream, error) {
	return nil, fmt.Errorf("%s: no bulk streams: %w", to, transport.ErrUnreachable)
}

// Peers implements transport.Transport.
func (e end) Peers() []transport.PeerStatus { return nil }

// Close implements transport.Transport; the network is stopped as a whole.
func (e end) Close() {}
