package allocator

import (
	"fmt"
	"slices"
)

// The third goal is what somebody asked for: voters on just these nodes, or a leader. It is done as it was asked, or not at all:
// while one of the nodes can take nothing, or a constraint would be missed by more, it waits. Once asked for, the range's voters are
// not moved for the goals below, but for what has failed or leaves.

func (v *view) wants(n slot) bool { return slices.Contains(v.x.wanted, n) }

func (v *view) hasWanted() bool {
	if len(v.x.wanted) != v.voters.n {
		return false
	}
	for _, n := range v.voters.slice() {
		if !v.wants(n) {
			return false
		}
	}
	return true
}

func wantsWanted(_ *Snapshot, v *view) bool {
	return v.x.isWanted && !v.hasWanted() ||
		v.x.wantedLeader != none && v.e.leader != none && v.x.wantedLeader != v.e.leader
}

func planWanted(p *pass, v *view) (*proposal, why) {
	if !v.x.isWanted || v.hasWanted() {
		return p.leadWanted(v)
	}
	x := &proposal{goal: GoalWanted, leader: none, reason: "somebody asked for it: " + fmt.Sprint(p.s.ids(v.x.wanted))}
	q := query{v: v, goal: GoalWanted}
	for _, n := range v.x.wanted {
		if x.voters.n == len(x.voters.at) {
			return nil, whyWantedAway
		}
		x.voters.add(n)
		if v.voters.has(n) {
			continue
		}
		x.adds.add(n)
		if w := p.against(&q, n); w.passes() {
			return nil, whyTargetsBusy
		} else if w != whyNot {
			return nil, whyWantedAway
		}
	}
	for _, n := range v.voters.slice() {
		if !v.wants(n) {
			x.removes.add(n)
		}
	}
	switch {
	case x.voters.n == 0 || v.voters.n+x.adds.n > len(v.voters.at):
		return nil, whyWantedAway
	case p.s.worthOf(v, x.voters).hard > p.s.worthOf(v, v.voters).hard:
		return nil, whyWantedRules
	case !v.safe(x.adds, x.removes):
		return nil, p.unsafe(v)
	}
	if x.voters.has(v.x.wantedLeader) {
		x.leader = v.x.wantedLeader
	} else if v.e.leader != none && !x.voters.has(v.e.leader) {
		x.leader = p.bestLeader(v, x.voters, x.adds, none)
	}
	return p.withinLimits(x)
}

func (p *pass) leadWanted(v *view) (*proposal, why) {
	if l := v.x.wantedLeader; !v.well.has(l) || !p.mayLead(l) {
		return nil, whyWantedAway
	}
	return &proposal{goal: GoalWanted, leader: v.x.wantedLeader, reason: "somebody asked for it to lead"}, whyNot
}
