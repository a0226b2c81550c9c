package allocator

import "fmt"

// As many leaders, and as much of the load, on one node as on another. Leadership moves cheaply, so this comes after replicas are
// even. What no transfer can even out, because the other voters' nodes serve as much, is moved with its replica.

func (p *pass) levelLeaders() {
	s := p.s
	if s.policy.NoBalance || len(p.means.pool) < 2 {
		return
	}
	tilt := p.uneven(levelLeaders)
	if tilt == nil {
		return
	}
	before, visits := len(p.out), 0
	for len(p.out) < p.limit && visits < levelVisits && tilt.odds > 0 {
		from := tilt.fullest()
		if from == none {
			break
		}
		var v view
		x := p.giveLeader(from, &v, &visits)
		if x == nil {
			tilt.exhausted(from)
			p.setBarren(levelLeaders, from)
			continue
		}
		p.take(&v, x)
		tilt.update(from)
		tilt.update(x.leader)
	}
	if len(p.out) == before && visits < levelVisits {
		p.levelLoad()
	}
}

// moveForLoad is how many times as far from its share as the policy's imbalance a node's load must be for replicas to be moved for it.
// Loads come and go, and a transfer of leadership costs nothing beside a replica.
const moveForLoad = 2

// movesAtLeast is how many requests a second more than its share a node must serve before replicas are moved for it: fewer are nothing
// to any node, and the replicas that went for their sake would be missed where they were.
const movesAtLeast = 20

// levelLoad moves replicas from nodes that serve far too much, and of which no leader could go to where a replica is. It waits until
// no transfer helps, until every node and replica is there, and until no replica moves: all of them change what leaders serve.
func (p *pass) levelLoad() {
	s := p.s
	if p.guard.stop || s.moves > 0 || s.lagging > 0 || len(p.out) > 0 {
		return
	}
	over := p.overloaded()
	if len(over) == 0 {
		return
	}
	for i := range s.nodes {
		if n := &s.nodes[i]; n.known && (n.State == Suspect || n.State == Leaving || n.Draining) {
			return
		}
	}
	p.lowest(levelLoad)
	t, visits := p.newTargets(true), 0
	for _, from := range over {
		if len(p.out) >= p.limit || visits >= levelVisits || p.movesLeft(false) < 1 || p.isBarren(levelLoad, from) {
			continue
		}
		var v view
		x := p.giveLoad(t, from, &v, &visits)
		if x == nil {
			p.setBarren(levelLoad, from)
			continue
		}
		p.take(&v, x)
		t = p.moved(t, from, x.leader)
	}
}

// overloaded are the nodes that serve far too much.
func (p *pass) overloaded() (nodes []slot) {
	for _, at := range p.means.pool {
		n := &p.s.nodes[at]
		over := p.means.excess(n, dimLoad)
		many := over*p.means.mean(n, dimLoad)*n.LeadWeight >= movesAtLeast*loadUnit
		if many && over > moveForLoad*p.s.policy.Imbalance && n.Strained == "" && n.moves < p.movesPerNode(false) {
			nodes = append(nodes, at)
		}
	}
	return nodes
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
		if s.entries[at].leader != from || !p.movable(at, v) || s.fresh(v.e) {
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
	best, bestRow, bestTo := 0.0, row(-1), none
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
		to, fit := p.levelTo(from, v)
		if to != none && (bestTo == none || fit < best) {
			best, bestRow, bestTo = fit, at, to
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

// levelTo is which of the range's other voters is to lead it for the sake of evenness, and how well the range suits that one's node. One
// that leads less than its share is before any that does not: what is given beyond a share goes on from there.
func (p *pass) levelTo(from slot, v *view) (best slot, fit float64) {
	s := p.s
	best = none
	rank, enough, room := v.r.rank(s.nodes[from].class), -p.means.worthwhile(dimLeaders, 1, float64(v.e.load)), false
	for _, to := range v.voters.slice() {
		a, b := &s.nodes[from], &s.nodes[to]
		if to == from || !p.mayLead(to) || v.r.rank(b.class) > rank || p.means.moreLeader(b, v.e.load)+p.means.lessLeader(a, v.e.load) >= enough {
			continue
		}
		has, f := p.means.pressure(b, dimLeaders) < 0, p.means.fit(levelLeaders, a, b, v.e.load)
		if best == none || has && !room || has == room && f < fit {
			best, room, fit = to, has, f
		}
	}
	return best, fit
}
