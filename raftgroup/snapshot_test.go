package raftgroup

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
)

// An installation is one Append: the snapshot, the HardState and the ReplicaID, for it replaces all that the replica has.
// Broken, a crash leaves a log that does not fit its state.
func TestRuleInstallIsOneAppend(t *testing.T) {
	l := newLone(t, nil)
	l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 15, 10))}})
	eff := l.step(Events{Admin: []Admin{l.snapshot(7, 100)}})
	if len(eff.Appends) != 1 || len(eff.DropStaged) > 0 || len(eff.Messages) > 0 {
		t.Fatalf("%+v; dropped %v; said %v", eff.Appends, eff.DropStaged, said(eff))
	}
	a := eff.Appends[0]
	if a.Token != "s" || a.Snapshot.GetIndex() != 100 || a.ReplicaID != 1 || a.HardState.GetTerm() != 7 || a.HardState.GetCommit() != 100 || a.Entries != nil {
		t.Fatalf("%+v", a)
	}
	if st, _ := l.n.loop.Status(testRange); st.First != 101 || st.Last != 100 {
		t.Errorf("the log is %d..%d", st.First, st.Last)
	}
}

// A leader goes on sending as soon as the snapshot is through: the entries behind it may be stepped with it. Broken, they
// are acknowledged and in no log; or the HardState that comes with the snapshot commits entries that a crash between the
// two writes leaves out, and Raft refuses to start.
func TestRuleEntriesBehindASnapshotAreWritten(t *testing.T) {
	l := newLone(t, nil)
	eff := l.step(Events{
		Admin:    []Admin{l.snapshot(6, 100)},
		Messages: []Message{message(2, msgApp(6, 6, 100, 103, 102))},
	})
	if len(eff.Appends) != 2 || eff.Appends[0].Snapshot == nil || len(eff.Appends[0].Entries) != 0 || len(eff.Appends[1].Entries) != 3 {
		t.Fatalf("appends: %+v", eff.Appends)
	}
	if c := eff.Appends[0].HardState.GetCommit(); c != 100 {
		t.Errorf("the installation commits %d, and the log ends at 100", c)
	}
	if c := eff.Appends[1].HardState.GetCommit(); c != 102 {
		t.Errorf("behind it %d is committed, want 102", c)
	}
	if len(eff.Messages) > 0 {
		t.Errorf("said before it is on disk: %v", said(eff))
	}
	l.step(Events{Applied: []Applied{{Range: testRange, Index: 100, Descriptor: l.n.disk.written[testRange].desc}}})
	eff = l.step(l.durable())
	if len(eff.Applies) != 1 || len(eff.Applies[0].Entries) != 2 {
		t.Errorf("to apply: %+v, want the entries 101 and 102", eff.Applies)
	}
	if st, _ := l.n.loop.Status(testRange); st.First != 101 || st.Last != 103 {
		t.Errorf("the log is %d..%d", st.First, st.Last)
	}
}

// Entries may be on their way through the state machine when a snapshot is taken in, a membership change among them. Raft
// has the snapshot's configuration by then. Broken, the change is made to it a second time: Raft panics, or counts
// another majority than its peers.
func TestRuleChangesBeforeASnapshotAreInIt(t *testing.T) {
	l := newLone(t, nil)
	next, cc := l.addLearner(4)
	m := msgApp(6, 5, 10, 11, 11)
	m.Entries[0].Type = raftpb.EntryConfChangeV2.Enum()
	l.step(Events{Messages: []Message{message(2, m)}})
	if eff := l.step(l.durable()); len(eff.Applies) != 1 {
		t.Fatalf("to apply: %v", eff.Applies)
	}
	a := l.snapshot(6, 100)
	over := descriptor(testRange, 1, 2, 3) // the learner has come and gone
	over.Generation, over.NextReplicaId = 3, 5
	l.n.staged["s"].desc = over
	l.step(Events{Admin: []Admin{a}})
	l.step(Events{Applied: []Applied{
		{Range: testRange, Index: 11, Descriptor: next, Changes: []*raftpb.ConfChangeV2{cc}},
		{Range: testRange, Index: 100, Descriptor: over},
	}})
	l.step(l.durable())
	st, _ := l.n.loop.Status(testRange)
	if cs := l.n.loop.groups[testRange].rn.Status().Config; st.Applied != 100 || st.Descriptor != over || len(cs.Learners) > 0 {
		t.Fatalf("%+v, configuration %s", st, cs)
	}
}

// What Raft does not install is dropped: a snapshot behind what is committed here, one of an old leader, a second one in
// the same step, one for a replica that is dead.
func TestUnwantedSnapshotsAreDropped(t *testing.T) {
	for name, make := range map[string]func(l *lone) []Admin{
		"behind": func(l *lone) []Admin { return []Admin{l.snapshot(6, 10)} },
		"of an old leader": func(l *lone) []Admin {
			l.step(Events{Messages: []Message{message(3, msgHeartbeat(8))}})
			return []Admin{l.snapshot(7, 100)}
		},
		"for an older replica": func(l *lone) []Admin {
			a := l.snapshot(6, 100)
			a.Received.Message.ToReplica = 0
			return []Admin{a}
		},
		"of a replica that was removed": func(l *lone) []Admin {
			d := descriptor(testRange, 1, 3)
			d.NextReplicaId, d.Replicas[1].ReplicaId = 4, 3
			l.n.disk.written[testRange].desc = d
			l.restart()
			return []Admin{l.snapshot(6, 100)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLone(t, nil)
			eff := l.step(Events{Admin: make(l)})
			if !slices.Equal(eff.DropStaged, []string{"s"}) {
				t.Errorf("dropped %v, written %+v", eff.DropStaged, eff.Appends)
			}
			for _, a := range eff.Appends {
				if a.Snapshot != nil {
					t.Errorf("installed: %+v", a)
				}
			}
		})
	}
	t.Run("second in a step", func(t *testing.T) {
		l := newLone(t, nil)
		first, second := l.snapshot(6, 100), l.snapshot(6, 110)
		second.Received.Token = "t"
		eff := l.step(Events{Admin: []Admin{first, second}})
		if !slices.Equal(eff.DropStaged, []string{"t"}) || len(eff.Appends) != 1 || eff.Appends[0].Token != "s" {
			t.Errorf("dropped %v, written %+v", eff.DropStaged, eff.Appends)
		}
	})
	t.Run("without data", func(t *testing.T) {
		l := newLone(t, nil)
		m := l.snapshot(6, 100).Received.Message
		if eff := l.step(Events{Messages: []Message{m}}); len(eff.Appends)+len(eff.Messages)+len(eff.DropStaged) > 0 {
			t.Errorf("a plain MsgSnap: %+v, %v", eff.Appends, said(eff))
		}
	})
}

// behind has replica 2 refuse the entries behind prev: its log ends where this one was cut off. It needs a snapshot.
func (l *lone) behind(term, prev uint64) *Effects {
	return l.step(Events{Messages: []Message{message(2, &raftpb.Message{
		Type: raftpb.MsgAppResp.Enum(), Term: new(term), Index: new(prev), Reject: new(true), RejectHint: new(uint64(10)), LogTerm: new(uint64(4)),
	})}})
}

// One snapshot at a time is under way to a replica, until its end is reported; then Raft may ask for the next.
func TestOneSnapshotUnderWay(t *testing.T) {
	l := newLone(t, nil)
	l.elect()
	l.step(Events{Messages: []Message{message(3, msgAppResp(6, 11))}})
	l.step(Events{Applied: []Applied{{Range: testRange, Index: 11}}})
	eff := l.behind(6, 10)
	if len(eff.SendSnapshot) != 1 || len(eff.Messages) > 0 || eff.SendSnapshot[0].Message.Raft.GetSnapshot().GetMetadata().GetIndex() != 11 {
		t.Fatalf("%+v, %v", eff.SendSnapshot, said(eff))
	}
	if eff = l.behind(6, 10); len(eff.SendSnapshot) > 0 {
		t.Fatalf("while one is under way: %+v", eff.SendSnapshot)
	}
	// Another leader comes and goes; Raft has forgotten what is under way.
	l.step(Events{Messages: []Message{message(3, msgHeartbeat(7))}})
	l.step(l.durable())
	l.step(Events{Admin: []Admin{{Range: testRange, Campaign: true}}})
	l.step(Events{Messages: []Message{message(3, &raftpb.Message{Type: raftpb.MsgPreVoteResp.Enum(), Term: new(uint64(8))})}})
	l.step(l.durable())
	l.step(Events{Messages: []Message{message(3, &raftpb.Message{Type: raftpb.MsgVoteResp.Enum(), Term: new(uint64(8))})}})
	l.step(l.durable())
	if eff = l.behind(8, 11); len(eff.SendSnapshot) > 0 {
		t.Fatalf("led again, with the first still under way: %+v", eff.SendSnapshot)
	}
	l.step(Events{Admin: []Admin{{Range: testRange, Sent: &SnapshotSent{To: 2}}}})
	eff = l.step(Events{Messages: []Message{message(2, &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), Term: new(uint64(8))})}})
	if len(eff.SendSnapshot) != 1 {
		t.Fatalf("after its end: %+v, %v", eff.SendSnapshot, said(eff))
	}
}

// keeping is a leader that keeps 4 applied entries, with its log at the given index, committed by replica 2.
func keeping(t *testing.T, last uint64) (*lone, *TruncatedState) {
	l := newLone(t, func(c *Config) { c.LogKeepEntries, c.LogKeepBytes = 4, 1<<30 })
	l.lead()
	for i := uint64(12); i <= last; i++ {
		l.propose(i)
	}
	return l, truncation(l.commit(last))
}

func truncation(eff *Effects) *TruncatedState {
	for _, a := range eff.Appends {
		if a.Truncate != nil {
			return a.Truncate
		}
	}
	return nil
}

// The log is never cut above what was reported as applied. Broken, a crash leaves a replica whose state is older than
// the beginning of its log.
func TestRuleTruncationStaysBehindApplied(t *testing.T) {
	l := newLone(t, func(c *Config) { c.LogKeepEntries, c.LogKeepBytes = 4, 1 })
	if eff := l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 40, 40))}}); truncation(eff) != nil {
		t.Fatalf("appended: %+v", truncation(eff))
	}
	// Committed and handed out, but not applied.
	if eff := l.step(l.durable()); truncation(eff) != nil || len(eff.Applies) != 1 {
		t.Fatalf("handed out %v: %+v", eff.Applies, truncation(eff))
	}
	for applied := uint64(11); applied <= 40; applied++ {
		eff := l.step(Events{Applied: []Applied{{Range: testRange, Index: applied}}})
		if tr := truncation(eff); tr != nil && (tr.Index > applied || tr.Term != 6) {
			t.Fatalf("%+v when %d is applied", tr, applied)
		}
	}
	if st, _ := l.n.loop.Status(testRange); st.First <= 11 || st.First > 41 {
		t.Fatalf("the log begins at %d", st.First)
	}
}

// A leader keeps what followers in touch still need, within four times the bound; not for those that are silent.
func TestTruncationWaitsForFollowers(t *testing.T) {
	if _, tr := keeping(t, 19); tr == nil || tr.Index != 15 {
		t.Errorf("with replica 3 silent: %+v, want 15", tr)
	}
	l, _ := keeping(t, 11)
	l.step(Events{Messages: []Message{message(3, msgAppResp(6, 11))}})
	more := func(last uint64) *TruncatedState {
		st, _ := l.n.loop.Status(testRange)
		for i := st.Last + 1; i <= last; i++ {
			l.propose(i)
		}
		return truncation(l.commit(last))
	}
	if tr := more(24); tr == nil || tr.Index != 11 {
		t.Errorf("with replica 3 at 11: %+v, want 11", tr)
	}
	if tr := more(35); tr == nil || tr.Index != 19 {
		t.Errorf("with replica 3 too far behind: %+v, want 19: four times as much as is to be kept", tr)
	}
	// Raft forgets who is active at each check of the quorum, a tick. A follower that spoke just before is in touch.
	l, _ = keeping(t, 11)
	for range 2 * base.ElectionTicks {
		l.w.now = l.w.now.Add(base.TickInterval)
		resp := &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), Term: new(uint64(6))}
		l.step(Events{Messages: []Message{message(3, resp), message(2, &raftpb.Message{Type: resp.Type, Term: resp.Term})}})
		st, _ := l.n.loop.Status(testRange)
		if len(st.Progress) != 3 || !st.Progress[2].Recent {
			t.Fatalf("a replica that speaks is not in touch: %+v", st.Progress)
		}
	}
	l.w.now = l.w.now.Add(2 * time.Second)
	l.step(Events{Messages: []Message{message(2, msgAppResp(6, 11))}})
	if st, _ := l.n.loop.Status(testRange); st.Progress[2].Recent {
		t.Errorf("a silent replica is in touch: %+v", st.Progress)
	}
}
