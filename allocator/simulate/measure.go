package simulate

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// phase is a Phase that goes on, with what was when it began.
type phase struct {
	Phase
	began  counters
	before [][]int32     // replicas of each range, by its place
	placed map[spot]bool // replicas that were moved to where they are
}

// begin ends the phase that goes on, and begins the next.
func (c *cluster) begin(event string) {
	c.close()
	p := &phase{Phase: Phase{Event: event, Seconds: c.now.Seconds()}, began: c.counters, placed: map[spot]bool{}}
	p.before = make([][]int32, len(c.groups))
	for i := range c.groups {
		p.before[i] = c.groups[i].replicas
	}
	c.phases = append(c.phases, p)
}

// close fills in what has become of the phase that goes on.
func (c *cluster) close() {
	if len(c.phases) == 0 {
		return
	}
	p := c.phases[len(c.phases)-1]
	c.measure(p)
	p.before, p.placed = nil, nil
}

// measure brings a phase up to now.
func (c *cluster) measure(p *phase) {
	p.Moves, p.Transfers, p.Bytes = c.moved-p.began.moved, c.transfers-p.began.transfers, c.bytesMoved-p.began.bytesMoved
	p.Twice, p.Refused = c.twice-p.began.twice, c.refused-p.began.refused
	p.Rest = max(0, c.lastActive.Seconds()-p.Seconds)
	p.Resting = len(c.moves) == 0 && len(c.running) == 0 && c.quiet() >= 3*c.s.Ask
	p.Imbalance = c.imbalance()
	p.Bound = c.bound(p.before)
}

// imbalance is the largest over the mean. A node that holds nothing yet takes part: that is what it is to be.
func (c *cluster) imbalance() Imbalance {
	var largest, sum [4]float64
	weights := 0.0
	for i := range c.nodes {
		n := &c.nodes[i]
		if !n.counts() {
			continue
		}
		w := n.weight()
		weights += w
		for d, v := range [4]float64{float64(n.count), float64(n.bytes), n.load, float64(n.leaders)} {
			largest[d] = max(largest[d], v/w)
			sum[d] += v
		}
	}
	over := func(d int) float64 {
		if sum[d] <= 0 {
			return 1
		}
		return largest[d] * weights / sum[d]
	}
	return Imbalance{Count: over(0), Bytes: over(1), Load: over(2), Leaders: over(3)}
}

// look samples.
func (c *cluster) look() Sample {
	s := Sample{Seconds: c.now.Seconds(), Moves: c.moved, UnderWay: len(c.moves), Bytes: c.bytesMoved, Violations: c.breaking,
		Unavailable: c.unavailable, Under: c.under, Imbalance: c.imbalance(), Fullness: c.fullness()}
	s.PerNode = make([]NodeSample, len(c.nodes))
	for i := range c.nodes {
		n := &c.nodes[i]
		s.PerNode[i] = NodeSample{Count: n.count, Leaders: n.leaders, Bytes: n.bytes, Load: n.load, Counts: n.counts()}
	}
	return s
}

func (c *cluster) fullness() (most float64) {
	for i := range c.nodes {
		if n := &c.nodes[i]; n.Disk > 0 {
			most = max(most, float64(n.bytes)/float64(n.Disk))
		}
	}
	return most
}

// sample keeps how the cluster is. When there are too many, every other one is dropped, and fewer are taken from then on.
func (c *cluster) sample() {
	s := c.look()
	if n := len(c.samples); n > 0 && c.samples[n-1].Seconds == s.Seconds {
		return
	}
	if c.samples = append(c.samples, s); len(c.samples) < base.SimSamples {
		return
	}
	kept := c.samples[:0]
	for i, s := range c.samples {
		if i%2 == 0 {
			kept = append(kept, s)
		}
	}
	c.samples = kept
	c.every *= 2
}

// watch keeps the worst of every step.
func (c *cluster) watch() {
	w := &c.worst
	w.Violations, w.Unavailable, w.Under = max(w.Violations, c.breaking), max(w.Unavailable, c.unavailable), max(w.Under, c.under)
	i := c.imbalance()
	w.Imbalance.Count, w.Imbalance.Bytes = max(w.Imbalance.Count, i.Count), max(w.Imbalance.Bytes, i.Bytes)
	w.Imbalance.Load, w.Imbalance.Leaders = max(w.Imbalance.Load, i.Load), max(w.Imbalance.Leaders, i.Leaders)
}

// due says whether a moment of a rhythm lies in this step.
func (c *cluster) due(every time.Duration) bool { return c.now%every < c.s.Step }
