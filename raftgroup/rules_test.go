package raftgroup

import (
	"errors"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// The rules that keep it safe, one test each, with what a breach looks like. They drive one loop among peers that the
// test plays, and look at each effect.

// A vote, and the taking of entries, are spoken of only when a crash cannot undo them. Broken, a replica votes twice in a
// term, or a committed entry is lost with the power.
func TestRuleNothingLeavesBeforeItIsDurable(t *testing.T) {
	l := newLone(t, nil)
	eff := l.step(Events{Messages: []Message{message(2, msgVote(6, 5, 10))}})
	if h := eff.Appends[0].HardState; h.GetTerm() != 6 || h.GetVote() != 2 || len(eff.Messages) > 0 {
		t.Fatalf("the vote is written as %v; sent before: %v", h, eff.Messages)
	}
	vote := eff.Seq
	// More is taken in while the vote is on its way to the disk.
	eff = l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 12, 10))}})
	first := eff.Seq
	if len(eff.Messages) > 0 {
		t.Fatalf("sent before the vote is on disk: %v", eff.Messages)
	}
	eff = l.step(Events{Messages: []Message{message(2, msgApp(6, 6, 12, 13, 10))}})
	second := eff.Seq
	if !slices.IsSorted([]uint64{vote, first, second}) || len(eff.Messages) > 0 {
		t.Fatalf("batches %d, %d, %d; sent: %v", vote, first, second, eff.Messages)
	}
	eff = l.step(Events{Durable: []Durable{{vote}}})
	if got := said(eff); !slices.Equal(got, []string{"MsgVoteResp to 2"}) {
		t.Fatalf("with the vote on disk: %v", got)
	}
	// A batch that is durable says so for those before it.
	eff = l.step(Events{Durable: []Durable{{second}}})
	if got := said(eff); !slices.Equal(got, []string{"MsgAppResp to 2", "MsgAppResp to 2"}) || eff.Messages[1].Raft.GetIndex() != 13 {
		t.Fatalf("with the entries on disk: %v", got)
	}
}

// An answer for which nothing has to be written may still speak of what is being written. Broken, an append that came
// twice is acknowledged while its first writing is under way.
func TestRuleAnswersWaitForWhatIsUnderWay(t *testing.T) {
	l := newLone(t, nil)
	l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 12, 10))}})
	seq := l.seq
	eff := l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 12, 10))}})
	if len(eff.Appends) > 0 || len(eff.Messages) > 0 {
		t.Fatalf("the second copy of an append: writes %v, says %v", eff.Appends, said(eff))
	}
	if eff = l.step(Events{Durable: []Durable{{seq}}}); len(eff.Messages) != 2 {
		t.Fatalf("when both are on disk: %v", said(eff))
	}
	// Nothing is under way: it is answered at once.
	if eff = l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 12, 10))}}); len(eff.Appends) > 0 || len(eff.Messages) != 1 {
		t.Fatalf("a third copy: writes %v, says %v", eff.Appends, said(eff))
	}
}

// HardState, entries, the suffix that they replace and the replica's id are one Append of one batch. Broken, a crash
// leaves entries without the term in which they were taken, or a log with the tail of another leader's.
func TestRuleOneAppend(t *testing.T) {
	l := newLone(t, nil)
	m := message(2, msgApp(6, 0, 0, 2, 0))
	m.Range = 9 // whose replica is not here yet
	eff := l.step(Events{Messages: []Message{m}})
	if a := eff.Appends; len(a) != 1 || a[0].ReplicaID != 1 || a[0].HardState.GetTerm() != 6 || len(a[0].Entries) != 2 {
		t.Fatalf("the first write of a life: %+v", a)
	}
	l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 15, 10))}})
	eff = l.step(Events{Messages: []Message{message(3, msgApp(7, 6, 12, 13, 12))}})
	if a := eff.Appends; len(a) != 1 || a[0].HardState.GetTerm() != 7 || a[0].OldLast != 15 || a[0].Entries[0].GetIndex() != 13 || a[0].ReplicaID != 0 {
		t.Fatalf("another leader's entries: %+v", a)
	}
}

// What is destroyed stays so: nothing to a replica below the tombstone makes one, not even in the step that destroys it,
// when the store does not show the tombstone yet. Broken, a late message brings a removed replica back to life with an
// empty log and the right to vote.
func TestRuleTombstone(t *testing.T) {
	l := newLone(t, nil)
	heartbeat := func(to uint64) Message {
		m := message(2, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(6)), Commit: new(uint64(0))})
		m.ToReplica, m.Raft.To = base.ReplicaID(to), new(to)
		return m
	}
	eff := l.step(Events{Messages: []Message{
		{Range: testRange, FromNode: 2, FromReplica: 2, ToNode: 1, ToReplica: 1, TooOld: 5}, heartbeat(1), heartbeat(4),
	}})
	if a := eff.Appends; len(a) != 1 || a[0].Destroy != 5 {
		t.Fatalf("appends: %+v", a)
	}
	eff = l.step(Events{Messages: []Message{heartbeat(1), heartbeat(4)}, Admin: []Admin{{Range: testRange, Start: true}}})
	if len(eff.Appends) > 0 || len(l.n.loop.Ranges()) > 0 {
		t.Fatalf("below the tombstone: %+v, %v", eff.Appends, l.n.loop.Ranges())
	}
	eff = l.step(Events{Messages: []Message{heartbeat(5)}})
	if a := eff.Appends; len(a) != 1 || a[0].ReplicaID != 5 {
		t.Fatalf("at the tombstone: %+v", a)
	}
}

// A newer replica takes the older one's place on its node, in one batch; only a leader's word does that. Broken, the
// range cannot come back to the node until somebody cleans it.
func TestRuleNewerReplicaReplacesOlder(t *testing.T) {
	l := newLone(t, nil)
	vote := message(2, msgVote(6, 5, 10))
	vote.ToReplica = 4
	if eff := l.step(Events{Messages: []Message{vote}}); len(eff.Appends) > 0 || len(eff.Messages) > 0 {
		t.Fatalf("a candidate's message for a newer replica: %+v, %v", eff.Appends, said(eff))
	}
	app := message(2, msgApp(6, 5, 10, 11, 10))
	app.ToReplica, app.Raft.To = 4, new(uint64(4))
	eff := l.step(Events{Messages: []Message{app}})
	if a := eff.Appends; len(a) != 2 || a[0].Destroy != 4 || a[0].Descriptor == nil || a[1].ReplicaID != 4 || a[1].Entries != nil {
		t.Fatalf("a leader's message for a newer replica: %+v", a)
	}
}

// A removed replica that speaks is told so and not listened to. One that is only spoken *to* is not: the speaker may
// well be a leader in good standing, who would end itself. Broken, a removed replica disturbs elections for ever, or a
// leader with an old address deletes its own data.
func TestRuleOnlyTheRemovedAreTold(t *testing.T) {
	l := newLone(t, nil)
	d := proto.CloneOf(l.n.disk.written[testRange].desc)
	d.Replicas = d.Replicas[:2] // replica 3 was removed
	l.n.disk.written[testRange].desc = d
	l.restart()
	eff := l.step(Events{Messages: []Message{message(3, msgVote(6, 9, 99))}})
	if len(eff.Messages) != 1 || eff.Messages[0].TooOld != 4 || eff.Messages[0].ToReplica != 3 || len(eff.Appends) > 0 {
		t.Fatalf("a removed replica asks for a vote: %+v, %+v", eff.Messages, eff.Appends)
	}
	// Replica 5 is not known yet; it is newer than the descriptor that is applied here.
	if eff = l.step(Events{Messages: []Message{message(5, msgVote(6, 9, 99))}}); len(eff.Messages) > 0 || len(eff.Appends) != 1 {
		t.Fatalf("a replica that will be added asks for a vote: %+v, %+v", eff.Messages, eff.Appends)
	}
	old := message(2, msgApp(6, 5, 10, 11, 10))
	old.ToReplica, old.Raft.To = 0, new(uint64(0))
	if eff = l.step(Events{Messages: []Message{old}}); len(eff.Messages)+len(eff.Appends) > 0 {
		t.Fatalf("a message to an older replica: %+v, %+v", eff.Messages, eff.Appends)
	}
}

// A tombstone spares the replica that has taken a removed one's place on the same node. Broken, that replica is listed,
// counted in majorities, and can never be made.
func TestRuleTombstoneSparesTheSuccessor(t *testing.T) {
	d := descriptor(testRange, 1, 2, 3)
	d.Replicas[2].ReplicaId, d.NextReplicaId = 5, 7 // replica 3 was on node 3, which has replica 5 now; 6 came and went
	l := newLone(t, nil)
	l.n.disk.written[testRange].desc = d
	l.restart()
	eff := l.step(Events{Messages: []Message{message(3, msgVote(6, 9, 99))}})
	if len(eff.Messages) != 1 || eff.Messages[0].TooOld != 5 {
		t.Errorf("replica 3 is told %+v, want 5", eff.Messages)
	}
	from := message(3, msgVote(6, 9, 99))
	from.FromNode = 4 // it had moved
	if eff = l.step(Events{Messages: []Message{from}}); len(eff.Messages) != 1 || eff.Messages[0].TooOld != 7 {
		t.Errorf("a replica on a node without one is told %+v, want 7", eff.Messages)
	}
	// The same where a replica applies its own end.
	l = newLone(t, nil)
	d = descriptor(testRange, 1, 2, 3)
	d.Replicas[0].ReplicaId, d.NextReplicaId = 4, 6
	l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 11, 11))}})
	l.step(l.durable())
	eff = l.step(Events{Applied: []Applied{{Range: testRange, Index: 11, Descriptor: d, Removed: true}}})
	if a := eff.Appends; len(a) != 1 || a[0].Destroy != 4 {
		t.Errorf("its tombstone: %+v, want 4", a)
	}
}

// Replica 3 was removed while it was away, and so were those that it knows: it speaks to one that was here once, and the
// replica that came in its place tells it.
func TestRuleToldByASuccessor(t *testing.T) {
	d := descriptor(testRange, 1, 2, 4)
	d.Replicas[0].ReplicaId, d.Replicas[1].ReplicaId, d.Replicas[2].ReplicaId, d.NextReplicaId = 5, 6, 7, 8
	l := newLone(t, nil)
	r := l.n.disk.written[testRange]
	r.id, r.desc = 5, d
	l.restart()
	from := message(3, msgVote(6, 9, 99)) // to replica 1
	eff := l.step(Events{Messages: []Message{from}})
	if len(eff.Messages) != 1 || eff.Messages[0].TooOld != 8 || eff.Messages[0].ToReplica != 3 {
		t.Errorf("replica 3 is told %+v, want that ids below 8 are dead", eff.Messages)
	}
	from.FromReplica = 6 // a member, that has not heard of this replica's predecessor's end
	if eff = l.step(Events{Messages: []Message{from}}); len(eff.Messages) != 0 {
		t.Errorf("a member is told %+v", eff.Messages)
	}
}

// Replica 3 took this one for the leader and asked it for a read index. Raft would send the question on to the leader in
// the asker's name, which no receiver takes, nor anything else in that frame.
func TestRuleNobodySpeaksForOthers(t *testing.T) {
	l := newLone(t, nil)
	l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 11, 11))}}) // replica 2 leads
	l.step(l.durable())
	eff := l.step(Events{Messages: []Message{message(3, &raftpb.Message{
		Type: raftpb.MsgReadIndex.Enum(), Entries: []*raftpb.Entry{{Data: []byte("12345678")}},
	})}})
	for _, m := range eff.Messages {
		if m.Raft.GetFrom() != uint64(m.FromReplica) {
			t.Errorf("says %v in the name of %d", m.Raft, m.Raft.GetFrom())
		}
	}
}

// What a new replica says waits until its id is on disk: after a crash that lost it, another could take the id's place.
func TestRuleNothingIsSaidBeforeBirth(t *testing.T) {
	l := newLone(t, nil)
	heartbeat := message(2, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(6)), Commit: new(uint64(0))})
	heartbeat.Range = 99
	heartbeat.ToReplica, heartbeat.Raft.To = 4, new(uint64(4))
	for range 2 {
		if eff := l.step(Events{Messages: []Message{heartbeat}}); len(eff.Messages) != 0 {
			t.Fatalf("replica 4 is not on disk and says %+v", eff.Messages)
		}
	}
	l.step(l.durable())
	if eff := l.step(Events{Messages: []Message{heartbeat}}); len(eff.Messages) != 1 {
		t.Fatalf("replica 4 is on disk and says %+v", eff.Messages)
	}
}

// Who is told that it is too old destroys itself, if the word is for it. Broken, a replica ends because of a message for
// one that was here before it.
func TestRuleTooOldIsForOneReplica(t *testing.T) {
	l := newLone(t, nil)
	for _, m := range []Message{
		{Range: testRange, FromNode: 2, FromReplica: 2, ToReplica: 1, TooOld: 1}, // it is not below
		{Range: testRange, FromNode: 2, FromReplica: 2, ToReplica: 2, TooOld: 5}, // for another
		{Range: 99, FromNode: 2, FromReplica: 2, ToReplica: 1, TooOld: 5},        // for another range
	} {
		if eff := l.step(Events{Messages: []Message{m}}); len(eff.Appends) > 0 {
			t.Fatalf("%+v: %+v", m, eff.Appends)
		}
	}
	eff := l.step(Events{Messages: []Message{{Range: testRange, FromNode: 2, FromReplica: 2, ToReplica: 1, TooOld: 5}}})
	if a := eff.Appends; len(a) != 1 || a[0].Destroy != 5 || len(eff.Changes) != 1 || !eff.Changes[0].Destroyed || eff.Wake != base.Never {
		t.Fatalf("%+v, %+v, next %d", a, eff.Changes, eff.Wake)
	}
}

// A membership change takes effect when it is applied, neither when it is appended nor when it is committed. Broken, two
// majorities that share no voter exist at once.
func TestRuleChangeTakesEffectWhenApplied(t *testing.T) {
	l := newLone(t, nil)
	l.lead()
	next, cc := l.addLearner(4)
	heard := func(eff *Effects) bool {
		return slices.ContainsFunc(eff.Messages, func(m Message) bool { return m.ToReplica == 4 })
	}
	if heard(l.step(Events{Proposals: []Proposal{{Range: testRange, ID: ProposalID{1, 1}, Change: cc}}})) {
		t.Fatal("it takes effect when it is appended")
	}
	l.step(l.durable())
	eff := l.step(Events{Messages: []Message{message(2, msgAppResp(6, 12))}})
	if len(eff.Applies) != 1 || heard(eff) {
		t.Fatalf("committed: %v, to apply %v", said(eff), eff.Applies)
	}
	l.w.now = l.w.now.Add(time.Second)
	if heard(l.step(Events{})) {
		t.Fatal("it takes effect when it is committed")
	}
	changes := []*raftpb.ConfChangeV2{cc}
	if !heard(l.step(Events{Applied: []Applied{{Range: testRange, Index: 12, Descriptor: next, Changes: changes}}})) {
		t.Fatal("it takes no effect when it is applied")
	}
}

// What Raft makes of a change is what the descriptor says. Broken, replicas count different majorities; it is better to
// stop.
func TestRuleConfigurationIsTheDescriptors(t *testing.T) {
	l := newLone(t, nil)
	l.lead()
	next, cc := l.addLearner(4)
	next.Replicas[3].Role = metapb.ReplicaRole_REPLICA_ROLE_VOTER
	l.step(Events{Proposals: []Proposal{{Range: testRange, ID: ProposalID{1, 1}, Change: cc}}})
	l.step(l.durable())
	l.step(Events{Messages: []Message{message(2, msgAppResp(6, 12))}})
	defer func() {
		if recover() == nil {
			t.Error("a learner that the descriptor calls a voter was taken")
		}
	}()
	l.step(Events{Applied: []Applied{{Range: testRange, Index: 12, Descriptor: next, Changes: []*raftpb.ConfChangeV2{cc}}}})
}

// One change at a time. Broken, a change is proposed from a descriptor that another is about to replace.
func TestRuleOneChangeAtATime(t *testing.T) {
	l := newLone(t, nil)
	l.lead()
	next, cc := l.addLearner(4)
	propose := func(seq uint64) []Failed {
		return l.step(Events{Proposals: []Proposal{{Range: testRange, ID: ProposalID{1, seq}, Change: cc}}}).Failed
	}
	if f := propose(1); len(f) > 0 {
		t.Fatalf("the first: %v", f)
	}
	var throttled *base.Throttled
	if f := propose(2); len(f) != 1 || f[0].ID.Seq != 2 || !errors.As(f[0].Err, &throttled) {
		t.Fatalf("the second: %v", f)
	}
	l.step(l.durable())
	l.step(Events{Messages: []Message{message(2, msgAppResp(6, 12))}})
	if f := propose(3); len(f) != 1 {
		t.Fatalf("with the first committed and not applied: %v", f)
	}
	l.step(Events{Applied: []Applied{{Range: testRange, Index: 12, Descriptor: next, Changes: []*raftpb.ConfChangeV2{cc}}}})
	if f := propose(4); len(f) > 0 {
		t.Fatalf("with the first applied: %v", f)
	}
}

// A replica that its own applied configuration does not list as a voter never campaigns. Broken, a learner, or a replica
// that has no state yet, raises the term and unseats leaders.
func TestRuleUnlistedNeverCampaigns(t *testing.T) {
	learner := descriptor(testRange, 1, 2, 3)
	learner.Replicas[0].Role = metapb.ReplicaRole_REPLICA_ROLE_LEARNER
	for _, d := range []*metapb.RangeDescriptor{learner, nil} {
		l := newLone(t, nil)
		r := l.n.disk.written[testRange]
		if r.desc = d; d == nil {
			*r = diskReplica{id: 1, hard: &raftpb.HardState{}}
		}
		l.restart()
		for range 20 {
			l.w.now = l.w.now.Add(time.Second)
			eff := l.step(Events{Admin: []Admin{{Range: testRange, Campaign: true}}})
			for _, m := range eff.Messages {
				if m.Raft.GetType() != raftpb.MsgHeartbeatResp || m.Raft.GetTerm() != 5 {
					t.Fatalf("%v: it says %v", d, m.Raft)
				}
			}
			if len(eff.Appends) > 0 {
				t.Fatalf("%v: it writes %+v", d, eff.Appends)
			}
		}
	}
}

// A learner that was removed and did not hear of it asks, when it hears of no leader, and is told. Broken, it stays for
// ever. While it hears a leader it is silent.
func TestRuleARemovedLearnerFindsOut(t *testing.T) {
	l := newLone(t, nil)
	l.n.disk.written[testRange].desc.Replicas[0].Role = metapb.ReplicaRole_REPLICA_ROLE_LEARNER
	l.restart()
	for range 50 {
		l.w.now = l.w.now.Add(base.TickInterval)
		eff := l.step(Events{Messages: []Message{message(2, msgHeartbeat(6))}})
		if got := said(eff); !slices.Equal(got, []string{"MsgHeartbeatResp to 2"}) {
			t.Fatalf("while a leader speaks: %v", got)
		}
	}
	eff := &Effects{}
	for end := l.w.now.Add(3 * time.Second); len(eff.Messages) == 0 && l.w.now < end; l.w.now = l.w.now.Add(base.TickInterval) {
		eff = l.step(Events{})
	}
	if got := said(eff); !slices.Equal(got, []string{"MsgHeartbeatResp to 2", "MsgHeartbeatResp to 3"}) {
		t.Fatalf("when nobody speaks: %v", got)
	}
}

// A replica that waits for its first snapshot was removed meanwhile: nobody sends one, and it forgets the leader that it
// heard of and asks it.
func TestRuleARemovedNewcomerFindsOut(t *testing.T) {
	l := newLone(t, nil)
	heartbeat := message(2, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(6)), Commit: new(uint64(0))})
	heartbeat.Range = 99
	heartbeat.ToReplica, heartbeat.Raft.To = 4, new(uint64(4))
	l.step(Events{Messages: []Message{heartbeat}})
	l.step(l.durable())
	var asked *Message
	for end := l.w.now.Add(5 * time.Second); asked == nil && l.w.now < end; l.w.now = l.w.now.Add(base.TickInterval) {
		for _, m := range l.step(Events{}).Messages {
			if m.Range == 99 && m.ToReplica == 2 {
				asked = &m
			}
		}
	}
	if asked == nil {
		t.Fatal("asks nobody")
	}
	if st, _ := l.n.loop.Status(99); st.Leader != 0 {
		t.Errorf("still takes replica %d for the leader", st.Leader)
	}
	eff := l.step(Events{Messages: []Message{{Range: 99, FromNode: 2, FromReplica: 2, ToNode: 1, ToReplica: 4, TooOld: 5}}})
	if a := eff.Appends; len(a) != 1 || a[0].Destroy != 5 {
		t.Errorf("told that it was removed: %+v", a)
	}
}

// A replica that stopped between the applying of its own removal and its end is ended when it starts again. Broken, it
// stays for ever: it may not campaign, so that nobody hears of it and tells it.
func TestRuleRemovedBeforeARestart(t *testing.T) {
	l := newLone(t, nil)
	d := descriptor(testRange, 1, 2, 3)
	d.Replicas = d.Replicas[1:]
	l.n.disk.written[testRange].desc = d
	l.w.start(l.n)
	eff := l.step(Events{Admin: []Admin{{Range: testRange, Start: true}}})
	if a := eff.Appends; len(a) != 1 || a[0].Destroy != 4 || a[0].Descriptor != d || len(eff.Messages) > 0 {
		t.Fatalf("%+v, %v", a, said(eff))
	}
	if eff = l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 11, 10))}}); len(eff.Appends)+len(eff.Messages) > 0 {
		t.Fatalf("it is back: %+v, %v", eff.Appends, said(eff))
	}
}
