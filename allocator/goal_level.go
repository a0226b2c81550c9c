package allocator

import "fmt"

// As many leaders, and as much of the load, on one node as on another. Leadership moves cheaply, so this comes after replicas are
// even. What no transfer can even out, because the other voters' nodes serve as much, is moved with its replica.

func (p *pass) levelLeaders() {
	if p.s.policy.NoBalance || len(p.means.pool) < 2 {
		return
	}
	before := len(p.out)
	visits := 0
	p.levelWith(func(from slot, v *view) *proposal { return p.giveLeader(from, v, &visits) }, &visits)
	if len(p.out) > before || len(p.s.under) > 0 {
		return // what transfers cannot do is known once there is none left
	}
	var t *targets
	p.levelWith(func(from slot, v *view) *proposal {
		if !p.overloaded(from) {
			return nil
		}
		if t == nil || len(p.out) > before { // the nodes of the last one hold more, or less
			t = p.newTargets(true)
			before = len(p.out)
		}
		return p.giveLoad(t, from, v, &visits)
	}, &visits)
}

// levelWith has give called for the node furthest above its share, until leaders are even, or no node has anything to give.
func (p *pass) levelWith(give func(from slot, v *view) *proposal, visits *int) {
	tilt := p.uneven(levelLeaders)
	for tilt != nil && tilt.odds > 0 && len(p.out) < p.limit && *visits < levelVisits {
		from := tilt.fullest()
		if from == none {
			return
		}
		var v view
		x := give(from, &v)
		if x == nil {
			tilt.exhausted(from)
			continue
		}
		p.take(&v, x)
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
	return x
}
