package allocator

import "fmt"

// The last goals have as many leaders, and as much of the load, on one node as on another. Leadership moves cheaply, so that this
// also sheds load from a node that serves a hot range: its other ranges are led elsewhere, or the hot one is, if that makes the
// largest load smaller. Cutting a hot range in two is not decided here (meta/load does, where the keys are known): the reason says
// that it is hot.

// hotShare is how much of a node's mean load one range must serve to be hot: more, and no placing of leaders evens it out.
const hotShare = 0.5

func (s *Snapshot) setHot(m *means) { s.hot = int64(hotShare * m.per[dimLoad]) }

func (p *pass) levelLeaders() {
	s := p.s
	if s.policy.NoBalance || len(p.means.pool) < 2 || !p.uneven(levelLeaders) {
		return
	}
	tried := make([]bool, len(s.nodes))
	visits := 0
	for len(p.out) < p.limit && visits < levelVisits && p.uneven(levelLeaders) {
		from := p.fullest(levelLeaders, tried)
		if from == none {
			return
		}
		var v view
		x := p.giveLeader(from, &v, &visits)
		if x == nil {
			tried[from] = true
			continue
		}
		p.take(&v, x)
	}
}

// giveLeader finds the best of some of the ranges that the node leads to be led elsewhere.
func (p *pass) giveLeader(from slot, v *view, visits *int) *proposal {
	s := p.s
	held := s.nodes[from].held
	if len(held) == 0 {
		return nil
	}
	start := int(uint64(len(p.out))*7919+p.seed) % len(held)
	if start < 0 {
		start += len(held)
	}
	bestDelta, bestRow, bestTo := 0.0, row(-1), none
	seen := 0
	for i := range held {
		if seen >= sampleRanges && bestTo != none {
			break
		}
		*visits++
		at := held[(start+i)%len(held)]
		if s.entries[at].leader != from || !p.movable(at, v) {
			continue
		}
		seen++
		rank := v.r.rank(s.nodes[from].class)
		for _, to := range v.voters.slice() {
			if to == from || !p.mayLead(to) || v.r.rank(s.nodes[to].class) > rank {
				continue
			}
			delta := p.means.moreLeader(&s.nodes[to], v.e.load) + p.means.lessLeader(&s.nodes[from], v.e.load)
			if delta < -p.means.worthwhile(dimLeaders, 1, float64(v.e.load)) && delta < bestDelta {
				bestDelta, bestRow, bestTo = delta, at, to
			}
		}
	}
	if bestTo == none {
		return nil
	}
	s.look(bestRow, v)
	a, b := &s.nodes[from], &s.nodes[bestTo]
	x := &proposal{goal: GoalLeader, leader: bestTo}
	x.reason = fmt.Sprintf("%s leads %+.1f %% from its share, %s %+.1f %%", a.ID, 100*p.means.pressure(a, dimLeaders), b.ID, 100*p.means.pressure(b, dimLeaders))
	if s.hot > 0 && v.e.load > s.hot {
		x.goal = GoalSplit
		x.reason = fmt.Sprintf("the range is hot, it serves %d requests a second, and is to be cut; until then %s leads it instead of %s, which %s",
			v.e.load/loadUnit, b.ID, a.ID, "leads more than its share")
	}
	return x
}
