package allocator

import "math"

// Two levels are evened out: what nodes hold, and what they lead. Each begins when some node is further from its share than the
// policy's imbalance, and goes on until all are within a quarter of it, or nothing helps: so what varies a little moves nothing, and
// what is moved is moved once, and far enough.
const (
	levelReplicas = iota
	levelLeaders
	levelLoad // as leaders, by moving replicas
	levels
)

// countOf and sumOf are a level's two dimensions: how many there are, and how much that comes to.
func countOf(level int) int { return 2 * min(level, levelLeaders) }
func sumOf(level int) int   { return countOf(level) + 1 }

const (
	stopShare = 0.25
	gapShare  = 0.5  // of the imbalance, that two nodes differ by at least
	stirShare = 0.25 // of the imbalance, by which a node has changed so much that it is worth another look
)

// tilt is how uneven one level is, kept up to date while a pass evens it out.
type tilt struct {
	s        *Snapshot
	m        *means
	from     int // the first of the level's two dimensions
	band     float64
	pressure []float64 // by slot; of nodes that do not give, or were tried in vain, -1
	coming   bool      // replicas are still to come from nodes that are emptied: so one that holds too little is none to worry about
	odd      []bool    // outside of the band
	odds     int
}

// uneven says how uneven a level is if something is to be done about it, else nil.
func (p *pass) uneven(level int) *tilt {
	s := p.s
	l := &s.leveling[level]
	t := &tilt{s: s, coming: level == levelReplicas && s.repairs(), m: &p.means, from: countOf(level), band: s.policy.Imbalance, pressure: make([]float64, len(s.nodes)), odd: make([]bool, len(s.nodes))}
	if l.on {
		t.band *= stopShare
	}
	for i := range t.pressure {
		t.pressure[i] = -1
	}
	for _, at := range p.means.pool {
		t.update(at)
	}
	if t.odds > 0 && !l.on {
		l.on = true
		return p.uneven(level) // by the narrower band
	}
	if t.odds == 0 {
		l.on = false
		return nil
	}
	p.lowest(level)
	for _, at := range p.means.pool {
		if p.isBarren(level, at) {
			t.exhausted(at)
		}
	}
	return t
}

// repairs says whether replicas wait to come to nodes for a goal before balance, and for no more than their turn.
func (s *Snapshot) repairs() bool {
	waiting := 0
	for g := GoalQuorum; g <= GoalFactor; g++ {
		waiting += len(s.pending[bucketOf(g, true)]) + len(s.pending[bucketOf(g, false)])
		for w, t := range s.why[g] {
			if w := why(w); w != whyMoves && w != whyTargetsBusy && w != whySourceBusy && w != whyStrained {
				waiting -= t.count
			}
		}
	}
	return waiting > 0
}

// update follows what the node holds.
func (t *tilt) update(at slot) {
	n := &t.s.nodes[at]
	if !n.pooled() {
		return
	}
	odd := false
	for d := t.from; d < t.from+2; d++ {
		x := t.m.excess(n, d)
		odd = odd || x > t.band || x < -t.band && !t.coming
	}
	if odd != t.odd[at] {
		t.odd[at] = odd
		t.odds--
		if odd {
			t.odds += 2
		}
	}
	t.pressure[at] = t.m.pressure(n, t.from)
}

// fullest is the node furthest above its share.
func (t *tilt) fullest() slot {
	best, most := none, 0.0
	for at, x := range t.pressure {
		if x > most {
			best, most = slot(at), x
		}
	}
	return best
}

// exhausted: the node can give nothing now.
func (t *tilt) exhausted(at slot) { t.pressure[at] = -1 }

// leveling is how far a level is. A node of which nothing could be given away with any use is barren, until it, or the emptiest
// node, has changed by a part of the imbalance, or something else has that says where replicas may be: so that what cannot be even
// costs nothing at every pass.
type leveling struct {
	on     bool
	barren []barren // by slot
	low    [2]float64
}

type barren struct {
	is   bool
	held [2]int64
}

// forget has everything tried again.
func (s *Snapshot) forget() {
	for i := range s.leveling {
		clear(s.leveling[i].barren)
	}
}

// fertile has the nodes of a range looked at that may be moved now, and could not before.
func (s *Snapshot) fertile(v *view) {
	for i := range s.leveling {
		for _, n := range v.voters.slice() {
			if b := s.leveling[i].barren; int(n) < len(b) {
				b[n].is = false
			}
		}
	}
}

// lowest finds what the emptiest node that could take something has, of its share. What was barren is not so any more if that is less
// than it was.
func (p *pass) lowest(level int) {
	l := &p.s.leveling[level]
	low := [2]float64{math.Inf(1), math.Inf(1)}
	for _, at := range p.means.pool {
		if n := &p.s.nodes[at]; n.able || level == levelLeaders { // a transfer brings nothing to a node
			for d := range low {
				low[d] = min(low[d], p.means.relative(n, countOf(level)+d))
			}
		}
	}
	for d := range low {
		if low[d] < l.low[d]-stirShare*p.s.policy.Imbalance {
			clear(l.barren)
		}
	}
	l.low = low
	for len(l.barren) < len(p.s.nodes) {
		l.barren = append(l.barren, barren{})
	}
}

// isBarren says whether there is no use in looking at what the node could give: it is not far enough above the emptiest, or that was
// seen.
func (p *pass) isBarren(level int, at slot) bool {
	l, n := &p.s.leveling[level], &p.s.nodes[at]
	gap := math.Inf(-1)
	for d := range l.low {
		gap = max(gap, p.means.relative(n, countOf(level)+d)-l.low[d])
	}
	if gap < p.means.gap {
		return true
	}
	b := &l.barren[at]
	for d, was := range b.held {
		change := float64(n.sum[countOf(level)+d] - was)
		if math.Abs(change) > stirShare*p.s.policy.Imbalance*p.means.mean(n, countOf(level)+d)*n.weight(countOf(level)+d) {
			b.is = false
		}
	}
	return b.is
}

func (p *pass) setBarren(level int, at slot) {
	n := &p.s.nodes[at]
	p.s.leveling[level].barren[at] = barren{true, [2]int64{n.sum[countOf(level)], n.sum[sumOf(level)]}}
}
