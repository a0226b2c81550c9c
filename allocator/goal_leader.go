package allocator

import "fmt"

// Leaders leave a node that is slow first, before any replica does; and lead where the placement prefers them.

// mayLead says whether the node may be given leaders.
func (p *pass) mayLead(at slot) bool {
	n := &p.s.nodes[at]
	return n.known && n.State == Active && !n.Draining && !n.Cordoned && n.Slow == "" && n.Strained == ""
}

// bestLeader chooses who of the voters is to lead: of those that are well, or come anew, one that is preferred, then the one whose
// node leads least. None: nobody may.
func (p *pass) bestLeader(v *view, among, fresh set, but slot) slot {
	best, bestRank, bestDelta := none, 0, 0.0
	for _, n := range among.slice() {
		if n == but || !v.well.has(n) && !fresh.has(n) || !p.mayLead(n) {
			continue
		}
		rank, delta := v.r.rank(p.s.nodes[n].class), p.means.moreLeader(&p.s.nodes[n], v.e.load)
		if best == none || rank < bestRank || rank == bestRank && delta < bestDelta {
			best, bestRank, bestDelta = n, rank, delta
		}
	}
	return best
}

func wantsLeader(s *Snapshot, v *view) bool {
	l := v.e.leader
	if l == none || v.x.wantedLeader != none {
		return false
	}
	if s.nodes[l].Slow != "" {
		return true
	}
	if len(v.r.Leaders) == 0 || s.nodes[l].emptying() {
		return false
	}
	rank := v.r.rank(s.nodes[l].class)
	for _, n := range v.well.slice() {
		if x := &s.nodes[n]; v.r.rank(x.class) < rank && x.State == Active && !x.Draining && !x.Cordoned && x.Slow == "" {
			return true
		}
	}
	return false
}

func planLeader(p *pass, v *view) (*proposal, why) {
	l := v.e.leader
	n := &p.s.nodes[l]
	to := p.bestLeader(v, v.well, set{}, l)
	if to == none {
		return nil, whyNoLeader
	}
	x := &proposal{goal: GoalLeader, leader: to}
	switch {
	case n.Slow != "":
		x.reason = fmt.Sprintf("%s is slow (%s): %s leads", n.ID, n.Slow, p.s.idOf(to))
	case v.r.rank(p.s.nodes[to].class) < v.r.rank(n.class):
		x.reason = fmt.Sprintf("it is to be led elsewhere by the placement: %s leads", p.s.idOf(to))
	default:
		return nil, whyNoLeader
	}
	return x, whyNot
}
