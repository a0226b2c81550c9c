package raftgroup

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// A leader rests when its range is idle: it is in no list that anything walks, and sends nothing. Its followers have no
// timer as long as they are fortified. What ends the rest: whatever happens to the range here, and a change of support
// from one of its nodes. A follower that is lost costs no rest: its node's support has ended, and begins anew when it is
// back.

// restAfter is how many ticks a leader goes on after the last thing that happened. In the first but one of them its
// followers need not hear from it (calm).
const restAfter = 3

// resting says whether this is a leader that is not ticked.
func (g *group) resting() bool { return g.leading && g.tickAt == base.Never }

// tick is a leader's, a few times a second while its range is in use. Raft's own tick, which is a heartbeat, is for what may be
// lost: with a thousand ranges in use, each a few times a second, heartbeats were half of all messages.
func (l *Loop) tick(g *group) {
	if l.calm(g) { // it has its lease, and nobody is to be asked for a promise
		g.tickAt = l.now.Add(l.cfg.TickInterval)
		return
	}
	if l.checkLease(g) {
		g.tickAt = base.Never
		return
	}
	l.askForts(g)
	if l.mayRest(g) {
		g.tickAt = base.Never
		l.coolLater(g)
		return
	}
	g.rn.Tick()
	g.tickAt, g.tickedAt = l.now.Add(l.cfg.TickInterval), l.now
	l.touch(g)
}

// mayRest says whether everybody who can be reached has everything and knows that it is committed: they have answered a
// heartbeat since.
func (l *Loop) mayRest(g *group) bool {
	return l.now.Sub(g.stirred) >= restAfter*l.cfg.TickInterval && g.tickedAt > g.stirred && l.settled(g, g.tickedAt)
}

// calm says whether a tick of a range in use can do without a heartbeat: everybody who can be reached has everything. Only the
// word that it is committed can have been lost, and the next entry says that too, or the heartbeat before the rest.
func (l *Loop) calm(g *group) bool {
	return l.now.Sub(g.stirred) < (restAfter-1)*l.cfg.TickInterval && l.settled(g, 0)
}

// settled says whether nothing is under way, and everybody who can be reached has everything, holds back its votes, and has spoken
// since then.
func (l *Loop) settled(g *group, then base.Instant) bool {
	if l.cfg.Supports == nil || g.applied != g.log.last ||
		len(g.reads.waiting)+len(g.reads.rounds)+len(g.proposals.placed)+len(g.sending) > 0 ||
		!l.leased(g) || l.newest(g) != nil || g.latches != nil {
		return false
	}
	settled := true
	g.rn.WithProgress(func(rid uint64, _ raft.ProgressType, p tracker.Progress) {
		id := base.ReplicaID(rid)
		if _, up := l.support(g.nodeOf(id)); id == g.replica || !up {
			return
		}
		settled = settled && p.Match == g.log.last && p.State == tracker.StateReplicate && g.spoke[id] >= then && l.fortHolds(g, id)
	})
	return settled
}

// fortHolds says whether a follower's promise holds now.
func (l *Loop) fortHolds(g *group, id base.ReplicaID) bool {
	f, ok := g.lease.forts[id]
	if !ok {
		return false
	}
	token, up := l.support(f.Node)
	return up && token == f.Token
}

// supported takes note that the support of nodes began: leaders look to followers there, which may have started again.
func (l *Loop) supported(nodes []base.NodeID) {
	for _, id := range slices.Sorted(maps.Keys(l.cold)) {
		if r := l.cold[id]; r.leading && r.concerns(nodes) {
			l.lookers = append(l.lookers, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.groups)) {
		if g := l.groups[id]; g.leading && g.concerns(nodes) {
			l.lookUp(g)
		}
	}
}

// lost takes note that the support of nodes ran out: leaders that have no lease without it step down. The others go on as
// they were: one lost follower wakes no range.
func (l *Loop) lost(nodes []base.NodeID) {
	for _, id := range slices.Sorted(maps.Keys(l.cold)) {
		if r := l.cold[id]; r.leading && r.concerns(nodes) && !l.heldUp(r) {
			l.lookers = append(l.lookers, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.groups)) {
		if g := l.groups[id]; g.leading && g.concerns(nodes) && l.leaseUntil(g) <= l.now {
			l.lookUp(g)
		}
	}
}

func (g *group) concerns(nodes []base.NodeID) bool {
	return slices.ContainsFunc(g.log.desc.GetReplicas(), func(r *metapb.Replica) bool {
		return slices.Contains(nodes, base.NodeID(r.NodeId))
	})
}

// lookUp has a leader look to its lease and its followers.
func (l *Loop) lookUp(g *group) {
	if l.checkLease(g) {
		return
	}
	l.touch(g)
	g.lease.ask = true
	g.tickAt = l.now // a follower that has started again knows of no leader
	l.retime(g)
}

// part takes note of the replicas that a new descriptor no longer lists: they hear of nobody any more.
func (l *Loop) part(g *group, d *metapb.RangeDescriptor) {
	for _, id := range slices.Sorted(maps.Keys(g.lease.asked)) {
		if removed(d, id) {
			f := l.mayBeBound(g, id)
			l.owe(g.id, g.replica, id, f, g.term, deadBelow(d, f.Node))
			delete(g.lease.forts, id)
			delete(g.lease.asked, id)
		}
	}
}

// withdrawn says whether this node's support for the leader's node has ended: the leader is as good as lost, whatever may
// still be heard of it.
func (l *Loop) withdrawn(g *group) bool {
	p, ok := l.promises[g.nodeOf(g.lead)]
	return ok && !p.Live
}

// standInstead has this replica campaign soon if it refused a candidate whose log is behind its own.
func (l *Loop) standInstead(g *group, m *raftpb.Message) {
	if l.cfg.Supports == nil || g.lead != 0 || g.fort.live || g.role != raft.StateFollower || !g.voter() || !g.refuses(m) {
		return
	}
	g.electAt = min(g.electAt, l.now.Add(l.cfg.successionStep()/4))
	l.retime(g)
}
