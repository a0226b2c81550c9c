package raftgroup

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
)

const bornRange = base.RangeID(40)

// bear places a node's replica of a range that was cut off another, as applying the split does: no HardState but one that is
// there.
func (w *world) bear(n *testNode, campaign bool) {
	d := descriptor(bornRange, 1, 2, 3)
	before := n.disk.written[bornRange]
	w.placeOn(n, d)
	if before != nil {
		n.disk.written[bornRange].hard = before.hard
	}
	n.ev.Admin = append(n.ev.Admin, Admin{Range: bornRange, Born: true, Campaign: campaign})
}

// A range that was cut off has its leader as soon as a second node has applied the split: the candidate's question, which came
// before, was kept. Broken, the range waits for a time-out.
func TestRuleACutOffRangeHasALeaderAtOnce(t *testing.T) {
	w := newWorld(3)
	for id := range base.NodeID(3) {
		w.start(w.addNode(id + 1))
	}
	w.bear(w.nodes[1], true)
	w.run(time.Millisecond)
	if l := w.leader(bornRange); l != nil {
		t.Fatalf("n%d leads, and nobody else knows of the range", l.id)
	}
	w.run(20 * time.Millisecond)
	w.bear(w.nodes[2], false)
	w.run(time.Millisecond)
	if l := w.leader(bornRange); l == nil || l.id != 1 {
		t.Errorf("no leader:\n%s", w.trace.String())
	}
	w.bear(w.nodes[3], false)
	w.run(time.Second)
	if st, ok := w.nodes[3].loop.Status(bornRange); !ok || st.Leader != 1 {
		t.Errorf("the third: %+v\n%s", st, w.trace.String())
	}
}

// Two of three nodes never apply the split: a snapshot of the range that was cut brought them over it. Asked again and again, they
// vote nevertheless, and the leader brings them up. Broken, the range has no leader for ever.
func TestRuleARangeThatOthersMissedIsLed(t *testing.T) {
	w := newWorld(7)
	for id := range base.NodeID(3) {
		w.start(w.addNode(id + 1))
	}
	w.bear(w.nodes[1], true)
	w.run(2 * time.Second)
	if l := w.leader(bornRange); l != nil {
		t.Fatalf("n%d leads: a split that comes a little late is waited for", l.id)
	}
	w.run(20 * time.Second)
	if l := w.leader(bornRange); l == nil || l.id != 1 {
		t.Fatalf("no leader:\n%s", w.trace.String())
	}
	for id, n := range w.nodes {
		if st, ok := n.loop.Status(bornRange); !ok || st.Leader != 1 {
			t.Errorf("n%d: %+v", id, st)
		}
	}
}

// A question that waits for a split is forgotten after as long as its candidate waits, and there are never more of them than
// there is room for.
func TestRuleEarlyQuestionsAreBounded(t *testing.T) {
	l := newLone(t, nil)
	ask := func(id base.RangeID) {
		m := message(2, &raftpb.Message{Type: raftpb.MsgPreVote.Enum(), Term: new(uint64(6)), LogTerm: new(uint64(5)), Index: new(uint64(10))})
		m.Range = id
		l.step(Events{Messages: []Message{m}})
	}
	for i := range base.EarlyVotes + 10 {
		ask(100 + base.RangeID(i))
	}
	if n := len(l.n.loop.unanswered); n != base.EarlyVotes {
		t.Errorf("%d questions are kept", n)
	}
	l.w.now = l.w.now.Add(heldBack)
	ask(9000)
	if n := len(l.n.loop.unanswered); n != 1 {
		t.Errorf("%d questions are kept a second later", n)
	}
}

// An empty replica, made for a leader that spoke before the split was applied here, gives way to the one that the split made,
// and what it said and knew goes on: its term and vote, and answers that rest on what is not durable yet wait for it. Broken, it
// votes twice in a term, or stays empty until a snapshot comes that nobody needs to send.
func TestRuleAnEmptyReplicaIsBornAgain(t *testing.T) {
	w := newWorld(4)
	w.addNode(2).stopped = true
	w.addNode(3).stopped = true
	n := w.addNode(1)
	w.start(n)
	l := &lone{t: t, w: w, n: n}
	heartbeat := message(2, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(7)), Commit: new(uint64(0))})
	heartbeat.Range = bornRange
	l.step(Events{Messages: []Message{heartbeat}}) // its term is under way to the disk
	old := n.loop.groups[bornRange]
	if old == nil || old.log.desc != nil || old.term != 7 {
		t.Fatalf("no empty replica: %+v", old)
	}
	w.bear(n, false)
	eff := l.step(n.ev)
	n.ev = Events{}
	g := n.loop.groups[bornRange]
	if g == old || g.log.desc == nil || g.term != 7 || g.applied != 10 || g.nodes[2] != 2 || !old.destroyed || len(eff.Failed) > 0 {
		t.Fatalf("not born again: %+v", g)
	}
	vote := message(3, msgVote(7, 6, 20))
	vote.Range = bornRange
	g.rn.ForgetLeader()
	if eff = l.step(Events{Messages: []Message{vote}}); len(eff.Messages) > 0 {
		t.Errorf("said before it is durable: %v", said(eff))
	}
	if eff = l.step(l.durable()); len(eff.Messages) == 0 {
		t.Error("not said when it is durable")
	}
	if l.step(Events{Admin: []Admin{{Range: bornRange, Born: true}}}); n.loop.groups[bornRange] != g {
		t.Error("born twice")
	}
}

// Another replica of the range that came here meanwhile is not touched by the birth of one that is dead.
func TestRuleABirthSparesTheSuccessor(t *testing.T) {
	w := newWorld(5)
	w.addNode(2).stopped = true
	n := w.addNode(1)
	w.start(n)
	l := &lone{t: t, w: w, n: n}
	heartbeat := message(2, &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(7)), Commit: new(uint64(0))})
	heartbeat.Range, heartbeat.ToReplica, heartbeat.Raft.To = bornRange, 4, new(uint64(4))
	l.step(Events{Messages: []Message{heartbeat}})
	g := n.loop.groups[bornRange]
	l.step(Events{Admin: []Admin{{Range: bornRange, Born: true, Campaign: true}}})
	if n.loop.groups[bornRange] != g || g.replica != 4 || g.role != 0 {
		t.Errorf("%+v", n.loop.groups[bornRange])
	}
}

// A follower that was asked for its promise, and whose answer was lost, is told when it is removed from the range: it may be
// bound, and nobody else speaks to it. Broken, it keeps its replica for as long as the nodes support each other (seed 349).
func TestRuleAPromiseWhoseAnswerWasLostIsEnded(t *testing.T) {
	w := newLeaseWorld(t, nil)
	l := w.leader(leaseRange)
	f := w.others(l)[0]
	lg, g := l.loop.group(leaseRange), f.loop.group(leaseRange)
	delete(lg.lease.forts, g.replica)
	if !g.fort.live {
		t.Fatal("nothing was promised")
	}
	d := proto.CloneOf(lg.log.desc)
	kept := d.Replicas[:0]
	for _, r := range d.Replicas {
		if base.ReplicaID(r.ReplicaId) != g.replica {
			kept = append(kept, r)
		}
	}
	d.Replicas, d.Generation = kept, d.Generation+1
	l.loop.part(lg, d)
	l.wake = w.now
	w.run(time.Second)
	if f.loop.group(leaseRange) != nil {
		t.Errorf("n%d keeps the replica:\n%s", f.id, w.trace.String())
	}
}
