package raftgroup

import (
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// lone is one loop among peers that the test plays: it says what they send, what is durable and what is applied, and
// looks at each effect. The replica is number 1 of three, on node 1; its log is empty behind index 10 of term 5.
type lone struct {
	t   testing.TB
	w   *world
	n   *testNode
	seq uint64 // of the newest batch
}

func newLone(t testing.TB, config func(*Config)) *lone {
	w := newWorld(1)
	w.config = config
	for id := range base.NodeID(3) {
		w.addNode(id + 1).stopped = true
	}
	w.place(descriptor(testRange, 1, 2, 3))
	l := &lone{t: t, w: w, n: w.nodes[1]}
	l.restart()
	return l
}

// restart starts a new loop on what the disk holds.
func (l *lone) restart() {
	l.w.start(l.n)
	l.n.ev = Events{}
	l.step(Events{Admin: []Admin{{Range: testRange, Start: true}}})
}

// step writes what the loop appends, so that its store can read it, and does nothing else.
func (l *lone) step(ev Events) *Effects {
	eff := l.n.loop.Step(l.w.now, &ev)
	for i := range eff.Appends {
		l.w.write(l.n, &eff.Appends[i])
	}
	if eff.Seq != 0 {
		l.seq = eff.Seq
	}
	return eff
}

// durable says that all batches are on disk.
func (l *lone) durable() Events { return Events{Durable: []Durable{{l.seq}}} }

// lead makes the replica the leader at term 6, with its first entry, 11, committed by replica 2 and applied.
func (l *lone) lead() {
	l.t.Helper()
	l.elect()
	l.step(Events{Messages: []Message{message(2, msgAppResp(6, 11))}})
	l.step(Events{Applied: []Applied{{Range: testRange, Index: 11}}})
	if st, _ := l.n.loop.Status(testRange); st.Role != Leader || st.Term != 6 || st.Applied != 11 {
		l.t.Fatalf("not the leader: %+v", st)
	}
}

// elect makes the replica the leader at term 6. Nothing is committed at that term yet.
func (l *lone) elect() {
	l.step(Events{Admin: []Admin{{Range: testRange, Campaign: true}}})
	l.step(Events{Messages: []Message{message(2, &raftpb.Message{Type: raftpb.MsgPreVoteResp.Enum(), Term: new(uint64(6))})}})
	l.step(l.durable())
	l.step(Events{Messages: []Message{message(2, &raftpb.Message{Type: raftpb.MsgVoteResp.Enum(), Term: new(uint64(6))})}})
	l.step(l.durable())
}

// propose proposes a command with the given number.
func (l *lone) propose(seq uint64) *Effects {
	return l.step(Events{Proposals: []Proposal{{Range: testRange, ID: ProposalID{1, seq}, Data: fmt.Append(nil, seq)}}})
}

// commit has replica 2 take the log up to an index, and reports it as applied.
func (l *lone) commit(index uint64) *Effects {
	l.step(l.durable())
	l.step(Events{Messages: []Message{message(2, msgAppResp(6, index))}})
	return l.step(Events{Applied: []Applied{{Range: testRange, Index: index}}})
}

// addLearner is a step that puts a learner, the next replica, on a node.
func (l *lone) addLearner(node uint64) (*metapb.RangeDescriptor, *raftpb.ConfChangeV2) {
	next := proto.CloneOf(l.n.disk.written[testRange].desc)
	next.Generation++
	next.Replicas = append(next.Replicas, &metapb.Replica{
		ReplicaId: next.NextReplicaId, NodeId: node, Role: metapb.ReplicaRole_REPLICA_ROLE_LEARNER,
	})
	cc := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{
		{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(next.NextReplicaId)},
	}}
	next.NextReplicaId++
	return next, cc
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

// msgApp carries the entries behind prev up to to.
func msgApp(term, prevTerm, prev, to, commit uint64) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), Term: new(term), LogTerm: new(prevTerm), Index: new(prev), Commit: new(commit),
		Entries: entries(term, prev+1, to),
	}
}

func msgAppResp(term, index uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgAppResp.Enum(), Term: new(term), Index: new(index)}
}

// msgVote asks for a vote at a term, for a candidate whose log ends at (logTerm, last).
func msgVote(term, logTerm, last uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgVote.Enum(), Term: new(term), LogTerm: new(logTerm), Index: new(last)}
}

func msgPreVote(term, logTerm, last uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgPreVote.Enum(), Term: new(term), LogTerm: new(logTerm), Index: new(last)}
}

func msgHeartbeat(term uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(term), Commit: new(uint64(10))}
}

// said lists what is sent, in order.
func said(eff *Effects) (out []string) {
	for _, m := range eff.Messages {
		if m.TooOld != 0 {
			out = append(out, fmt.Sprintf("too old to %d", m.ToReplica))
			continue
		}
		out = append(out, fmt.Sprintf("%s to %d", m.Raft.GetType(), m.ToReplica))
	}
	return out
}

// An answer to a heartbeat that a leader sent before it went cold is none to one since: it would confirm reads that were never
// asked about, or make Raft panic (simulator, seed 102059).
func TestRuleALateAnswerConfirmsNothing(t *testing.T) {
	before, now := &group{life: 1}, &group{life: 2}
	heartbeat := func(g *group) *raftpb.Message {
		m := &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Context: []byte{1, 0, 0, 0, 0, 0, 0, 0}}
		g.sign(m)
		return &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), Context: m.Context}
	}
	late, own := heartbeat(before), heartbeat(now)
	now.verify(late)
	now.verify(own)
	if late.GetContext() != nil || len(own.GetContext()) != 8 || own.GetContext()[0] != 1 {
		t.Errorf("late %x, its own %x", late.GetContext(), own.GetContext())
	}
	for _, c := range [][]byte{nil, {1, 0, 0, 0, 0, 0, 0, 0}} { // none, or of a node that signs nothing
		m := &raftpb.Message{Context: c}
		if now.verify(m); len(m.GetContext()) > 0 {
			t.Errorf("%x counts as %x", c, m.GetContext())
		}
	}
}
