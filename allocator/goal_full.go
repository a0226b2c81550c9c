package allocator

import "fmt"

// Part of balance, and before the rest of it: a node whose disk is about to be full gives replicas away, whatever its share. Nothing comes
// to a node from diskFull on, and it gives away from a little above, so that what went does not come back at once. How full it is
// is what it said last, and what has come and gone since by what is known of ranges: a disk says late that something was deleted.

// diskSheds is the share of a disk above which its node gives replicas away.
const diskSheds = 0.97

// used is how much of the node's disk is taken, once everything that is under way is done.
func (n *node) used() int64 { return n.DiskUsed + n.sum[dimBytes] - n.told }

// sheds says whether the node gives replicas away.
func (n *node) sheds() bool {
	return n.DiskBytes > 0 && n.State == Active && float64(n.used()) > diskSheds*float64(n.DiskBytes)
}

func wantsRoom(s *Snapshot, v *view) bool {
	if v.e.bytes == 0 || v.x.isWanted || s.policy.NoBalance {
		return false
	}
	for _, n := range v.voters.slice() {
		if s.nodes[n].sheds() {
			return true
		}
	}
	return false
}

func planRoom(p *pass, v *view) (*proposal, why) {
	now, because := p.s.worthOf(v, v.voters), whyNoNode
	for _, out := range v.voters.slice() {
		n := &p.s.nodes[out]
		if !n.sheds() {
			continue
		}
		q := query{v: v, goal: GoalBalance, keep: v.voters.without(out), hard: now.hard}
		x, w := p.swapFor(&q, out, fmt.Sprintf("the disk of %s is almost full (%d of %d bytes)", n.ID, n.used(), n.DiskBytes))
		if x != nil && p.s.worthOf(v, x.voters).compare(now) <= 0 {
			return x, whyNot
		}
		if x != nil {
			w = whyNoRoom
		}
		because = w
	}
	return nil, because
}
