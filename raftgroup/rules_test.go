package raftgroup

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
)

// lone is one loop among peers that the test plays: it says what they send, what is durable and what is applied, and
// looks at each effect. The replica is number 1 of three, on node 1.
type lone struct {
	t *testing.T
	w *world
	n *testNode
}

func newLone(t *testing.T, config func(*Config)) *lone {
	w := newWorld(1)
	w.config = config
	for id := range base.NodeID(3) {
		w.addNode(id + 1).stopped = true
	}
	w.place(descriptor(testRange, 1, 2, 3))
	l := &lone{t, w, w.nodes[1]}
	w.start(l.n)
	l.n.ev = Events{}
	l.step(Events{Admin: []Admin{{Range: testRange, Start: true}}})
	return l
}

// step writes what the loop appends, so that its store can read it, and does nothing else.
func (l *lone) step(ev Events) *Effects {
	eff := l.n.loop.Step(l.w.now, &ev)
	for i := range eff.Appends {
		l.w.write(l.n, &eff.Appends[i])
	}
	return eff
}

// message is what replica from, which is on the node of the same number, says to replica 1.
func message(from uint64, m *raftpb.Message) Message {
	m.From, m.To = new(from), new(uint64(1))
	return Message{
		Range: testRange, FromNode: base.NodeID(from), ToNode: 1, FromReplica: base.ReplicaID(from), ToReplica: 1, Raft: m,
	}
}

func entries(term, from, to uint64) (out []*raftpb.Entry) {
	for i := from; i <= to; i++ {
		out = append(out, &raftpb.Entry{Index: new(i), Term: new(term), Type: raftpb.EntryNormal.Enum()})
	}
	return out
}

func msgApp(term, prevTerm, prev, to, commit uint64) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), Term: new(term), LogTerm: new(prevTerm), Index: new(prev), Commit: new(commit),
		Entries: entries(term, prev+1, to),
	}
}

// snapshot stages a snapshot at (index, term) on node 1 and says that it has been received.
func (l *lone) snapshot(term, index uint64) Admin {
	d := descriptor(testRange, 1, 2, 3)
	l.n.staged["s"] = &diskReplica{applied: index, term: term, desc: d}
	return Admin{Range: testRange, Received: &ReceivedSnapshot{Token: "s", Message: message(2, &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), Term: new(term), Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: new(index), Term: new(term), ConfState: ConfState(d),
		}},
	})}}
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
	seq := eff.Seq
	l.step(Events{Applied: []Applied{{Range: testRange, Index: 100, Descriptor: l.n.disk.written[testRange].desc}}})
	eff = l.step(Events{Durable: []Durable{{seq}}})
	if len(eff.Applies) != 1 || len(eff.Applies[0].Entries) != 2 {
		t.Errorf("to apply: %+v, want the entries 101 and 102", eff.Applies)
	}
	if st, _ := l.n.loop.Status(testRange); st.First != 101 || st.Last != 103 {
		t.Errorf("the log is %d..%d", st.First, st.Last)
	}
}
