package raftgroup

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/raftgroup/support"
)

// This file is the leader's side of a lease: asking for fortification, the gate that readers see, giving a term up, and
// stepping down. What a follower promises is in fortify.go; why it is safe, in doc.go of raftgroup/support.

// FortKind is what a FortMessage says.
type FortKind uint8

// The kinds.
const (
	FortAsk     FortKind = iota + 1 // leader: vote for nobody else while your node supports mine
	FortGiven                       // follower: I do not, under this token
	FortRelease                     // former leader: I do not lead at that term, and never will again
	FortInquire                     // follower: somebody asks for my vote; do you still lead at that term?
	FortHeard                       // follower: I know that you do not lead at that term
)

// FortMessage is what leaders and followers say about the lease of their range.
type FortMessage struct {
	Kind        FortKind
	Term        uint64
	Incarnation base.Incarnation // FortAsk: of the leader's node
	Token       support.Token    // FortGiven: of the follower's node
}

// lease is what a leader keeps of its own.
type lease struct {
	forts   map[base.ReplicaID]Fort        // nil on others than leaders
	asked   map[base.ReplicaID]base.NodeID // who may have promised: the answer can be lost
	givenUp bool                           // no lease reads in this term ever again
	held    bool                           // it was valid once in this term
	opened  bool                           // an entry of this term is applied: the current gate is shown
	shown   bool                           // a gate is shown, this one or one before it
	stale   bool                           // what the gate is made of has changed
	ask     bool                           // followers are to be asked at the end of the step
	since   base.Instant                   // of this leadership
	gaveAt  base.Instant                   // when it was given up
	current *Gate
	commit  uint64 // as readers were told
}

// beginLease is called when a replica becomes leader.
func (l *Loop) beginLease(g *group) {
	g.lease = lease{forts: make(map[base.ReplicaID]Fort), asked: make(map[base.ReplicaID]base.NodeID), stale: true, ask: true, since: l.now}
	l.unfortify(g, false)
}

// endLease is called when a replica is leader no more. Its followers are told, so that they need not wait.
func (l *Loop) endLease(g *group, term uint64) {
	if g.lease.forts == nil {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(g.lease.asked)) {
		l.owe(g.id, g.replica, id, l.mayBeBound(g, id), term, 0)
	}
	l.closeGate(g)
	g.lease = lease{}
}

// mayBeBound is the promise of a follower that was asked for one: the one that this leader knows of, or one whose answer
// was lost. A follower promises under the support that its node gives at that time.
func (l *Loop) mayBeBound(g *group, id base.ReplicaID) Fort {
	if f, ok := g.lease.forts[id]; ok {
		return f
	}
	node := g.lease.asked[id]
	token, _ := l.cfg.Supports.Support(node)
	return Fort{node, token}
}

func sortedForts(m map[base.ReplicaID]Fort) []base.ReplicaID {
	ids := make([]base.ReplicaID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (l *Loop) emitFort(g *group, to base.ReplicaID, node base.NodeID, f FortMessage) {
	if node == 0 || node == l.cfg.Node || g.unborn {
		return
	}
	l.eff.Messages = append(l.eff.Messages, Message{
		Range: g.id, FromNode: l.cfg.Node, ToNode: node, FromReplica: g.replica, ToReplica: to, Fort: &f,
	})
}

// support is what this node has of another now; false if nothing that lasts.
func (l *Loop) support(node base.NodeID) (support.Token, bool) {
	if l.cfg.Supports == nil {
		return support.Token{}, false
	}
	token, until := l.cfg.Supports.Support(node)
	return token, until > l.now
}

// askForts asks each follower that has not promised under its node's newest token. A lost question is asked again at the
// next tick.
func (l *Loop) askForts(g *group) {
	g.lease.ask = false
	if g.role != raft.StateLeader || l.cfg.Supports == nil || g.lease.givenUp {
		return
	}
	for _, r := range g.log.desc.GetReplicas() {
		id, node := base.ReplicaID(r.ReplicaId), base.NodeID(r.NodeId)
		if id == g.replica {
			continue
		}
		if token, ok := l.support(node); ok && g.lease.forts[id].Token != token {
			g.lease.asked[id] = node
			l.emitFort(g, id, node, FortMessage{Kind: FortAsk, Term: g.term, Incarnation: l.cfg.Incarnation})
		}
	}
}

// fortified takes a follower's promise. One to a leader that has given its lease up counts for nothing, and is to be ended as
// the others are.
func (l *Loop) fortified(g *group, m *Message) {
	if g.nodeOf(m.FromReplica) != m.FromNode {
		return
	}
	if old := g.lease.forts[m.FromReplica]; old.Node == m.FromNode && m.Fort.Token.Less(old.Token) {
		return
	}
	g.spoke[m.FromReplica] = l.now
	g.lease.forts[m.FromReplica] = Fort{m.FromNode, m.Fort.Token}
	g.lease.asked[m.FromReplica] = m.FromNode
	g.lease.stale = true
	l.touch(g)
}

// leaseUntil is the end of a leader's lease; 0 if it has none.
func (l *Loop) leaseUntil(g *group) base.Instant {
	if g.role != raft.StateLeader || g.lease.givenUp && !mutant.Is(mutant.TransferKeepsLease) || l.cfg.Supports == nil {
		return 0
	}
	if g.lease.current == nil || g.lease.stale {
		g.lease.current, g.lease.stale, g.lease.opened = g.gate(), false, false
	}
	return g.lease.current.Until(l.cfg.Supports)
}

// leased says whether reads may be answered from what is committed here.
func (l *Loop) leased(g *group) bool {
	return g.role == raft.StateLeader && g.ownTermApplied() && l.now < l.leaseUntil(g)
}

// refreshGate shows readers the lease as it is now: after each step, if anything of it changed. It is shown once an entry
// of this term is applied, whether or not it is valid: support comes and goes without the loop.
func (l *Loop) refreshGate(g *group) {
	if g.role != raft.StateLeader || l.cfg.Supports == nil {
		return
	}
	if !g.lease.held || g.lease.current == nil || g.lease.stale {
		g.lease.held = l.leaseUntil(g) > l.now || g.lease.held
	}
	if g.lease.givenUp || !g.lease.opened && !g.ownTermApplied() {
		return
	}
	if commit := g.log.hard.GetCommit(); !g.lease.opened || commit != g.lease.commit {
		g.lease.commit = commit
		l.eff.Commits = append(l.eff.Commits, Commit{g.id, commit})
	}
	if !g.lease.opened {
		g.lease.opened, g.lease.shown = true, true
		l.eff.Gates = append(l.eff.Gates, GateChange{g.id, g.lease.current})
	}
}

// closeGate takes the lease away from readers. The driver does so before the step's messages leave.
func (l *Loop) closeGate(g *group) {
	if g.lease.shown && !mutant.Is(mutant.GateStaysOpen) {
		l.eff.Gates = append(l.eff.Gates, GateChange{g.id, nil})
	}
	g.lease.opened, g.lease.shown, g.lease.current = false, false, nil
}

// giveUp ends the lease of this term for good, before leadership is handed over: the next leader is elected while the
// followers' promises last.
func (l *Loop) giveUp(g *group) {
	if g.lease.forts == nil || g.lease.givenUp {
		return
	}
	if !mutant.Is(mutant.TransferKeepsLease) {
		l.closeGate(g)
	}
	g.lease.givenUp, g.lease.gaveAt = true, l.now
}

// checkLease has a leader step down that no quorum supports any more, or whose transfer failed: nothing keeps others from
// being elected, and a node whose disk is stuck or that nobody hears is better off following.
func (l *Loop) checkLease(g *group) (steppedDown bool) {
	if g.role != raft.StateLeader || l.cfg.Supports == nil {
		return false
	}
	if g.soleVoter() {
		if g.lease.givenUp { // the one to whom it was to go is no voter any more: nobody is elected without this one's vote
			g.lease.givenUp, g.lease.stale = false, true
			l.touch(g)
		}
		return false
	}
	switch until := l.leaseUntil(g); {
	case g.lease.givenUp:
		if l.now.Sub(g.lease.gaveAt) >= l.cfg.electionTimeout() {
			return l.stepDown(g, "the transfer of its leadership failed")
		}
	case until > l.now:
		g.lease.held = true
	case mutant.Is(mutant.LeaderWithoutSupportStays):
	case g.lease.held:
		return l.stepDown(g, "no quorum supports its node any more")
	case l.now.Sub(g.lease.since) >= 2*l.cfg.electionTimeout() && (l.everSupported(g) || !l.asks(g)):
		return l.stepDown(g, "no quorum has supported its node since it was elected")
	}
	return false
}

// asks says whether this replica's node asks for the support without which it is not to lead.
func (l *Loop) asks(g *group) bool {
	return l.cfg.Supports == nil || g.soleVoter() || l.cfg.Supports.Asks()
}

// everSupported says whether any of the range's nodes ever supported this one: a cluster whose nodes know nothing of
// support yet is led without.
func (l *Loop) everSupported(g *group) bool {
	return slices.ContainsFunc(g.log.desc.GetReplicas(), func(r *metapb.Replica) bool {
		token, _ := l.cfg.Supports.Support(base.NodeID(r.NodeId))
		return token != support.Token{}
	})
}

// stepDown makes a follower of a leader. Raft does so when it finds that no quorum was active since it last looked; the
// second look of two finds that.
func (l *Loop) stepDown(g *group, why string) bool {
	for range 2 {
		_ = g.rn.Step(&raftpb.Message{Type: raftpb.MsgCheckQuorum.Enum(), From: new(raft.LocalAppendThread)})
	}
	g.logger.say("%s", why)
	l.touch(g)
	return g.rn.BasicStatus().RaftState != raft.StateLeader
}

// leaseStatus says what a replica's lease is now.
func (l *Loop) leaseStatus(g *group, s *Status) {
	if g.fort.live {
		s.Fortified = g.fort.node
	}
	until := l.leaseUntil(g)
	if until <= l.now {
		return
	}
	if s.LeaseForEver = until == base.Never; !s.LeaseForEver {
		s.LeaseLeft = until.Sub(l.now)
	}
	for _, id := range sortedForts(g.lease.forts) {
		if l.fortHolds(g, id) {
			s.Supporters = append(s.Supporters, g.lease.forts[id].Node)
		}
	}
}
