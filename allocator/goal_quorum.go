package allocator

import "fmt"

// The second goal is ranges that the next failure would stop: two or more voters are not there, or have not caught up, and those
// that are left are just a quorum. A lost one is replaced before any other range's, without being slowed by the guard; a voter that
// is well is never the one that goes. If fewer than a quorum are left there is nothing that anybody could change.

func wantsQuorum(_ *Snapshot, v *view) bool {
	q := quorum(v.voters.n)
	return v.well.n < q || v.well.n == q && v.voters.n-v.well.n >= 2
}

func planQuorum(p *pass, v *view) (*proposal, why) {
	if v.well.n < quorum(v.voters.n) {
		return nil, whyQuorumLost
	}
	if out := p.s.lostVoter(v); out != none {
		because := fmt.Sprintf("%d of %d voters are not there, and one more would stop it; %s", v.voters.n-v.well.n, v.voters.n, p.s.lostReason(out))
		return p.swap(v, GoalQuorum, out, because)
	}
	return nil, whyBehind
}
