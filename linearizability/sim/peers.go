package sim

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// peers is what a process's transport knows of the other nodes: a connection that says nothing for a while is taken to be
// broken, and one that ends is noticed at once.
type peers struct {
	down []bool
	last []time.Duration // true time at which each was last heard of
}

// As the transport's keepalive.
const (
	beatInterval = 500 * time.Millisecond
	beatLost     = 3 * time.Second
)

func newPeers(n *node) peers {
	p := peers{down: make([]bool, len(n.w.nodes)), last: make([]time.Duration, len(n.w.nodes))}
	for i := range p.last {
		p.last[i] = n.w.now
	}
	return p
}

// heard is told of every frame that arrives from a node.
func (p *process) heard(i int) {
	p.peers.down[i], p.peers.last[i] = false, p.n.w.now
}

// beat keeps the connections to the others alive, and gives up those that are silent.
func (p *process) beat() {
	n, w := p.n, p.n.w
	for i, o := range w.nodes {
		if i == n.i {
			continue
		}
		w.net.send(n.i, i, classControl, 0, func() {
			if q := o.process; q != nil {
				q.do(func() { q.heard(n.i) })
			}
		})
		if !p.peers.down[i] && w.now-p.peers.last[i] > beatLost {
			p.peerDown(i, 0)
		}
	}
	p.later(beatInterval, p.beat)
}

// peerDown is what the transport tells of a node that cannot be reached. A reset is of the connections to one life of it, and
// may come late: another life may have been spoken to since. 0: of all.
func (p *process) peerDown(i int, life base.Incarnation) {
	p.n.w.count("connections given up")
	p.n.w.tracef("%s gives the connection to node %d up (life %d), heard of last at %s", p.n.id, i+1, life, p.peers.last[i])
	if life == 0 || p.n.w.nodes[i].incarnation == life {
		p.peers.down[i] = true
		p.store.Unreachable(base.NodeID(i + 1))
	}
	p.gateway.peerDown(base.NodeID(i+1), life)
}

// peerGone has the others learn that a process ended: their connections to it are reset, where the network lets it.
func (w *world) peerGone(i int) {
	life := w.nodes[i].incarnation
	for _, o := range w.nodes {
		if o.i == i || o.process == nil {
			continue
		}
		p := o.process
		w.net.send(i, o.i, classControl, 0, func() { p.do(func() { p.peerDown(i, life) }) })
	}
}
