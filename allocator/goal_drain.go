package allocator

import "fmt"

// The fifth goal empties nodes: of replicas if they leave, or have been slow for long; of leaders if they drain or leave. Without a
// node to take its place, a replica of a node that leaves is removed, if as many remain as the placement says are enough.

func wantsDrain(s *Snapshot, v *view) bool {
	for _, n := range v.voters.slice() {
		if x := &s.nodes[n]; x.State == Leaving || x.slowLong {
			return true
		}
	}
	return v.e.leader != none && s.nodes[v.e.leader].emptying()
}

// emptying says whether the node is to lead nothing.
func (n *node) emptying() bool { return n.known && (n.Draining || n.State == Leaving) }

func planDrain(p *pass, v *view) (x *proposal, because why) {
	for _, out := range v.voters.slice() {
		n := &p.s.nodes[out]
		var w why
		switch {
		case n.State == Leaving:
			x, w = p.leave(v, out)
		case n.slowLong && p.guard.slowNodes:
			w = whySlowMany
		case n.slowLong:
			x, w = p.swap(v, GoalDrain, out, fmt.Sprintf("%s has been slow for %s (%s)", n.ID, n.SlowFor, n.Slow))
		}
		if x != nil {
			return x, whyNot
		}
		if because == whyNot {
			because = w
		}
	}
	if l := v.e.leader; l != none && p.s.nodes[l].emptying() {
		to := p.bestLeader(v, v.well, set{}, l)
		if to == none {
			return nil, whyNoLeader
		}
		return &proposal{
			goal: GoalDrain, leader: to, reason: fmt.Sprintf("%s is to lead nothing: %s does", p.s.idOf(l), p.s.idOf(to)),
		}, whyNot
	}
	return nil, because
}

func (p *pass) leave(v *view, out slot) (*proposal, why) {
	id := p.s.idOf(out)
	if v.voters.n > v.r.Replicas {
		if x, _ := p.drop(v, GoalDrain, out, fmt.Sprintf("%s leaves, and there are more voters than asked for", id)); x != nil {
			return x, whyNot
		}
	}
	x, w := p.swap(v, GoalDrain, out, fmt.Sprintf("%s leaves", id))
	if x == nil && w == whyNoNode && v.voters.n > v.r.atLeast() {
		return p.drop(v, GoalDrain, out, fmt.Sprintf("%s leaves, no node could take its replica, and %d are enough", id, v.voters.n-1))
	}
	return x, w
}
