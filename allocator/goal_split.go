package allocator

import "fmt"

// The last goal is hot ranges: one that serves so much that no placing of leaders makes loads even. It is to be cut in two, which is not
// decided here: meta/load does where the keys are known. Until then it is led by the voter whose node leads least; if that is the one
// that leads it, Withheld says that the range is hot.

const (
	// hotShare is how much of a node's mean load one range must serve to be hot: with more, the node has little else to give away.
	hotShare = 0.5
	// hotAtLeast is below what any node minds, in requests per second.
	hotAtLeast = 100
)

// setHot takes note of where heat begins: for ranges, and for the nodes that lead them.
func (s *Snapshot) setHot(m *means) {
	s.hot = max(int64(hotShare*m.per[dimLoad]), hotAtLeast*loadUnit)
	s.warm = m.per[dimLoad] * (1 + s.policy.Imbalance)
}

func wantsSplit(s *Snapshot, v *view) bool {
	l := v.e.leader
	return l != none && v.e.load > s.hot && v.e.keyspace.Splits() && v.x.wantedLeader == none && !s.policy.NoBalance &&
		float64(s.nodes[l].sum[dimLoad]) > s.warm*s.nodes[l].LeadWeight
}

func planSplit(p *pass, v *view) (*proposal, why) {
	from := v.e.leader
	to := p.bestLeader(v, v.well, set{}, from)
	if to == none || v.r.rank(p.s.nodes[to].class) > v.r.rank(p.s.nodes[from].class) {
		return nil, whyHot
	}
	a, b := &p.s.nodes[from], &p.s.nodes[to]
	if p.means.moreLeader(b, v.e.load)+p.means.lessLeader(a, v.e.load) >= -p.means.worthwhile(dimLeaders, 1, float64(v.e.load)) {
		return nil, whyHot
	}
	return &proposal{goal: GoalSplit, leader: to, reason: fmt.Sprintf(
		"it is hot (%d requests a second, of %.0f that a node serves) and is to be cut; until then %s leads it, which serves less than %s",
		v.e.load/loadUnit, p.means.per[dimLoad]/loadUnit, b.ID, a.ID)}, whyNot
}
