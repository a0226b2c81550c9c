package raftgroup

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

var (
	errDestroyed = errors.New("the replica was removed from this node")
	errReplaced  = errors.New("the replica's state was replaced by a snapshot")
)

// load brings a replica that the store holds into the loop; nil if it holds none. One that stopped between the applying of
// its own removal and its end is ended now: nobody speaks to it any more, and it asks nobody.
func (l *Loop) load(id base.RangeID) *group {
	if l.cold[id] != nil {
		return nil // its end is on its way: absorb.go
	}
	ld := l.mustLoad(id)
	switch {
	case ld.ReplicaID == 0:
		return nil
	case ld.ReplicaID < ld.Tombstone: // it was taken over just before the node stopped
		l.bury(id, ld.Tombstone)
		return nil
	}
	g := l.add(id, ld.ReplicaID, &ld)
	if removed(ld.Descriptor, g.replica) {
		l.destroy(g, deadBelow(ld.Descriptor, l.cfg.Node), "removed from the range before it was stopped")
		return nil
	}
	return g
}

// groupOrLoad is group, or load for a replica that is not in the loop yet.
func (l *Loop) groupOrLoad(id base.RangeID) *group {
	if g := l.group(id); g != nil {
		return g
	}
	return l.load(id)
}

func (l *Loop) mustLoad(id base.RangeID) Loaded {
	ld, err := l.cfg.Store.Load(id)
	if err != nil {
		panic(fmt.Errorf("%s: the store cannot be read: %w", id, err))
	}
	if t := l.buried[id]; t > ld.Tombstone {
		ld = Loaded{Tombstone: t} // destroyed in this step, which the store does not show yet
	}
	return ld
}

func (l *Loop) add(id base.RangeID, replica base.ReplicaID, ld *Loaded) *group {
	g, err := l.newGroup(id, replica, ld)
	if err != nil {
		panic(err)
	}
	l.groups[id] = g
	l.retime(g)
	l.touch(g)
	return g
}

// receive delivers one message of another node.
func (l *Loop) receive(m *Message) {
	if m.Fort != nil && m.Fort.Kind == FortHeard {
		l.paid(m)
		return
	}
	g := l.group(m.Range)
	if m.Fort != nil && m.Fort.Kind == FortRelease {
		l.heard(m)
	}
	if m.TooOld != 0 {
		// One that has state ends by its neighbour's log, which may still need it: absorb.go.
		ended := m.TooOld == DeadForEver && m.FromNode != l.cfg.Node && g != nil && g.log.desc != nil
		if g != nil && g.replica == m.ToReplica && g.replica < m.TooOld && !ended {
			l.destroy(g, m.TooOld, "told by "+m.FromNode.String()+" that it was removed")
		}
		return
	}
	if m.Fort != nil {
		l.receiveFort(g, m)
		return
	}
	if m.Raft == nil || m.Raft.GetType() == raftpb.MsgSnap {
		return // a snapshot is stepped when its data is here: Admin.Received
	}
	if g = l.resolve(g, m); g == nil {
		return
	}
	l.hear(g, m)
	switch m.Raft.GetType() {
	case raftpb.MsgPreVote, raftpb.MsgVote:
		if l.withholds(g, m) {
			return
		}
	case raftpb.MsgTimeoutNow:
		if m.Raft.GetTerm() == g.term && m.FromReplica == g.fort.replica {
			l.unfortify(g, false) // its leader gave its lease up before it said so
			l.restartElection(g)
		}
	case raftpb.MsgHeartbeatResp:
		g.verify(m.Raft)
	case raftpb.MsgReadIndex:
		if l.leased(g) {
			l.answerRead(g, m)
			return
		}
		if g.soleVoter() && !g.ownTermApplied() {
			// What was committed before this leader's term is not known yet. Raft waits for that, but not where one voter
			// is all; the asker asks again.
			return
		}
	case raftpb.MsgTransferLeader:
		return // leadership is handed over by the leader's own node
	}
	_ = g.rn.Step(g.unasked(m.Raft)) // its errors speak of messages from strangers
	l.touch(g)
	if m.Raft.GetType() == raftpb.MsgPreVote {
		l.standInstead(g, m.Raft)
	}
}

// unasked makes of a leader's word that entries which are here are committed, which it says once to each follower for each put, one
// that Raft does not answer: the leader has learned nothing when it hears what it heard before. One that tells nothing new asks
// whether the entries are here, and is answered.
func (g *group) unasked(m *raftpb.Message) *raftpb.Message {
	if m.GetType() != raftpb.MsgApp || len(m.GetEntries()) > 0 || m.GetTerm() != g.term || g.role != raft.StateFollower || g.lead != base.ReplicaID(m.GetFrom()) {
		return m
	}
	to := min(m.GetCommit(), m.GetIndex())
	if t, err := g.log.Term(m.GetIndex()); err != nil || t != m.GetLogTerm() || to <= g.log.hard.GetCommit() {
		return m
	}
	return &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: m.From, To: m.To, Term: m.Term, Commit: &to, Context: mute,
	}
}

// mute is the context of a heartbeat that no leader sent, and of the answer that none gets. What a leader asks is longer.
var mute = []byte{0}

// resolve finds the replica that a message is for: it may have to be made, and its sender may be dead.
func (l *Loop) resolve(g *group, m *Message) *group {
	if g == nil {
		if g = l.load(m.Range); g == nil {
			return l.create(m)
		}
	}
	if l.tellRemoved(g, m) {
		return nil
	}
	switch {
	case m.ToReplica < g.replica:
		return nil // for a replica that was removed; ids are never used twice
	case m.ToReplica > g.replica:
		if !fromLeader(m.Raft) {
			return nil
		}
		l.destroy(g, m.ToReplica, "its place was taken by a newer replica")
		return l.create(m)
	}
	return g
}

// tellRemoved tells a sender that was removed from the range that it was. It may speak to one that was removed too and
// whose place here another took: those that it knows may all be gone, and nobody else would tell it.
func (l *Loop) tellRemoved(g *group, m *Message) bool {
	if g.unborn || !removed(g.log.desc, m.FromReplica) {
		return false
	}
	l.eff.Messages = append(l.eff.Messages, Message{
		Range: m.Range, FromNode: l.cfg.Node, ToNode: m.FromNode, FromReplica: g.replica, ToReplica: m.FromReplica,
		TooOld: deadBelow(g.log.desc, m.FromNode),
	})
	return true
}

// removed says that the range had that replica once, and no longer has.
func removed(d *metapb.RangeDescriptor, id base.ReplicaID) bool {
	if d == nil || uint64(id) >= d.NextReplicaId {
		return false
	}
	for _, r := range d.Replicas {
		if base.ReplicaID(r.ReplicaId) == id {
			return false
		}
	}
	return true
}

// deadBelow returns the id below which the range's replicas on a node are dead: that of its present replica there, which
// may have come after one that does not know of its end yet; or the next that the range will have anywhere.
func deadBelow(d *metapb.RangeDescriptor, node base.NodeID) base.ReplicaID {
	for _, r := range d.Replicas {
		if base.NodeID(r.NodeId) == node {
			return base.ReplicaID(r.ReplicaId)
		}
	}
	return base.ReplicaID(d.NextReplicaId)
}

// create makes an empty replica for a leader that speaks to it, or for a candidate that nobody else can elect, unless the tombstone
// says that it is dead.
func (l *Loop) create(m *Message) *group {
	ld := l.mustLoad(m.Range)
	if !fromLeader(m.Raft) && ld.Tombstone != DeadForEver && !l.keepEarly(m) {
		return nil
	}
	if (m.ToReplica < ld.Tombstone || m.ToReplica < ld.ReplicaID) && !mutant.Is(mutant.TombstoneIgnored) {
		l.tellEnded(m, ld.Tombstone)
		return nil
	}
	return l.add(m.Range, m.ToReplica, &Loaded{Tombstone: ld.Tombstone})
}

// fromLeader says whether only a leader sends such a message.
func fromLeader(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		return true
	}
	return false
}

// hear takes note of who spoke, before Raft does.
func (l *Loop) hear(g *group, m *Message) {
	if g.nodeOf(m.FromReplica) != m.FromNode {
		g.nodes[m.FromReplica] = m.FromNode
	}
	if g.role == raft.StateLeader {
		g.spoke[m.FromReplica] = l.now
		if m.Raft.GetType() != raftpb.MsgHeartbeatResp {
			g.stirred = l.now
		}
	}
	switch {
	case fromLeader(m.Raft):
		if m.Raft.GetTerm() >= g.term {
			g.lastHeard = l.now
		}
	case m.Raft.GetType() == raftpb.MsgPreVote, m.Raft.GetType() == raftpb.MsgVote:
		// Raft would refuse to vote as long as it remembers a leader, for its follower is never ticked.
		lost := l.withdrawn(g) || l.now.Sub(g.lastHeard) >= l.cfg.electionTimeout()
		if g.role != raft.StateLeader && g.lead != 0 && lost && !g.fort.live {
			_ = g.rn.ForgetLeader()
		}
	}
}

// destroy ends a replica: everything of it is deleted and its tombstone left. The range's other replicas go on.
func (l *Loop) destroy(g *group, tombstone base.ReplicaID, why string) {
	tombstone = max(tombstone, g.replica+1)
	g.destroyed = true
	l.stood(g)
	l.timers.set(g, base.Never)
	l.retime(g)
	delete(l.groups, g.id)
	l.buried[g.id] = tombstone
	l.eff.Failed = g.proposals.end(errDestroyed, l.eff.Failed)
	l.endReads(g, func(*round) bool { return true }, true)
	l.dropStaged(g)
	l.endLease(g, g.term)
	l.endLatches(g, &base.RangeMoved{Range: g.id})
	l.eff.Appends = append(l.eff.Appends, Append{Range: g.id, Destroy: tombstone, Descriptor: g.log.desc})
	l.eff.Changes = append(l.eff.Changes, StateChange{
		Range: g.id, Replica: g.replica, Destroyed: true, Descriptor: g.log.desc, Reason: why,
	})
}
