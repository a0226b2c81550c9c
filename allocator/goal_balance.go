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
	sampleRanges = 16
	// levelVisits bounds the ranges that one pass looks at for balance.
	levelVisits = 30_000
	// targetsPerClass: a range may have a replica on the first.
	targetsPerClass = 4
)

// targets is the emptiest nodes of each class, and the classes in the order of their emptiest.
type targets struct {
	leading bool // emptiest of replicas and of what is led
	tops    [][targetsPerClass]slot
	key     []float64
	order   []int32
	// waits: a node that holds less than its share was left out, because it takes as much as it may at once. It is waited for: nobody
	// gives to a node that is above its share meanwhile, for that would be moved twice.
	waits bool
}

func (p *pass) newTargets(leading bool) *targets {
	t := &targets{leading: leading, tops: make([][targetsPerClass]slot, len(p.s.classes)), key: make([]float64, len(p.s.classes))}
	for _, at := range p.means.pool {
		n := &p.s.nodes[at]
		t.waits = t.waits || n.able && p.occupied(n) && p.means.pressure(n, 0) < 0
	}
	for c := range p.s.classes {
		p.top(t, int32(c))
		if t.tops[c][0] != none {
			t.order = append(t.order, int32(c))
		}
	}
	slices.SortStableFunc(t.order, func(a, b int32) int { return cmp.Compare(t.key[a], t.key[b]) })
	return t
}

// occupied says whether the node takes part in no further move now.
func (p *pass) occupied(n *node) bool { return n.Strained != "" || n.moves >= p.movesPerNode(false) }

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
		if p.occupied(n) || t.waits && p.means.pressure(n, 0) >= 0 {
			continue
		}
		key := p.means.more(n, int64(p.means.piece[dimBytes]))
		if t.leading {
			key += p.means.moreLeader(n, int64(p.means.piece[dimLoad]))
		}
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

// balance moves replicas until they are even, or limits are reached, or nothing helps. When there is nothing left to do, and nothing
// under way, what has come somewhere meanwhile may be moved again.
func (p *pass) balance() {
	if p.s.policy.NoBalance || len(p.means.pool) < 2 {
		return
	}
	for !p.even() && p.s.rested() {
	}
}

// even does so, and says whether anything is done or waited for.
func (p *pass) even() bool {
	s := p.s
	tilt := p.uneven(levelReplicas)
	if tilt == nil || tilt.fullest() == none {
		return false
	}
	if p.guard.stop {
		p.hold(GoalBalance, whyManyFail)
		return true
	}
	if s.doubts > 0 {
		p.hold(GoalBalance, whyDoubt)
		return true
	}
	before := len(p.out)
	t := p.newTargets(false)
	visits := 0
	waits := whyNot
	for len(p.out) < p.limit && visits < levelVisits && tilt.odds > 0 && len(t.order) > 0 {
		if p.movesLeft(false) < 1 {
			waits = whyMoves
			break
		}
		from := tilt.fullest()
		if from == none {
			break
		}
		if p.occupied(&s.nodes[from]) {
			waits = whySourceBusy
			tilt.exhausted(from)
			continue
		}
		var v view
		x := p.giveReplica(t, from, &v, &visits)
		if x == nil {
			if tilt.exhausted(from); !t.waits {
				p.setBarren(levelReplicas, from)
			}
			continue
		}
		p.take(&v, x)
		t = p.moved(t, from, x.adds.at[0])
		tilt.update(from)
		tilt.update(x.adds.at[0])
	}
	if waits == whyNot && t.waits && len(p.out) < p.limit {
		waits = whyTargetsBusy
	}
	p.hold(GoalBalance, waits)
	return len(p.out) > before || waits != whyNot || visits >= levelVisits
}

// moved follows a replica.
func (p *pass) moved(t *targets, from, to slot) *targets {
	if n := &p.s.nodes[to]; !t.waits && p.occupied(n) && p.means.pressure(n, 0) < 0 {
		return p.newTargets(t.leading)
	}
	p.again(t, p.s.nodes[from].class)
	p.again(t, p.s.nodes[to].class)
	return t
}

// giveReplica finds the best of some of the node's ranges to give away, or of all if none of those is any use.
func (p *pass) giveReplica(t *targets, from slot, v *view, visits *int) *proposal {
	s := p.s
	held := s.nodes[from].held
	if len(held) == 0 || len(t.order) == 0 {
		return nil
	}
	start := int((uint64(len(p.out))*7919 + p.seed + uint64(from)) % uint64(len(held)))
	best, bestDelta, bestRow, bestTo := offer{}, 0.0, row(-1), none
	seen := 0
	for i := range held {
		if seen >= sampleRanges && bestTo != none {
			break
		}
		*visits++
		at := held[(start+i)%len(held)]
		if !p.movable(at, v) || s.fresh(v.e) {
			continue
		}
		seen++
		to, delta := p.bestTarget(t, from, v)
		if to == none {
			continue
		}
		o := offer{p.means.pressure(&s.nodes[to], 0), p.means.fit(levelReplicas, &s.nodes[from], &s.nodes[to], v.e.bytes)}
		if bestTo == none || o.before(best) {
			best, bestDelta, bestRow, bestTo = o, delta, at, to
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

// offer is how good a range would be to give away. One that can go to where least is comes before one that suits its node better:
// what keeps it from there, replicas on all other nodes above all, would have it come to a node that is to have little more, and be
// moved on from there.
type offer struct{ pressure, fit float64 }

func (a offer) before(b offer) bool {
	if a.pressure != b.pressure {
		return a.pressure < b.pressure
	}
	return a.fit < b.fit
}

// movable says whether the range may be moved for balance: nothing else is to be said of it, and it is not among those that were
// moved last, which is what keeps loads that come and go from taking the same ranges with them.
func (p *pass) movable(at row, v *view) bool {
	e := &p.s.entries[at]
	if e.flags&(isUnder|isRare|isDirty) != 0 || p.s.recent(e) || e.bucket != 0 && e.bucket < bucketOf(GoalLeader, true) {
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
		p.visits++
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
			a, b := &s.nodes[from], &s.nodes[at]
			delta := p.means.more(b, v.e.bytes) + p.means.less(a, v.e.bytes)
			need := p.means.worthwhile(dimReplicas, 1, float64(v.e.bytes))
			if t.leading {
				if !p.mayLead(at) || v.r.rank(b.class) > v.r.rank(a.class) {
					continue
				}
				delta += p.means.moreLeader(b, v.e.load) + p.means.lessLeader(a, v.e.load)
				need += p.means.worthwhile(dimLeaders, 1, float64(v.e.load))
			}
			if delta >= -need {
				return none, 0
			}
			if !t.leading && v.e.leader == from && delta+p.leaderShift(v, from, at) >= -need {
				continue
			}
			return at, delta
		}
	}
	return none, 0
}

// leaderShift is by how much leaders are less even, if the replica that leads goes from one node to another: what is moved for the sake
// of replicas must not undo what was moved for the sake of load.
func (p *pass) leaderShift(v *view, from, to slot) float64 {
	shift := p.means.lessLeader(&p.s.nodes[from], v.e.load)
	if l := p.bestLeader(v, v.voters.without(from).with(to), set{}.with(to), none); l != none {
		shift += p.means.moreLeader(&p.s.nodes[l], v.e.load)
	}
	return shift
}
