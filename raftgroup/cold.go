package raftgroup

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// A replica of which nobody has wanted anything for long goes cold: its group is dropped, and a row stays of what is in no
// store: whom it follows, what it promised, what it was promised. Whatever concerns it builds the group again.
//
// A leader that is built again goes on at its term. Raft knows no way to start as a leader, so it is taken through an
// election that it has won already: it campaigns at the same term, for which its vote for itself is on disk, and is given
// the votes that it had. It then appends an empty entry, as a leader does at its begin, behind all that it has: one write
// for each time that a range becomes warm by being written to.

// row is what stays of a cold replica.
type row struct {
	replica  base.ReplicaID
	term     uint64
	lead     base.ReplicaID
	leading  bool
	bornHere bool
	fort     fortified
	forts    []rowFort     // of a leader
	nodes    []base.NodeID // of the range's replicas, this one's left out

	// What the store holds of the log, which is applied to its end.
	vote, last uint64
	truncated  TruncatedState
	terms      Terms
}

type rowFort struct {
	id   base.ReplicaID
	fort Fort
}

// group returns the range's group, which is built again if it is cold; nil if there is no replica.
func (l *Loop) group(id base.RangeID) *group {
	if g := l.groups[id]; g != nil {
		return g
	}
	if r := l.cold[id]; r != nil {
		return l.thaw(id, r)
	}
	return nil
}

// coolLater sets the time at which a group that nothing happens to goes cold. It is looked at only then.
func (l *Loop) coolLater(g *group) {
	if l.cfg.ColdAfter > 0 && g.coldAt == base.Never {
		g.coldAt = g.touched.Add(l.cfg.ColdAfter)
	}
}

// coolDue freezes a group if nothing happened to it since, and puts it off else.
func (l *Loop) coolDue(g *group) {
	switch {
	case l.now.Sub(g.touched) < l.cfg.ColdAfter:
		g.coldAt = g.touched.Add(l.cfg.ColdAfter)
	case !l.mayCool(g):
		g.coldAt = l.now.Add(l.cfg.ColdAfter)
	default:
		l.freeze(g)
	}
}

// mayCool says whether everything of a group is in the store or fits into a row.
func (l *Loop) mayCool(g *group) bool {
	if g.leading != g.resting() || !g.leading && (!g.fort.live || g.role != raft.StateFollower || g.lead != g.fort.replica) {
		return false
	}
	if g.leading && g.lease.givenUp || g.dirty || g.unborn || g.unwritten || g.staged != nil || g.log.desc == nil || g.latches != nil {
		return false
	}
	idle := len(g.reads.waiting)+len(g.reads.rounds)+len(g.proposals.placed)+len(g.proposals.unplaced)+len(g.sending)+len(g.applying) == 0
	return idle && g.applied == g.log.last && g.log.hard.GetCommit() == g.log.last && l.newest(g) == nil
}

func (l *Loop) freeze(g *group) {
	r := &row{
		replica: g.replica, term: g.term, lead: g.lead, leading: g.leading, bornHere: g.bornHere, fort: g.fort,
		vote: g.log.hard.GetVote(), last: g.log.last, truncated: g.log.truncated, terms: g.log.terms.clip(),
	}
	for _, id := range sortedForts(g.lease.forts) {
		r.forts = append(r.forts, rowFort{id, g.lease.forts[id]})
	}
	for _, rep := range g.log.desc.GetReplicas() {
		if n := base.NodeID(rep.NodeId); n != l.cfg.Node {
			r.nodes = append(r.nodes, n)
		}
	}
	r.nodes = slices.Clip(r.nodes)
	if mutant.Is(mutant.ColdForgetsPromise) {
		r.fort = fortified{}
	}
	l.closeGate(g)
	l.stood(g)
	l.timers.set(g, base.Never)
	g.coldAt = base.Never
	l.count(g, false)
	delete(l.groups, g.id)
	if r.leading {
		l.leaders++
	}
	l.cold[g.id] = r
	l.eff.Cold = append(l.eff.Cold, g.id)
}

// thaw builds a cold replica's group again.
func (l *Loop) thaw(id base.RangeID, r *row) *group {
	d, err := l.cfg.Store.Descriptor(id)
	if err != nil {
		panic(fmt.Errorf("%s: the store cannot be read: %w", id, err))
	}
	if d == nil {
		return nil // it was taken over, and is told in a moment: absorb.go
	}
	delete(l.cold, id)
	ld := Loaded{
		ReplicaID: r.replica, HardState: &raftpb.HardState{Term: new(r.term), Vote: new(r.vote), Commit: new(r.last)},
		Truncated: r.truncated, LastIndex: r.last, Applied: r.last, Descriptor: d, terms: &r.terms,
	}
	if r.leading {
		l.leaders--
		ld.HardState.Term, ld.HardState.Vote = new(r.term-1), new(uint64(0))
	}
	g := l.add(id, r.replica, &ld)
	g.bornHere, g.fort = r.bornHere, r.fort
	g.thawed = true
	if r.leading {
		l.leadAgain(g, r)
	} else {
		l.followAgain(g, r)
	}
	l.retime(g)
	return g
}

// followAgain has a group follow the leader that it followed.
func (l *Loop) followAgain(g *group, r *row) {
	g.electAt = base.Never
	if !g.fort.live {
		l.restartElection(g)
	}
	_ = g.rn.Step(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(r.lead)), To: new(uint64(r.replica)), Term: new(r.term)})
	l.unsaid(g)
	g.nodes[r.lead] = r.fort.node
	g.lastHeard = l.now
}

// leadAgain has a group lead at the term that it led at.
func (l *Loop) leadAgain(g *group, r *row) {
	_ = g.rn.Step(&raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: new(raft.LocalAppendThread), Term: new(r.term - 1)})
	l.unsaid(g)
	for _, rep := range g.log.desc.GetReplicas() {
		if id := base.ReplicaID(rep.ReplicaId); id != g.replica && rep.Role != metapb.ReplicaRole_REPLICA_ROLE_LEARNER {
			_ = g.rn.Step(&raftpb.Message{Type: raftpb.MsgVoteResp.Enum(), From: new(uint64(id)), To: new(uint64(g.replica)), Term: new(r.term)})
		}
	}
	g.log.hard = &raftpb.HardState{Term: new(r.term), Vote: new(uint64(g.replica)), Commit: new(g.log.hard.GetCommit())}
	g.term, g.role, g.lead, g.ballot = r.term, raft.StateLeader, g.replica, ballot{r.term, uint64(g.replica)}
	l.roleChanged(g)
	for _, f := range r.forts {
		g.lease.forts[f.id] = f.fort
	}
	for _, rep := range g.log.desc.GetReplicas() {
		if id := base.ReplicaID(rep.ReplicaId); id != g.replica {
			g.lease.asked[id] = base.NodeID(rep.NodeId) // whoever it was, it was asked before this one went cold
		}
	}
	g.lease.held = true
}

// unsaid takes what a group says while it is built again: it was said long ago, and is on disk. What it says once it leads, it
// says for the first time: one that decides alone leads as soon as its own vote is there.
func (l *Loop) unsaid(g *group) {
	for g.rn.HasReady() && g.rn.BasicStatus().RaftState != raft.StateLeader {
		rd := g.rn.Ready()
		if rd.SoftState != nil {
			g.role, g.lead = rd.RaftState, base.ReplicaID(rd.Lead)
		}
		if !raft.IsEmptyHardState(rd.HardState) {
			g.term, g.log.hard = rd.HardState.GetTerm(), rd.HardState
		}
		for _, m := range rd.Messages {
			if m.GetType() != raftpb.MsgStorageAppend {
				continue
			}
			for _, resp := range m.GetResponses() {
				if resp.GetTo() == uint64(g.replica) {
					_ = g.rn.Step(resp)
				}
			}
		}
	}
}

// heldUp says whether a cold leader has a quorum's support. Learners are taken for voters: then it may be built again for
// nothing.
func (l *Loop) heldUp(r *row) bool {
	held := 1
	for _, f := range r.forts {
		if token, up := l.support(f.fort.Node); up && token == f.fort.Token {
			held++
		}
	}
	return 2*held > len(r.nodes)+1
}

// concerns says whether a change of support of one of the nodes concerns a cold replica: of a node that its leader is on,
// or of one that a leader's followers are on.
func (r *row) concerns(nodes []base.NodeID) bool {
	return slices.ContainsFunc(r.nodes, func(n base.NodeID) bool { return slices.Contains(nodes, n) })
}

// coldStatus is what a cold replica is, without building it again.
func (l *Loop) coldStatus(id base.RangeID, r *row) Status {
	ld := l.mustLoad(id)
	s := Status{
		Range: id, Replica: r.replica, Descriptor: ld.Descriptor, Term: r.term, Leader: r.lead, LeaderNode: r.fort.node,
		Commit: ld.LastIndex, Applied: ld.Applied, First: ld.Truncated.Index + 1, Last: ld.LastIndex, Resting: r.leading,
	}
	if !r.leading {
		s.Role, s.Fortified = Follower, r.fort.node
		if d := ld.Descriptor; d != nil && slices.ContainsFunc(d.Replicas, func(x *metapb.Replica) bool {
			return base.ReplicaID(x.ReplicaId) == r.replica && x.Role == metapb.ReplicaRole_REPLICA_ROLE_LEARNER
		}) {
			s.Role = Learner
		}
		return s
	}
	s.Role, s.LeaderNode = Leader, l.cfg.Node
	g := &group{id: id, replica: r.replica, term: r.term, role: raft.StateLeader, lead: r.replica, leading: true}
	g.log.desc = ld.Descriptor
	g.lease.forts, g.lease.stale = make(map[base.ReplicaID]Fort), true
	for _, f := range r.forts {
		g.lease.forts[f.id] = f.fort
	}
	l.leaseStatus(g, &s)
	for _, rep := range ld.Descriptor.GetReplicas() {
		up := base.ReplicaID(rep.ReplicaId) == r.replica || l.fortHolds(g, base.ReplicaID(rep.ReplicaId))
		p := Progress{Replica: base.ReplicaID(rep.ReplicaId), State: "replicate", Recent: up}
		if up {
			p.Match = ld.LastIndex
		}
		s.Progress = append(s.Progress, p)
	}
	return s
}
