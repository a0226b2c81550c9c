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
	if s.policy.NoBalance || len(p.means.pool) < 2 {
		return
	}
	tilt := p.uneven(levelLeaders)
	if tilt == nil {
		return
	}
	visits := 0
	var t *targets
	for len(p.out) < p.limit && visits < levelVisits && tilt.odds > 0 {
		from := tilt.fullest()
		if from == none {
			return
		}
		var v view
		x := p.giveLeader(from, &v, &visits)
		if x == nil && p.overloaded(from) {
			if t == nil {
				t = p.newTargets(true)
			}
			x = p.giveLoad(t, from, &v, &visits)
		}
		if x == nil {
			tilt.exhausted(from)
			continue
		}
		p.take(&v, x)
		if t != nil {
			p.moved(t, from, x.leader)
		}
		tilt.update(from)
		tilt.update(x.leader)
	}
}

// overloaded says whether replicas may be moved to take load from the node: none of its leaders could go to a replica that is there,
// and it is as far above its share as balance begins at.
func (p *pass) overloaded(from slot) bool {
	n := &p.s.nodes[from]
	return !p.guard.stop && p.means.excess(n, dimLoad) > p.s.policy.Imbalance && n.Strained == "" &&
		n.moves < p.movesPerNode(false) && p.movesLeft(false) > 0
}

// giveLoad has the replica of one range that the node leads, and with it its leader, move to a node that leads less.
func (p *pass) giveLoad(t *targets, from slot, v *view, visits *int) *proposal {
	s := p.s
	held := s.nodes[from].held
	if len(held) == 0 {
		return nil
	}
	start := int((uint64(len(p.out))*7919 + p.seed) % uint64(len(held)))
	bestDelta, bestRow, bestTo, seen := 0.0, row(-1), none, 0
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
		if to, delta := p.bestTarget(t, from, v); to != none && delta < bestDelta {
			bestDelta, bestRow, bestTo = delta, at, to
		}
	}
	if bestTo == none {
		return nil
	}
	s.look(bestRow, v)
	a, b := &s.nodes[from], &s.nodes[bestTo]
	x := &proposal{goal: GoalBalance, voters: v.voters.without(from).with(bestTo), leader: bestTo}
	x.adds.add(bestTo)
	x.removes.add(from)
	x.reason = fmt.Sprintf("%s serves %+.1f %% from its share, %s %+.1f %%, and no other voter of what it leads could lead it", a.ID,
		100*p.means.excess(a, dimLoad), b.ID, 100*p.means.excess(b, dimLoad))
	x.scores = append(x.scores, p.score(bestTo, s.worthOf(v, x.voters), bestDelta))
	return x
}

// giveLeader finds the best of some of the ranges that the node leads to be led elsewhere.
func (p *pass) giveLeader(from slot, v *view, visits *int) *proposal {
	s := p.s
	held := s.nodes[from].held
	if len(held) == 0 {
		return nil
	}
	start := int((uint64(len(p.out))*7919 + p.seed) % uint64(len(held)))
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
