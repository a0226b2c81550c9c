package raftgroup

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/raftgroup/support"
)

// This file is the follower's side of a lease: what it promised to its leader, which votes it holds back for that, and
// who campaigns when the promise has ended.

// Promised tells a Loop of a change of what this node promises to another: its support began under a new token, or ended.
type Promised struct {
	Node        base.NodeID
	Incarnation base.Incarnation // of the node that is supported
	Token       support.Token    // of this node's support
	Live        bool             // false: withdrawn, or ended by a new start of the node
}

// fortified is a promise of a follower to its leader: none of its votes, and no campaign, while its node supports the
// leader's.
type fortified struct {
	live    bool
	term    uint64
	node    base.NodeID
	replica base.ReplicaID
}

// transfer is the context of votes in an election that the leader itself asked for.
var transfer = []byte("CampaignTransfer")

// heldBack is how long a vote that was held back is remembered: as long as its candidate waits for it at least.
const heldBack = time.Second

// promised takes note of what this node promises. The replicas that follow a node whose support ended are free to elect
// another; where there are many, they do so one after the other, the system's ranges first.
func (l *Loop) promised(p *Promised) {
	if p.Live {
		l.promises[p.Node] = *p
		return
	}
	if known, ok := l.promises[p.Node]; !ok || known.Token != p.Token || mutant.Is(mutant.LeaderNeverDropped) {
		return
	}
	ended := *p
	l.promises[p.Node] = ended
	var waking []*group
	var cold []base.RangeID
	for _, id := range slices.Sorted(maps.Keys(l.cold)) {
		if r := l.cold[id]; !r.leading && r.fort.node == p.Node {
			cold = append(cold, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.groups)) {
		g := l.groups[id]
		follows := g.lead != 0 && g.nodeOf(g.lead) == p.Node || g.fort.live && g.fort.node == p.Node
		if g.role != raft.StateLeader && follows {
			waking = append(waking, g)
		}
	}
	// The second in line waits until the first can have had its turn in all of them.
	step := l.cfg.successionStep() + 2*min(time.Duration(len(waking)+len(cold))*wakeEvery, wakeWithin)
	for i, g := range waking {
		l.unfortify(g, true)
		l.succeed(g, min(time.Duration(i)*wakeEvery, wakeWithin), step)
	}
	for _, id := range cold {
		l.cold[id].fort.live = false
		l.waking = append(l.waking, bereft{id, func(g *group) {
			l.unfortify(g, true)
			l.succeed(g, 0, step)
		}})
	}
}

// bereft is a cold follower that is to be built again soon, because its leader is lost.
type bereft struct {
	id   base.RangeID
	then func(*group)
}

// wakePerStep is how many cold replicas are built again in one step: as many as leave the step below some ten milliseconds.
const wakePerStep = 200

// wakeCold builds the next of those again, some in each step. Followers without a leader come before leaders that only look up:
// a node that is back has them all look up.
func (l *Loop) wakeCold() {
	n := min(len(l.waking), wakePerStep)
	for _, w := range l.waking[:n] {
		if g := l.group(w.id); g != nil && !g.leading && !g.fort.live && l.withdrawn(g) {
			w.then(g)
		}
	}
	l.waking = base.Without(l.waking, n)
	n = min(len(l.lookers), wakePerStep-n)
	for _, id := range l.lookers[:n] {
		if g := l.group(id); g != nil && g.leading {
			l.lookUp(g)
		}
	}
	l.lookers = base.Without(l.lookers, n)
}

// The elections of the ranges that one node led begin one after the other, and all within a second: 10,000 of them at
// once would hold up each other.
const (
	wakeEvery  = 50 * time.Microsecond
	wakeWithin = time.Second
)

// askedToFortify promises, if this replica follows that leader and this node supports the leader's.
func (l *Loop) askedToFortify(g *group, m *Message) {
	p := l.promises[m.FromNode]
	if !p.Live || p.Incarnation != m.Fort.Incarnation || g.term != m.Fort.Term || g.lead != m.FromReplica ||
		g.role != raft.StateFollower || g.unborn {
		return
	}
	g.fort = fortified{true, g.term, m.FromNode, m.FromReplica}
	g.heldBack = nil
	l.stood(g)
	g.electAt = base.Never
	l.coolLater(g)
	l.retime(g)
	l.emitFort(g, m.FromReplica, m.FromNode, FortMessage{Kind: FortGiven, Term: g.term, Token: p.Token})
}

// released takes a leader's word that it leads no more. It is told once, or in answer to FortInquire.
func (l *Loop) released(g *group, m *Message) {
	if g.fort.live && g.fort.node == m.FromNode && g.fort.term <= m.Fort.Term {
		l.unfortify(g, true)
		l.succeed(g, 0, l.cfg.successionStep())
	}
}

// heard answers the word that ends a promise, whatever there is of the replica here: it need not be said again.
func (l *Loop) heard(m *Message) {
	l.eff.Messages = append(l.eff.Messages, Message{
		Range: m.Range, FromNode: l.cfg.Node, ToNode: m.FromNode, FromReplica: m.ToReplica, ToReplica: m.FromReplica,
		Fort: &FortMessage{Kind: FortHeard, Term: m.Fort.Term},
	})
}

// inquired answers a follower that holds a vote back for this replica. A replica that is not here leads nothing.
func (l *Loop) inquired(g *group, m *Message) {
	if g != nil && g.replica == m.ToReplica && g.role == raft.StateLeader && g.term == m.Fort.Term {
		l.touch(g)
		return
	}
	if mutant.Is(mutant.ReleaseNotSent) || g != nil && g.unborn {
		return
	}
	l.eff.Messages = append(l.eff.Messages, Message{
		Range: m.Range, FromNode: l.cfg.Node, ToNode: m.FromNode, FromReplica: m.ToReplica, ToReplica: m.FromReplica,
		Fort: &FortMessage{Kind: FortRelease, Term: m.Fort.Term},
	})
}

// unfortify ends a promise. forget says that the leader is to be taken for lost too.
func (l *Loop) unfortify(g *group, forget bool) {
	g.fort.live = false
	if !forget || g.role == raft.StateLeader {
		return
	}
	_ = g.rn.ForgetLeader()
	l.touch(g)
	if m := g.heldBack; m != nil {
		g.heldBack = nil
		if l.now.Sub(g.heldAt) < heldBack {
			_ = g.rn.Step(m) // it asks still, or does not mind an answer
		}
	}
}

// silent says whether this replica may be bound by promises of its node's earlier process, of which nothing is known.
func (l *Loop) silent(g *group) bool {
	return l.cfg.SilentFor > 0 && l.now <= l.silentUntil && !g.bornHere && !g.soleVoter() && !mutant.Is(mutant.SilenceIgnored)
}

// withholds says whether a request for a vote is to be dropped. A candidate that the leader itself asked to campaign has
// its votes: that leader gave its lease up before.
func (l *Loop) withholds(g *group, m *Message) bool {
	if bytes.Equal(m.Raft.GetContext(), transfer) {
		return false
	}
	if l.silent(g) {
		return true
	}
	if !g.fort.live || mutant.Is(mutant.VotesWhileFortified) {
		return false
	}
	if m.Raft.GetType() == raftpb.MsgPreVote {
		g.heldBack, g.heldAt = m.Raft, l.now
	}
	l.emitFort(g, g.fort.replica, g.fort.node, FortMessage{Kind: FortInquire, Term: g.fort.term})
	return true
}

// receiveFort delivers what another replica says about the lease.
func (l *Loop) receiveFort(g *group, m *Message) {
	if m.Fort.Kind == FortInquire {
		if g == nil {
			g = l.groupOrLoad(m.Range)
		}
		l.inquired(g, m)
		return
	}
	if m.Fort.Kind == FortRelease {
		// It counts also if its sender was removed from the range since: that is why it leads no more, often.
		if g = l.groupOrLoad(m.Range); g != nil && g.replica == m.ToReplica {
			l.tellRemoved(g, m)
			l.released(g, m)
		}
		return
	}
	if m.Fort.Kind == FortGiven {
		l.given(g, m)
		return
	}
	if g = l.resolve(g, m); g != nil && m.Fort.Kind == FortAsk {
		l.askedToFortify(g, m)
	}
}

// given takes a promise that a leader of this node had asked for. If it leads no more, or its follower was removed, it knew
// nothing of the promise when it told those of whom it knew: it owes this one the word too, for a follower that is bound waits
// for nothing else.
func (l *Loop) given(g *group, m *Message) {
	if g == nil {
		g = l.groupOrLoad(m.Range)
	}
	f := Fort{m.FromNode, m.Fort.Token}
	switch {
	case g == nil || g.replica != m.ToReplica || g.role != raft.StateLeader || g.term != m.Fort.Term:
		l.owe(m.Range, m.ToReplica, m.FromReplica, f, m.Fort.Term, 0)
	case removed(g.log.desc, m.FromReplica):
		l.owe(m.Range, m.ToReplica, m.FromReplica, f, g.term, deadBelow(g.log.desc, m.FromNode))
	default:
		l.fortified(g, m)
	}
}

// succeed sets the time at which a replica that has lost its leader campaigns: one after the other in an order that all
// of them know, so that they do not divide the votes. It begins at another replica in each range, so that one node does
// not lead all that another did. One that is not up to date is refused, and whoever refuses it campaigns in its place.
func (l *Loop) succeed(g *group, wait, step time.Duration) {
	if !g.voter() || g.role == raft.StateLeader {
		l.restartElection(g)
		return
	}
	g.tries = 0
	g.electAt = l.now.Add(wait + time.Duration(g.rank())*step)
	l.retime(g)
}

// rank is this replica's place in the order of successors.
func (g *group) rank() int {
	var voters []base.ReplicaID
	for _, r := range g.log.desc.GetReplicas() {
		if id := base.ReplicaID(r.ReplicaId); r.Role != metapb.ReplicaRole_REPLICA_ROLE_LEARNER && id != g.fort.replica {
			voters = append(voters, id)
		}
	}
	slices.Sort(voters)
	at := slices.Index(voters, g.replica)
	if at < 0 {
		return len(voters)
	}
	n := len(voters)
	return (at + n - int(uint64(g.id)%uint64(n))) % n
}

// refuses says whether a candidate's log is behind this replica's: then this one is the better leader.
func (g *group) refuses(m *raftpb.Message) bool {
	term, err := g.log.Term(g.log.last)
	return err == nil && (m.GetLogTerm() < term || m.GetLogTerm() == term && m.GetIndex() < g.log.last)
}
