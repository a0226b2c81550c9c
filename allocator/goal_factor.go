package allocator

import "fmt"

// The sixth goal has as many voters as the placement says. Where there are fewer nodes than that, an even number above two is not
// filled up to: it would tolerate no more failures, and each write would wait for one more. Nor is it left, once it is there.

// seats is how many voters the range is to have, as things are.
func (s *Snapshot) seats(v *view) int {
	could := v.voters.n + s.ableNodes
	for _, n := range v.voters.slice() {
		if s.nodes[n].able {
			could--
		}
	}
	n := min(v.r.Replicas, could)
	if n < v.r.Replicas && n > 2 && n%2 == 0 {
		n--
	}
	if v.voters.n <= v.r.Replicas {
		n = max(n, v.voters.n) // what is there stays
	}
	return n
}

func wantsFactor(s *Snapshot, v *view) bool {
	return !v.x.isWanted && (v.voters.n > v.r.Replicas || v.voters.n < v.r.Replicas && v.voters.n < s.seats(v))
}

func planFactor(p *pass, v *view) (*proposal, why) {
	if v.voters.n > v.r.Replicas {
		return p.fewer(v)
	}
	return p.further(v)
}

// further adds as many voters as are missing.
func (p *pass) further(v *view) (*proposal, why) {
	seats := p.s.seats(v)
	x := &proposal{goal: GoalFactor, voters: v.voters, leader: none}
	q := query{v: v, goal: GoalFactor, hard: p.s.worthOf(v, v.voters).hard}
	room := min(p.movesLeft(false), len(v.voters.at)-int(v.e.n))
	because := whyMoves
	for x.voters.n < seats && x.adds.n < room {
		q.keep = x.voters
		q.chosen = x.adds
		found, w := p.find(&q)
		if because = w; w != whyNot {
			break
		}
		x.voters.add(found.node)
		x.adds.add(found.node)
		x.scores = found.scores
	}
	if n := x.voters.n; n < seats && n > 2 && n%2 == 0 && (because == whyNoNode || because == whyRuledOut) {
		if x.adds.n == 0 {
			return nil, because
		}
		x.adds.n--
		x.voters.n--
	}
	switch {
	case x.adds.n == 0:
		return nil, because
	case !v.safe(x.adds, set{}):
		return nil, p.unsafe(v)
	}
	x.reason = fmt.Sprintf("%d voters of %d: %v come", v.voters.n, v.r.Replicas, p.s.ids(x.adds.slice()))
	return x, whyNot
}

// fewer removes the voter without which the others are worth most: what is lost first, then the best spread, then the fullest node.
func (p *pass) fewer(v *view) (*proposal, why) {
	best, bestWorth, bestDelta, because := none, worst(), 0.0, whyUnsafe
	for _, n := range v.voters.slice() {
		x, w := p.drop(v, GoalFactor, n, "")
		if x == nil {
			because = w
			continue
		}
		worth, delta := p.s.worthOf(v, x.voters), -p.means.less(&p.s.nodes[n], v.e.bytes)
		if p.s.nodes[n].lost(v.r.FailedAfter) {
			worth.hard -= maxConstraints * len(v.voters.at) // before all that constraints could say
		}
		if c := worth.compare(bestWorth); best == none || c < 0 || c == 0 && delta > bestDelta {
			best, bestWorth, bestDelta = n, worth, delta
		}
	}
	if best == none {
		return nil, because
	}
	return p.drop(v, GoalFactor, best, fmt.Sprintf("%d voters, and %d are asked for: the others are better spread without %s, or its node holds most",
		v.voters.n, v.r.Replicas, p.s.idOf(best)))
}
