package raftgroup

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/invariants"
	"github.com/cairndb/cairn/internal/mutant"
)

// group is one replica of one range: a RawNode, its log as far as it is in memory, and who waits for what.
type group struct {
	id      base.RangeID
	replica base.ReplicaID
	rn      *raft.RawNode
	log     logView
	logger  *reasons
	life    uint64 // tells this group from one that was built before of the same replica

	// What Raft last said of itself, from its Readys: asking it allocates.
	role raft.StateType
	term uint64
	lead base.ReplicaID

	ballot   ballot // of the HardState that was handed out to be written last
	applied  uint64 // reported by the driver
	handed   uint64 // handed out to be applied
	applying []pendingApply
	told     StateChange // the last that observers were told

	lease    lease     // of a leader
	fort     fortified // of a follower
	heldBack *raftpb.Message
	heldAt   base.Instant // when heldBack, a request for a vote, was held back
	bornHere bool         // its node's earlier processes have promised nothing in its name
	tries    int          // elections in a row that it did not win
	standing bool         // counted in Loop.candidates
	queued   bool         // in Loop.queue
	leading  bool         // as roleChanged last saw it
	leads    bool         // counted in Loop.leaders
	awake    bool         // counted in Loop.awake
	thawed   bool         // built again, and observers were not told yet
	touched  base.Instant // when anything last happened to it but ticks
	coldAt   base.Instant // when it is looked at for whether it goes cold
	stirred  base.Instant // when anything but a tick last happened to a leader
	tickedAt base.Instant

	timer     int          // index in the heap of deadlines, -1 if in none
	deadline  base.Instant // the earliest of those below
	tickAt    base.Instant // leader
	electAt   base.Instant // everybody else
	standAt   base.Instant // when a candidate that was not elected may stand again
	readsAt   base.Instant // the oldest read's time is over
	latchAt   base.Instant // the first of the latches runs out
	lastHeard base.Instant // of the leader
	votedAt   base.Instant // when this replica last granted a vote, or said that it would: the candidate has as long to be heard of

	batch     uint64 // the newest that holds appends of it
	dirty     bool   // in Loop.dirty: to be asked for its Ready
	destroyed bool
	unwritten bool // the ReplicaID is not in the store yet
	unborn    bool // the ReplicaID is not known to be on disk: nothing is said under it

	nodes     map[base.ReplicaID]base.NodeID  // where replicas that the descriptor does not list spoke from
	spoke     map[base.ReplicaID]base.Instant // when each last spoke to this leader
	sending   []base.ReplicaID                // to whom a snapshot is under way
	proposals proposals
	reads     reads
	latches   *latches          // nil: nobody holds the range
	staged    *ReceivedSnapshot // stepped in this pass
}

// ballot is what of a HardState must be on disk. Where a log is committed is learned again, and what was applied tells it too, so
// that it is written only with a new term or vote: most of what a range has to do would be to write it, three times a put.
type ballot struct{ term, vote uint64 }

// pendingApply is an Apply effect that was not reported yet.
type pendingApply struct {
	index uint64
	resp  []*raftpb.Message
}

// newGroup makes a group of what the store holds; nothing of it is written yet if the replica is new.
func (l *Loop) newGroup(id base.RangeID, replica base.ReplicaID, ld *Loaded) (*group, error) {
	g := &group{
		id: id, replica: replica, life: l.lives, timer: -1, logger: &reasons{}, nodes: make(map[base.ReplicaID]base.NodeID),
		spoke:  make(map[base.ReplicaID]base.Instant),
		tickAt: base.Never, readsAt: base.Never, latchAt: base.Never, lastHeard: l.now, votedAt: l.now.Add(-l.cfg.electionTimeout()),
		bornHere: ld.ReplicaID == 0, stirred: l.now, touched: l.now, coldAt: base.Never, unwritten: ld.ReplicaID == 0, unborn: ld.ReplicaID == 0, applied: ld.Applied, handed: ld.Applied,
	}
	l.lives++
	hard := ld.HardState
	if hard == nil {
		hard = &raftpb.HardState{}
	}
	g.ballot = ballot{hard.GetTerm(), hard.GetVote()}
	if hard.GetCommit() < ld.Applied {
		// The commit index is seldom written, what was applied rests on it: it was at least that.
		hard = &raftpb.HardState{Term: new(hard.GetTerm()), Vote: new(hard.GetVote()), Commit: new(ld.Applied)}
	}
	if mutant.Is(mutant.CommitGoesBack) {
		hard = &raftpb.HardState{Term: new(hard.GetTerm()), Vote: new(hard.GetVote()), Commit: new(ld.Truncated.Index)}
	}
	if mutant.Is(mutant.AppliedTwice) && ld.Applied > ld.Truncated.Index {
		g.applied, g.handed, ld.Applied = g.applied-1, g.handed-1, ld.Applied-1
	}
	invariants.Check(ld.Applied >= ld.Truncated.Index, "%s: the log begins at %d and only %d is applied", id, ld.Truncated.Index, ld.Applied)
	var terms Terms
	var err error
	if ld.terms != nil {
		terms = *ld.terms
	} else if terms, err = loadTerms(ld.Truncated.Index+1, ld.LastIndex, func(i uint64) (uint64, error) { return l.cfg.Store.Term(id, i) }); err != nil {
		return nil, err
	}
	g.log = logView{
		store: l.cfg.Store, id: id, truncated: ld.Truncated, last: ld.LastIndex, terms: terms, hard: hard,
		desc: ld.Descriptor, applied: ld.Applied,
	}
	g.term = hard.GetTerm()
	cfg := &raft.Config{
		ID: uint64(replica), ElectionTick: l.cfg.ElectionTicks, HeartbeatTick: 1, Storage: &g.log, Applied: ld.Applied,
		AsyncStorageWrites: true, MaxSizePerMsg: l.cfg.MaxMessageBytes, MaxCommittedSizePerReady: l.cfg.MaxApplyBytes,
		MaxUncommittedEntriesSize: l.cfg.MaxUncommittedBytes, MaxInflightMsgs: l.cfg.MaxInflightMessages,
		MaxInflightBytes: l.cfg.MaxInflightBytes, CheckQuorum: true, PreVote: true, StepDownOnRemoval: true,
		DisableProposalForwarding: true, Logger: g.logger,
	}
	if mutant.Is(mutant.ReadWithoutQuorum) {
		cfg.ReadOnlyOption = raft.ReadOnlyLeaseBased
	}
	if g.rn, err = raft.NewRawNode(cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	l.restartElection(g)
	if step := int64(l.cfg.successionStep()); l.cfg.Supports != nil && step > 0 && g.voter() {
		// Nobody is waited for but those before it in the order, and whoever may be promised something.
		g.electAt = l.now.Add(time.Duration(int64(g.rank())*step + l.rand.Int63n(step)))
	}
	return g, nil
}

// voter says whether the applied configuration lets this replica campaign.
func (g *group) voter() bool {
	for _, r := range g.log.desc.GetReplicas() {
		if base.ReplicaID(r.ReplicaId) == g.replica {
			return r.Role != metapb.ReplicaRole_REPLICA_ROLE_LEARNER
		}
	}
	return mutant.Is(mutant.UnlistedCampaigns)
}

// mayLead says whether leadership can be handed to a replica: Raft would not tell that it did nothing.
func (g *group) mayLead(id base.ReplicaID) bool {
	return id != g.replica && slices.ContainsFunc(g.log.desc.GetReplicas(), func(r *metapb.Replica) bool {
		return base.ReplicaID(r.ReplicaId) == id && r.Role != metapb.ReplicaRole_REPLICA_ROLE_LEARNER
	})
}

// nodeOf returns where a replica is, 0 if that is not known.
func (g *group) nodeOf(id base.ReplicaID) base.NodeID {
	for _, r := range g.log.desc.GetReplicas() {
		if base.ReplicaID(r.ReplicaId) == id {
			return base.NodeID(r.NodeId)
		}
	}
	return g.nodes[id]
}

// notLeader is the refusal that sends the caller to the leader.
func (g *group) notLeader() error {
	e := &base.NotLeader{Range: g.id}
	if g.lead != 0 && g.lead != g.replica {
		e.HintNode, e.HintReplica = g.nodeOf(g.lead), g.lead
	}
	return e
}

// inTouch says whether a leader heard of a replica within the time of an election, or of its node for it. Raft's
// RecentActive says less: it is forgotten for all at each check of the quorum.
func (l *Loop) inTouch(g *group, id base.ReplicaID) bool {
	at, ok := g.spoke[id]
	return id == g.replica || ok && l.now.Sub(at) < l.cfg.electionTimeout() || g.resting() && l.fortHolds(g, id)
}

// soleVoter says whether this replica alone decides.
func (g *group) soleVoter() bool {
	sole := false
	for _, r := range g.log.desc.GetReplicas() {
		switch {
		case r.Role == metapb.ReplicaRole_REPLICA_ROLE_LEARNER:
		case r.Role != metapb.ReplicaRole_REPLICA_ROLE_VOTER || base.ReplicaID(r.ReplicaId) != g.replica:
			return false // another votes, or the configuration is joint
		default:
			sole = true
		}
	}
	return sole
}

// ownTermApplied says whether a leader has applied an entry of its own term: before that it does not know what the
// leaders before it had committed.
func (g *group) ownTermApplied() bool {
	t, err := g.log.Term(g.applied)
	return err == nil && t == g.term
}

// collect asks the group for its Ready until it has none, and adds what it wants done to the effects. Asking costs as much as many a
// Ready: it is not done again where nothing can have come since.
func (l *Loop) collect(g *group) {
	for more := true; more && !g.destroyed && g.rn.HasReady(); {
		rd := g.rn.Ready()
		more = rd.SoftState != nil // what follows from a new role can be more
		if rd.SoftState != nil {
			g.role, g.lead = rd.RaftState, base.ReplicaID(rd.Lead)
			l.roleChanged(g)
		}
		if !raft.IsEmptyHardState(rd.HardState) {
			if rd.HardState.GetTerm() != g.term {
				g.term = rd.HardState.GetTerm()
				l.failRounds(g) // Raft forgot them
			}
			if rd.HardState.GetCommit() != g.log.hard.GetCommit() {
				g.stirred = l.now // followers are to hear of it before this one rests
			}
			g.log.hard = rd.HardState
		}
		for _, m := range rd.Messages {
			switch m.GetType() {
			case raftpb.MsgStorageAppend:
				l.emitAppend(g, m)
			case raftpb.MsgStorageApply:
				l.emitApply(g, m)
			default:
				l.emitMessage(g, m)
			}
		}
		for i := range rd.ReadStates {
			l.readState(g, &rd.ReadStates[i])
		}
		more = more || g.dirty || g.handed < g.log.hard.GetCommit()
	}
	if invariants.Enabled && !g.destroyed {
		invariants.Check(!g.rn.HasReady(), "%s: what it wants done was not asked for", g.id)
	}
	if g.fort.live && g.term > g.fort.term && g.lead != 0 && g.role != raft.StateLeader {
		l.unfortify(g, false) // a later leader has been elected
		l.restartElection(g)
	}
	l.tell(g)
}

// emitAppend turns Raft's order to its append thread into Append effects, and keeps the answers that wait for them.
func (l *Loop) emitAppend(g *group, m *raftpb.Message) {
	for _, resp := range m.GetResponses() {
		l.grants(g, resp) // not only once it is on disk: what ends this replica's promise may be heard before
	}
	a := Append{Range: g.id}
	if m.Term != nil && (ballot{m.GetTerm(), m.GetVote()} != g.ballot || m.GetSnapshot() != nil) {
		a.HardState = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
		g.ballot = ballot{m.GetTerm(), m.GetVote()}
	}
	installed := false
	if snap := m.GetSnapshot(); !raft.IsEmptySnap(snap) {
		// Entries that follow it may be here already: an Append of their own, for the snapshot replaces the log.
		a.HardState = l.emitInstall(g, snap, a.HardState)
		installed = true
	}
	if len(m.GetEntries()) > 0 {
		a.Entries = m.GetEntries()
		a.OldLast = g.log.append(a.Entries)
		g.proposals.indexed(a.Entries)
		if mutant.Is(mutant.ConfChangeAtAppend) {
			g.changeAt(a.Entries)
		}
	}
	if g.unwritten {
		a.ReplicaID, g.unwritten = g.replica, false
	}
	if a.Entries != nil || a.HardState != nil || a.ReplicaID != 0 {
		l.eff.Appends = append(l.eff.Appends, a)
	} else if !installed {
		l.answerLater(g, m.GetResponses())
		return
	}
	ms := m.GetResponses()
	if mutant.Is(mutant.VoteBeforeSync) || mutant.Is(mutant.AppendBeforeSync) || mutant.Is(mutant.LeaderCountsUnsynced) {
		ms = l.early(g, ms)
	}
	g.batch = l.seq + 1
	l.batch.waiting = append(l.batch.waiting, answers{g, ms})
}

// answerLater keeps answers for which nothing must be written until what the group has under way is durable: they may
// speak of it. If nothing is, they wait for nothing.
func (l *Loop) answerLater(g *group, ms []*raftpb.Message) {
	if b := l.newest(g); b != nil && len(ms) > 0 {
		b.waiting = append(b.waiting, answers{g, ms})
		return
	}
	l.answer(g, ms)
}

// emitApply turns Raft's order to its apply thread into an Apply effect.
func (l *Loop) emitApply(g *group, m *raftpb.Message) {
	entries := m.GetEntries()
	first, last := entries[0], entries[len(entries)-1]
	invariants.Check(first.GetIndex() == g.handed+1, "%s: entries from %d to apply after %d", g.id, first.GetIndex(), g.handed)
	g.handed = last.GetIndex()
	g.applying = append(g.applying, pendingApply{index: last.GetIndex(), resp: m.GetResponses()})
	l.eff.Applies = append(l.eff.Applies, Apply{Range: g.id, Entries: entries})
	l.eff.Failed = g.proposals.resolved(last.GetIndex(), g.log.Term, g.notLeader, l.eff.Failed)
}

// emitMessage sends to another replica; a snapshot is the driver's to make.
func (l *Loop) emitMessage(g *group, m *raftpb.Message) {
	to := base.ReplicaID(m.GetTo())
	out := Message{
		Range: g.id, FromNode: l.cfg.Node, ToNode: g.nodeOf(to), FromReplica: g.replica, ToReplica: to, Raft: m,
	}
	l.grants(g, m)
	if m.GetType() == raftpb.MsgSnap {
		l.emitSnapshot(g, out)
		return
	}
	switch {
	case out.ToNode == 0 || g.unborn && !mutant.Is(mutant.UnbornSpeaks):
		return // nobody knows where it is, or this replica may yet never have been; Raft sends again
	case m.GetFrom() != uint64(g.replica):
		return // a question that Raft would send on for another, who asks again: nobody speaks for others
	case m.GetType() == raftpb.MsgHeartbeatResp && bytes.Equal(m.GetContext(), mute):
		return
	}
	g.sign(m)
	l.eff.Messages = append(l.eff.Messages, out)
}

// grants takes note of a vote that is granted, or would be: the candidate has its time.
func (l *Loop) grants(g *group, m *raftpb.Message) {
	switch t := m.GetType(); {
	case m.GetReject() || m.GetTo() == uint64(g.replica):
	case t == raftpb.MsgVoteResp, t == raftpb.MsgPreVoteResp && l.cfg.Supports != nil:
		g.votedAt = l.now
	}
}

// answer delivers what Raft wanted said after a write: to itself, or to others.
func (l *Loop) answer(g *group, ms []*raftpb.Message) {
	for _, m := range ms {
		if g.destroyed {
			return
		}
		if m.GetTo() == uint64(g.replica) {
			_ = g.rn.Step(m) // its errors speak of messages from strangers
			l.touch(g)
		} else {
			l.emitMessage(g, m)
		}
	}
}

// roleChanged sets the timers that the role needs.
func (l *Loop) roleChanged(g *group) {
	switch {
	case g.role == raft.StateLeader && !g.leading:
		g.leading, g.tries = true, 0
		g.tickAt, g.electAt, g.stirred = l.now.Add(l.cfg.TickInterval), base.Never, l.now
		g.proposals.elected(g.log.last)
		l.beginLease(g)
	case g.role != raft.StateLeader && g.leading:
		g.leading, g.tickAt = false, base.Never
		l.endLease(g, g.term)
		l.endLatches(g, g.notLeader())
		l.restartElection(g)
		if mutant.Is(mutant.LostLeaderRefuses) {
			l.refusePlaced(g)
		}
	}
	if g.lead == 0 || g.role != raft.StateLeader {
		l.failRounds(g)
	}
	if g.lead != 0 {
		g.tries = 0
		l.stood(g)
	}
	l.retime(g)
}

// tell reports to observers what changed.
func (l *Loop) tell(g *group) {
	now := StateChange{
		Range: g.id, Replica: g.replica, Role: g.roleNow(), Term: g.term, Leader: g.lead, LeaderNode: g.nodeOf(g.lead),
		Descriptor: g.log.desc,
	}
	if g.destroyed || now.Role == g.told.Role && now.Term == g.told.Term && now.Leader == g.told.Leader &&
		now.LeaderNode == g.told.LeaderNode && now.Descriptor == g.told.Descriptor {
		return
	}
	g.told = now
	now.Thawed, g.thawed = g.thawed, false
	now.Reason = g.logger.take()
	l.eff.Changes = append(l.eff.Changes, now)
}

func (g *group) roleNow() Role {
	switch g.role {
	case raft.StateLeader:
		return Leader
	case raft.StateCandidate, raft.StatePreCandidate:
		return Candidate
	}
	if g.log.desc != nil && !g.voter() {
		return Learner
	}
	return Follower
}

// reasons is Raft's logger: it keeps the last thing that Raft said since observers were told of a change, which is why
// the next one comes. The core logs nothing.
type reasons struct {
	format string
	args   []any
}

// take returns what was said last, and forgets it. Most of what Raft says nobody asks for: it is put together here.
func (r *reasons) take() string {
	if r.format == "" {
		return ""
	}
	s := fmt.Sprintf(r.format, r.args...)
	r.format, r.args = "", nil
	return s
}

func (r *reasons) say(format string, args ...any) { r.format, r.args = format, args }

func (r *reasons) Debug(...any)                {}
func (r *reasons) Debugf(string, ...any)       {}
func (r *reasons) Info(v ...any)               { r.say("%s", fmt.Sprint(v...)) }
func (r *reasons) Infof(f string, v ...any)    { r.say(f, v...) }
func (r *reasons) Warning(v ...any)            { r.say("%s", fmt.Sprint(v...)) }
func (r *reasons) Warningf(f string, v ...any) { r.say(f, v...) }
func (r *reasons) Error(v ...any)              { r.say("%s", fmt.Sprint(v...)) }
func (r *reasons) Errorf(f string, v ...any)   { r.say(f, v...) }
func (r *reasons) Fatal(v ...any)              { panic("raft: " + fmt.Sprint(v...)) }
func (r *reasons) Fatalf(f string, v ...any)   { panic("raft: " + fmt.Sprintf(f, v...)) }
func (r *reasons) Panic(v ...any)              { panic("raft: " + fmt.Sprint(v...)) }
func (r *reasons) Panicf(f string, v ...any)   { panic("raft: " + fmt.Sprintf(f, v...)) }
