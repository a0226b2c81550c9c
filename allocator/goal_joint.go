package allocator

import "fmt"

// The first goal takes up what somebody began and left: a joint configuration, which is led to its end, and a learner. A learner
// that would be chosen now anyway is made a voter, for its data is there; any other is removed, for it costs disk and is no use.

func wantsJoint(_ *Snapshot, v *view) bool { return v.joint || v.learners.n > 0 }

func planJoint(p *pass, v *view) (*proposal, why) {
	if v.joint {
		before := v.outgoing.n
		for i := range v.e.n {
			if v.e.seats[i].role == Voter {
				before++
			}
		}
		was := v.wellOut
		for _, n := range v.well.slice() {
			if !v.incoming(n) {
				was++
			}
		}
		if v.well.n < quorum(v.voters.n) || was < quorum(before) {
			return nil, whyQuorumLost
		}
		return &proposal{
			goal: GoalJoint, voters: v.voters, removes: v.outgoing, leader: none,
			reason: "a joint configuration was left behind: it is led to its end",
		}, whyNot
	}
	l := v.learners.at[0]
	if x := p.finish(v, l); x != nil {
		return p.withinLimits(x)
	}
	return &proposal{
		goal: GoalJoint, voters: v.voters, removes: set{}.with(l), leader: none,
		reason: fmt.Sprintf("a learner on %s was left behind, and no voter is missing: it is removed", p.s.idOf(l)),
	}, whyNot
}

// withinLimits holds a proposal back while its nodes, or the decider, have as many moves under way as are allowed.
func (p *pass) withinLimits(x *proposal) (*proposal, why) {
	if p.movesLeft(false) < max(x.adds.n, x.removes.n) && p.s.moves > 0 {
		return nil, whyMoves
	}
	for _, n := range x.adds.slice() {
		if p.s.nodes[n].moves >= p.movesPerNode(false) {
			return nil, whyTargetsBusy
		}
	}
	for _, n := range x.removes.slice() {
		if m := &p.s.nodes[n]; m.alive() && m.moves >= p.movesPerNode(false) {
			return nil, whySourceBusy
		}
	}
	return x, whyNot
}

func (v *view) incoming(n slot) bool {
	for i := range v.e.n {
		if v.e.seats[i].node == n {
			return v.e.seats[i].role == Incoming
		}
	}
	return false
}

// finish makes the learner a voter, if it is wanted and its node is well.
func (p *pass) finish(v *view, l slot) *proposal {
	n := &p.s.nodes[l]
	if !n.known || n.State != Active || n.Draining || n.Cordoned || n.Slow != "" || v.voters.has(l) {
		return nil
	}
	x := &proposal{goal: GoalJoint, leader: none, adds: set{}.with(l)}
	out := p.yields(v, l)
	switch {
	case out != none:
		x.voters, x.removes = v.voters.without(out).with(l), set{}.with(out)
		x.reason = fmt.Sprintf("a learner on %s was left behind: it takes the place of %s", p.s.idOf(l), p.s.idOf(out))
	case v.voters.n < p.s.seats(v) && v.voters.n+v.learners.n <= len(v.voters.at):
		x.voters = v.voters.with(l)
		x.reason = fmt.Sprintf("a learner on %s was left behind: it becomes the voter that is missing", p.s.idOf(l))
	default:
		return nil
	}
	if p.s.worthOf(v, x.voters).hard > p.s.worthOf(v, v.voters).hard || !v.safe(x.adds, x.removes) {
		return nil
	}
	if v.e.leader != none && !x.voters.has(v.e.leader) {
		x.leader = p.bestLeader(v, x.voters, x.adds, none)
	}
	return x
}

// yields is the voter in whose place the learner comes: one that is lost, leaves, or is not wanted while the learner is.
func (p *pass) yields(v *view, l slot) slot {
	if v.x.isWanted {
		for _, n := range v.voters.slice() {
			if !v.wants(n) && v.wants(l) {
				return n
			}
		}
		return none
	}
	for _, n := range v.voters.slice() {
		if p.s.nodes[n].lost(v.r.FailedAfter) {
			return n
		}
	}
	for _, n := range v.voters.slice() {
		if p.s.nodes[n].State == Leaving {
			return n
		}
	}
	return none
}
