package allocator

import "fmt"

// The fourth goal replaces what is lost: replicas on nodes that failed, have left, of which there is no record, or which have been
// suspect for as long as the range's placement says. The guards (guard.go) slow it or stop it. Without a node to take the place, a
// lost voter is removed only if that makes the range safer: of five with two lost three remain, of which one more may fail.

func (s *Snapshot) lostVoter(v *view) slot {
	for _, n := range v.voters.slice() {
		if s.nodes[n].lost(v.r.FailedAfter) {
			return n
		}
	}
	return none
}

func (s *Snapshot) lostReason(at slot) string {
	n := &s.nodes[at]
	switch {
	case !n.known:
		return fmt.Sprintf("there is no record of %s", n.ID)
	case n.State == Left:
		return fmt.Sprintf("%s has left", n.ID)
	case n.State == Failed:
		return fmt.Sprintf("%s has failed", n.ID)
	}
	return fmt.Sprintf("%s has been suspect for %s", n.ID, n.Suspected)
}

func wantsReplace(s *Snapshot, v *view) bool {
	for _, n := range v.voters.slice() {
		if x := &s.nodes[n]; !x.known || x.State == Suspect || x.State == Failed || x.State == Left {
			return true
		}
	}
	return false
}

func planReplace(p *pass, v *view) (x *proposal, because why) {
	lost := set{}
	for _, n := range v.voters.slice() {
		if p.s.nodes[n].lost(v.r.FailedAfter) {
			lost.add(n)
		}
	}
	if lost.n == 0 {
		return nil, whySuspect
	}
	guarded := false // one that may come back while nodes fail together: it is not removed with those that will not
	for _, out := range lost.slice() {
		_, _, against := p.replacing(out)
		guarded = guarded || against != whyNot
		if against == whyNot && v.voters.n > v.r.Replicas {
			x, because = p.drop(v, GoalReplace, out, p.s.lostReason(out)+", and there are more voters than asked for: it is removed")
		} else {
			x, because = p.swap(v, GoalReplace, out, p.s.lostReason(out))
		}
		if x != nil {
			return x, whyNot
		}
	}
	if because == whyNoNode && lost.n >= 2 && !guarded {
		return p.shrink(v, lost)
	}
	return nil, because
}

// shrink removes all that is lost, if an odd number remains that needs fewer to go on.
func (p *pass) shrink(v *view, lost set) (*proposal, why) {
	rest := v.voters
	for _, n := range lost.slice() {
		rest = rest.without(n)
	}
	if rest.n%2 == 0 || rest.n < v.r.atLeast() || !v.safe(set{}, lost) ||
		p.s.worthOf(v, rest).hard > p.s.worthOf(v, v.voters).hard {
		return nil, whyNoNode
	}
	x := &proposal{goal: GoalReplace, voters: rest, removes: lost, leader: none}
	x.reason = fmt.Sprintf("%d voters are lost, and no node could take their place: the %d that remain are safer alone", lost.n, rest.n)
	return p.withinLimits(x)
}
