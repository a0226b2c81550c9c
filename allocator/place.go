package allocator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Choosing a node. Places are compared as whole sets: what the range's voters would be with that node among them. First the
// constraints that are missed decide, then how near the voters are to each other, then how much nearer to the mean the loads come.
// A node that would do, and is only busy or strained now, is waited for: the next best place would be left again later.

// query is what a node is looked for.
type query struct {
	v      *view
	goal   Goal
	keep   set    // the voters beside the new one
	chosen set    // nodes that the range comes to already
	hard   int    // as many constraints may be missed
	under  *worth // it must be better than this; nil: anything will do
	zone   *zone  // the zone that fails, whose replica is replaced
	slow   bool
	needs  bool // a node that is strained will do, too
}

// candidate is a class of nodes, and what the voters were worth with one of it.
type candidate struct {
	class int32
	worth worth
}

// place is the answer.
type place struct {
	node   slot
	worth  worth
	scores []Score
}

// movesPerNode and movesLeft are the policy's limits, a quarter of them for what is to be slow.
func (p *pass) movesPerNode(slow bool) int {
	if slow {
		return max(1, p.s.policy.MovesPerNode/4)
	}
	return p.s.policy.MovesPerNode
}

func (p *pass) movesLeft(slow bool) int {
	n := p.s.policy.Moves
	if slow {
		n = max(1, n/4)
	}
	return n - p.s.moves
}

// against says why the node cannot take a replica for the query; whyNot: it can.
func (p *pass) against(q *query, at slot) why {
	n := &p.s.nodes[at]
	switch {
	case !n.known:
		return whyUnknown
	case q.v.holds(at) || q.chosen.has(at):
		return whyHolds
	case n.State != Active:
		return whyInactive
	case n.Cordoned:
		return whyCordoned
	case n.Draining:
		return whyDraining
	case n.Slow != "":
		return whySlow
	case n.full(q.v.e.bytes):
		return whyFull
	case q.zone != nil && p.all && p.inFailingZone(n.class): // else rankClasses has left it out
		return whyInZone
	case n.Strained != "" && !q.needs:
		return whyNodeStrained
	case n.moves >= p.movesPerNode(q.slow):
		return whyNodeBusy
	}
	return whyNot
}

func (p *pass) inFailingZone(class int32) bool {
	_, prefix, ok := p.s.zoneOfClass(class)
	return ok && p.guard.zones[prefix] != nil
}

func (v *view) holds(n slot) bool {
	for i := range v.e.n {
		if v.e.seats[i].node == n {
			return true
		}
	}
	return false
}

// classesOf are the classes of nodes. Of a node that nobody knows it is the class of those that say nothing.
func (s *Snapshot) classesOf(of *set, buf []int32) []int32 {
	buf = buf[:0]
	for _, n := range of.slice() {
		buf = append(buf, s.nodes[n].class)
	}
	return buf
}

// worthOf the voters.
func (s *Snapshot) worthOf(v *view, voters set) worth {
	var buf [16]int32
	return s.worth(v.r, s.classesOf(&voters, buf[:]))
}

// find returns the best node, or why there is none.
func (p *pass) find(q *query) (place, why) {
	if p.all && p.asked.v == nil {
		p.asked = *q
	}
	ruled := p.rankClasses(q)
	refused := whyNoNode
	if ruled && len(p.classes) == 0 {
		refused = whyRuledOut
	}
	for i := 0; i < len(p.classes); {
		j := i + 1
		for j < len(p.classes) && p.classes[j].worth.compare(p.classes[i].worth) == 0 {
			j++
		}
		best, waits := p.findIn(q, p.classes[i:j])
		if waits == whyStrained && best.node == none && presses(q.goal) {
			// All that would do are strained, as they may well be because a node is gone: its work is theirs now.
			q.needs = true
			best, waits = p.findIn(q, p.classes[i:j])
			q.needs = false
		}
		if best.node != none {
			if p.all {
				best.scores = p.scoreAll(q)
			}
			return best, whyNot
		}
		if waits != whyNot {
			return best, waits
		}
		i = j
	}
	return place{node: none}, refused
}

// presses says whether a goal waits for no calmer hour: while it is not reached a range may be one failure from being lost.
func presses(g Goal) bool {
	switch g {
	case GoalJoint, GoalQuorum, GoalReplace, GoalFactor:
		return true
	}
	return false
}

// rankClasses puts the classes that may be looked at in order, best first, and says whether constraints ruled out any.
func (p *pass) rankClasses(q *query) (ruled bool) {
	s := p.s
	p.classes = p.classes[:0]
	var buf [16]int32
	classes := s.classesOf(&q.keep, buf[:])
	zoneLimit := int64(-1)
	if q.zone != nil {
		zoneLimit = s.worthOf(q.v, q.v.voters).likeness >> p.tierShift()
	}
	for c := range s.classes {
		if s.classes[c].able == 0 || q.zone != nil && p.inFailingZone(int32(c)) {
			continue
		}
		w := s.worth(q.v.r, append(classes, int32(c)))
		switch {
		case w.hard > q.hard:
			ruled = true
			continue
		case q.under != nil && w.compare(*q.under) >= 0:
			continue
		case zoneLimit >= 0 && w.likeness>>p.tierShift() > zoneLimit:
			continue
		}
		p.classes = append(p.classes, candidate{int32(c), w})
	}
	p.visits += len(s.classes)
	slices.SortStableFunc(p.classes, func(a, b candidate) int { return a.worth.compare(b.worth) })
	return ruled
}

// tierShift takes the tiers inside of the guard's away from a likeness.
func (p *pass) tierShift() int { return tierBits * (maxTiers - 1 - max(0, p.guard.tier)) }

// findIn looks for the node of these classes that brings the loads nearest to the mean. If none can take it now, waits says for what
// to wait, if waiting helps.
func (p *pass) findIn(q *query, group []candidate) (best place, waits why) {
	best = place{node: none, worth: group[0].worth}
	var top [scoresKept]ranked
	n := 0
	for _, c := range group {
		nodes := p.s.classes[c.class].nodes
		p.visits += len(nodes)
		for _, at := range nodes {
			if w := p.against(q, at); w != whyNot {
				switch {
				case w == whyNodeBusy:
					waits = whyTargetsBusy
				case w == whyNodeStrained && waits == whyNot:
					waits = whyStrained
				}
				continue
			}
			r := ranked{at, p.means.more(&p.s.nodes[at], q.v.e.bytes), p.tie(at, q.v)}
			i := n
			for i > 0 && r.before(top[i-1]) {
				if i < len(top) {
					top[i] = top[i-1]
				}
				i--
			}
			if i < len(top) {
				top[i] = r
				n = min(n+1, len(top))
			}
		}
	}
	if n == 0 {
		return best, waits
	}
	best.node = top[0].node
	for _, r := range top[:n] {
		best.scores = append(best.scores, p.score(r.node, best.worth, r.delta))
	}
	return best, whyNot
}

// ranked is a node, and by how much the loads are further from the mean with a replica more on it.
type ranked struct {
	node  slot
	delta float64
	tie   uint64
}

func (a ranked) before(b ranked) bool {
	if a.delta != b.delta {
		return a.delta < b.delta
	}
	return a.tie < b.tie
}

// tie breaks ties, for each range and seed in another way.
func (p *pass) tie(at slot, v *view) uint64 {
	z := (uint64(at)+1)*0x9e3779b97f4a7c15 ^ (uint64(v.e.id)+p.seed)*0xbf58476d1ce4e5b9
	z = (z ^ (z >> 30)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func (p *pass) score(at slot, w worth, delta float64) Score {
	tiers := float64(w.likeness) / (1 << (tierBits * (maxTiers - 1)))
	return Score{
		Node:  p.s.nodes[at].ID,
		Score: float64(w.hard)*1e6 + float64(w.soft)*1e4 + tiers*100 + delta,
		Parts: fmt.Sprintf("constraints missed %d, preferences missed %d, nearness %s, balance %+.4f", w.hard, w.soft, nearness(w.likeness), delta),
	}
}

// nearness says for each tier how many pairs of voters share it, outermost first.
func nearness(likeness int64) string {
	var b strings.Builder
	for tier := range maxTiers {
		if likeness == 0 && tier > 0 {
			break
		}
		shift := tierBits * (maxTiers - 1 - tier)
		if tier > 0 {
			b.WriteByte('/')
		}
		fmt.Fprintf(&b, "%d", likeness>>shift)
		likeness &= 1<<shift - 1
	}
	return b.String()
}

// scoreAll lists every node, those that could be first.
func (p *pass) scoreAll(q *query) (all []Score) {
	s := p.s
	for i := range s.nodes {
		n := &s.nodes[i]
		if !n.known && len(n.held) == 0 {
			continue
		}
		w := s.worthOf(q.v, q.keep.with(slot(i)))
		c := p.score(slot(i), w, p.means.more(n, q.v.e.bytes))
		against := p.against(q, slot(i))
		switch {
		case against == whyNot && w.hard > q.hard:
			c.Against = "would miss a constraint"
		case against == whyNot && q.under != nil && w.compare(*q.under) >= 0:
			c.Against = whyNoBetter.String()
		case against == whyNot && q.zone != nil && w.likeness>>p.tierShift() > p.s.worthOf(q.v, q.v.voters).likeness>>p.tierShift():
			c.Against = "is in a zone that holds another, while a zone fails"
		case against != whyNot:
			c.Against = against.String()
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b Score) int {
		return cmp.Or(cmp.Compare(min(1, len(a.Against)), min(1, len(b.Against))), cmp.Compare(a.Score, b.Score), cmp.Compare(a.Node, b.Node))
	})
	return all
}

// swap has another node hold what out does.
func (p *pass) swap(v *view, g Goal, out slot, because string) (*proposal, why) {
	q := query{v: v, goal: g, keep: v.voters.without(out), hard: p.s.worthOf(v, v.voters).hard}
	if g == GoalReplace || g == GoalQuorum {
		var against why
		if q.zone, q.slow, against = p.replacing(out); against != whyNot {
			return nil, against
		}
		q.slow = q.slow && g == GoalReplace
	}
	return p.swapFor(&q, out, because)
}

func (p *pass) swapFor(q *query, out slot, because string) (*proposal, why) {
	v := q.v
	removes := set{}.with(out)
	adds := set{n: 1}
	switch n := &p.s.nodes[out]; {
	case p.movesLeft(q.slow) < 1:
		return nil, whyMoves
	case n.alive() && n.moves >= p.movesPerNode(q.slow):
		return nil, whySourceBusy
	case !v.safe(adds, removes):
		return nil, p.unsafe(v)
	}
	found, w := p.find(q)
	if w != whyNot {
		if q.zone != nil && w == whyNoNode {
			w = whyZoneFails
		}
		return nil, w
	}
	x := &proposal{goal: q.goal, voters: q.keep.with(found.node), leader: none, scores: found.scores}
	x.adds.add(found.node)
	x.removes.add(out)
	if v.e.leader == out || v.e.leader == none {
		x.leader = p.bestLeader(v, x.voters, x.adds, none)
	}
	x.reason = fmt.Sprintf("%s: its replica goes to %s", because, p.s.idOf(found.node))
	return x, whyNot
}

// unsafe tells a quorum that is lost from one that would be.
func (p *pass) unsafe(v *view) why {
	if v.well.n < quorum(v.voters.n) {
		return whyQuorumLost
	}
	return whyUnsafe
}

// drop removes a voter without another in its place.
func (p *pass) drop(v *view, g Goal, out slot, because string) (*proposal, why) {
	rest := v.voters.without(out)
	removes := set{}.with(out)
	switch {
	case !v.safe(set{}, removes):
		return nil, p.unsafe(v)
	case p.s.worthOf(v, rest).hard > p.s.worthOf(v, v.voters).hard:
		return nil, whyRuledOut
	}
	x := &proposal{goal: g, voters: rest, removes: removes, leader: none}
	if v.e.leader == out {
		x.leader = p.bestLeader(v, rest, set{}, none)
	}
	x.reason = because
	return p.withinLimits(x)
}
