package allocator

import (
	"cmp"
	"fmt"
	"slices"
)

// The ninth goal has as many replicas and bytes on one node as on another. It goes from nodes to ranges: the node that is furthest
// above its share gives the one of its ranges that, on the node where that helps most, makes the whole most even. Only ranges of
// which nothing else is to be said are moved, and only to where constraints and distances are no worse.

const (
	// sampleRanges is how many of a node's ranges are compared before the best of them is taken: enough that bytes come out even
	// when as many replicas are moved as counts ask for.
	sampleRanges = 24
	// levelVisits bounds the ranges that one pass looks at for balance.
	levelVisits = 300_000
	// targetsPerClass: a range may have a replica on the first.
	targetsPerClass = 4
)

// targets is the emptiest nodes of each class, and the classes in the order of their emptiest.
type targets struct {
	tops  [][targetsPerClass]slot
	key   []float64
	order []int32
	busy  bool // a node was left out that will be there soon
}

func (p *pass) newTargets() *targets {
	t := &targets{tops: make([][targetsPerClass]slot, len(p.s.classes)), key: make([]float64, len(p.s.classes))}
	for c := range p.s.classes {
		p.top(t, int32(c))
		if t.tops[c][0] != none {
			t.order = append(t.order, int32(c))
		}
	}
	slices.SortStableFunc(t.order, func(a, b int32) int { return cmp.Compare(t.key[a], t.key[b]) })
	return t
}

// top finds the emptiest nodes of a class.
func (p *pass) top(t *targets, c int32) {
	top := &t.tops[c]
	var keys [targetsPerClass]float64
	for i := range top {
		top[i] = none
	}
	for _, at := range p.s.classes[c].nodes {
		n := &p.s.nodes[at]
		if !n.able {
			continue
		}
		if n.Strained != "" || n.moves >= p.movesPerNode(false) {
			t.busy = true
			continue
		}
		key := p.means.more(n, int64(p.means.piece[dimBytes]))
		i := len(top)
		for i > 0 && (top[i-1] == none || key < keys[i-1]) {
			i--
			if i+1 < len(top) {
				top[i+1], keys[i+1] = top[i], keys[i]
			}
		}
		if i < len(top) {
			top[i], keys[i] = at, key
		}
	}
	t.key[c] = keys[0]
}

// again puts the class in its place after a node of it has changed.
func (p *pass) again(t *targets, c int32) {
	if i := slices.Index(t.order, c); i >= 0 {
		t.order = slices.Delete(t.order, i, i+1)
	}
	p.top(t, c)
	if t.tops[c][0] == none {
		return
	}
	i, _ := slices.BinarySearchFunc(t.order, t.key[c], func(a int32, k float64) int { return cmp.Compare(t.key[a], k) })
	t.order = slices.Insert(t.order, i, c)
}

// balance moves replicas until they are even, or limits are reached, or nothing helps.
func (p *pass) balance() {
	s := p.s
	if s.policy.NoBalance || len(p.means.pool) < 2 || !p.uneven(levelReplicas) {
		return
	}
	if p.guard.stop {
		p.hold(GoalBalance, whyManyFail)
		return
	}
	t := p.newTargets()
	tried := make([]bool, len(s.nodes))
	visits := 0
	waits := whyNot
	for len(p.out) < p.limit && visits < levelVisits && p.uneven(levelReplicas) {
		if p.movesLeft(false) < 1 {
			waits = whyMoves
			break
		}
		from := p.fullest(levelReplicas, tried)
		if from == none {
			break
		}
		if n := &s.nodes[from]; n.moves >= p.movesPerNode(false) || n.Strained != "" {
			waits = whySourceBusy
			tried[from] = true
			continue
		}
		var v view
		x := p.giveReplica(t, from, &v, &visits)
		if x == nil {
			tried[from] = true
			continue
		}
		p.take(&v, x)
		p.again(t, s.nodes[from].class)
		p.again(t, s.nodes[x.adds.at[0]].class)
	}
	if waits == whyNot && t.busy && len(p.out) < p.limit {
		waits = whyTargetsBusy
	}
	p.hold(GoalBalance, waits)
}

// fullest is the node furthest above its share of those that were not tried.
func (p *pass) fullest(level int, tried []bool) slot {
	best, most := none, 0.0
	for _, at := range p.means.pool {
		if tried[at] {
			continue
		}
		if x := p.means.pressure(&p.s.nodes[at], 2*level); x > most {
			best, most = at, x
		}
	}
	return best
}

// giveReplica finds the best of some of the node's ranges to give away, or of all if none of those is any use.
func (p *pass) giveReplica(t *targets, from slot, v *view, visits *int) *proposal {
	s := p.s
	held := s.nodes[from].held
	if len(held) == 0 || len(t.order) == 0 {
		return nil
	}
	start := int(p.tie(from, &view{e: &entry{id: 0}})+uint64(len(p.out))*7919) % len(held)
	if start < 0 {
		start += len(held)
	}
	best, bestDelta, bestRow, bestTo := 0.0, 0.0, row(-1), none
	seen := 0
	for i := range held {
		if seen >= sampleRanges && bestTo != none {
			break
		}
		*visits++
		at := held[(start+i)%len(held)]
		if !p.movable(at, v) {
			continue
		}
		seen++
		to, delta := p.bestTarget(t, from, v)
		if to == none {
			continue
		}
		if fit := p.fit(from, to, v.e.bytes); bestTo == none || fit < best {
			best, bestDelta, bestRow, bestTo = fit, delta, at, to
		}
	}
	if bestTo == none {
		return nil
	}
	s.look(bestRow, v)
	x := &proposal{goal: GoalBalance, voters: v.voters.without(from).with(bestTo), leader: none}
	x.adds.add(bestTo)
	x.removes.add(from)
	if v.e.leader == from || v.e.leader == none {
		x.leader = p.bestLeader(v, x.voters, x.adds, none)
	}
	a, b := &s.nodes[from], &s.nodes[bestTo]
	x.reason = fmt.Sprintf("%s is %+.1f %% from its share, %s %+.1f %%", a.ID, 100*p.means.pressure(a, 0), b.ID, 100*p.means.pressure(b, 0))
	x.scores = append(x.scores, p.score(bestTo, s.worthOf(v, x.voters), bestDelta))
	return x
}

// fit is how well a range of that size suits the two nodes: after the move bytes are to be as far from a node's share as replicas are,
// so that both come out even with the same moves.
func (p *pass) fit(from, to slot, bytes int64) float64 {
	a := p.means.skew(&p.s.nodes[from], -1, -float64(bytes))
	b := p.means.skew(&p.s.nodes[to], 1, float64(bytes))
	return a*a + b*b
}

// movable says whether the range may be moved for balance: nothing else is to be said of it.
func (p *pass) movable(at row, v *view) bool {
	e := &p.s.entries[at]
	if e.flags&(isUnder|isRare) != 0 || e.bucket != 0 && e.bucket < bucketOf(GoalLeader, true) {
		return false
	}
	p.s.look(at, v)
	return v.calm
}

// bestTarget is the emptiest node that could take the range's replica from the node, if it helps enough.
func (p *pass) bestTarget(t *targets, from slot, v *view) (slot, float64) {
	s := p.s
	class := s.nodes[from].class
	keep := v.voters.without(from)
	var buf [16]int32
	classes := s.classesOf(&keep, buf[:])
	now := worth{hard: -1}
	for _, c := range t.order {
		if c != class {
			if now.hard < 0 {
				now = s.worth(v.r, append(classes, class))
			}
			if s.worth(v.r, append(classes, c)).compare(now) > 0 {
				continue
			}
		}
		for _, at := range t.tops[c] {
			if at == none {
				break
			}
			if v.voters.has(at) || s.nodes[at].full(v.e.bytes) {
				continue
			}
			delta := p.means.more(&s.nodes[at], v.e.bytes) + p.means.less(&s.nodes[from], v.e.bytes)
			if delta >= -p.means.worthwhile(dimReplicas, 1, float64(v.e.bytes)) {
				return none, 0
			}
			return at, delta
		}
	}
	return none, 0
}
