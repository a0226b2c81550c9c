package sim

import (
	"math"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// class is what a frame is for. Links can be made to fail for one class alone.
type class uint8

const (
	classRaft    class = iota // may be lost, doubled, reordered
	classControl              // requests between nodes, and of clients: in order, on a connection
	classBulk                 // snapshots
	classSupport              // what nodes promise each other: as classRaft
	classes
)

// network carries frames between nodes, and between clients and nodes: the clients are one more endpoint, the last.
type network struct {
	w     *world
	plan  NetworkPlan
	rand  *base.Rand
	links [][]link // [from][to]
}

// link is one direction between two endpoints.
type link struct {
	cuts    [classes]int // how many faults cut it
	holds   int          // how many faults hold what is sent on it
	held    []func()     // what they hold, bounded by holdLimit
	delay   time.Duration
	jitter  time.Duration
	loss    int // in a million, beyond the plan's
	double  int
	reorder int
	last    [classes]time.Duration // arrival of the newest frame: the next one does not overtake it
}

// holdLimit is how many frames a held link keeps: what a connection's buffers hold.
const holdLimit = 4096

func newNetwork(w *world, plan NetworkPlan, endpoints int) *network {
	n := &network{w: w, plan: plan, rand: w.stream("network")}
	for range endpoints {
		n.links = append(n.links, make([]link, endpoints))
	}
	return n
}

// clients is the endpoint of all clients.
func (n *network) clients() int { return len(n.links) - 1 }

// exponential draws from the distribution with that mean, at most ten times it.
func exponential(r *base.Rand, mean time.Duration) time.Duration {
	if mean <= 0 {
		return 0
	}
	u := (float64(r.Uint64()>>11) + 1) / (1 << 53) // (0, 1]
	return min(time.Duration(-math.Log(u)*float64(mean)), 10*mean)
}

// chance draws whether something of that many in a million befalls.
func chance(r *base.Rand, million int) bool {
	return million > 0 && r.Int63n(1_000_000) < int64(million)
}

func lossy(c class) bool { return c == classRaft || c == classSupport }

// send has arrive called when the frame reaches the other end, if it does: once, or twice for a doubled one. size is in
// bytes. It reports false if the frame was lost for certain; the sender does not learn that.
func (n *network) send(from, to int, c class, size int, arrive func()) bool {
	l := &n.links[from][to]
	if l.cuts[c] > 0 || lossy(c) && chance(n.rand, n.plan.Loss+l.loss) {
		n.w.count("frames lost")
		return false
	}
	n.deliver(l, c, arrive)
	if lossy(c) && chance(n.rand, n.plan.Duplicate+l.double) {
		n.w.count("frames doubled")
		n.deliver(l, c, arrive)
	}
	return true
}

func (n *network) deliver(l *link, c class, arrive func()) {
	at := n.w.now + n.plan.Delay + l.delay + exponential(n.rand, n.plan.Jitter+l.jitter)
	if lossy(c) && chance(n.rand, n.plan.Reorder+l.reorder) {
		n.w.count("frames reordered")
		at += exponential(n.rand, 4*(n.plan.Delay+n.plan.Jitter+l.delay))
	} else {
		at = max(at, l.last[c]+1)
		l.last[c] = at
	}
	n.w.queue.put(at, func() {
		switch {
		case l.cuts[c] > 0: // it was under way when the link was cut
			n.w.count("frames lost")
		case l.holds > 0 && len(l.held) < holdLimit:
			l.held = append(l.held, arrive)
		default:
			arrive()
		}
	})
}

// open says whether frames of the class pass from one endpoint to another.
func (n *network) open(from, to int, c class) bool { return n.links[from][to].cuts[c] == 0 }

// speaks says whether a node reaches some other, and is reached by it, with frames of the class.
func (n *network) speaks(node, nodes int, c class) bool {
	for o := range nodes {
		if o != node && n.open(node, o, c) && n.open(o, node, c) {
			return true
		}
	}
	return false
}

// cut makes a direction lose everything of the given classes, until mend. Cuts are counted: two faults may overlap.
func (n *network) cut(from, to int, cs ...class) {
	for _, c := range cs {
		n.links[from][to].cuts[c]++
	}
}

func (n *network) mend(from, to int, cs ...class) {
	for _, c := range cs {
		n.links[from][to].cuts[c]--
	}
}

// hold keeps what arrives on a direction until as many releases; then it arrives at once, in order.
func (n *network) hold(from, to int) { n.links[from][to].holds++ }

func (n *network) release(from, to int) {
	l := &n.links[from][to]
	if l.holds--; l.holds > 0 {
		return
	}
	held := l.held
	l.held = nil
	for _, arrive := range held {
		arrive()
	}
}
