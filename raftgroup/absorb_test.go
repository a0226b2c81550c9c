package raftgroup

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/base"
)

const takenTombstone = base.ReplicaID(1) << 62

// takeOver does in a node's store what the batch does that applies a merge: the descriptor is gone, and a tombstone is there.
func takeOver(n *testNode, id base.RangeID) Admin {
	r := n.disk.written[id]
	d := r.desc
	r.desc = nil
	n.disk.tombstones[id] = takenTombstone
	if s := n.disk.synced[id]; s != nil {
		s.desc = nil
	}
	return Admin{Range: id, Absorbed: &Absorbed{Descriptor: d, Tombstone: takenTombstone}}
}

// knock has another replica of the range say everything that makes a replica, or wakes one. None comes to be.
func (l *lone) knock() {
	l.t.Helper()
	for _, m := range []*raftpb.Message{
		msgHeartbeat(9), msgApp(9, 6, 11, 12, 11), msgVote(9, 9, 20), msgPreVote(9, 9, 20), {Type: raftpb.MsgTimeoutNow.Enum(), Term: new(uint64(9))},
	} {
		eff := l.step(Events{Messages: []Message{message(3, m)}})
		if l.n.loop.groups[testRange] != nil || len(eff.Appends) > 0 {
			l.t.Fatalf("%s makes a replica: %+v", m.GetType(), eff.Appends)
		}
		for _, out := range eff.Messages {
			if out.Raft != nil && out.Raft.GetType() == raftpb.MsgVoteResp && !out.Raft.GetReject() {
				l.t.Fatal("a replica that is gone votes")
			}
		}
	}
	ask := Message{Range: testRange, FromNode: 3, ToNode: 1, FromReplica: 3, ToReplica: 1, Fort: &FortMessage{Kind: FortAsk, Term: 9}}
	eff := l.step(Events{
		Messages:  []Message{ask},
		Proposals: []Proposal{{Range: testRange, ID: ProposalID{1, 99}, Data: []byte("x")}},
		Reads:     []Read{{Range: testRange, ID: 99}},
	})
	if l.n.loop.groups[testRange] != nil || len(eff.Failed) != 1 || len(eff.ReadsReady) != 1 || eff.ReadsReady[0].Err == nil {
		l.t.Fatalf("it takes requests: failed %v, read %v", eff.Failed, eff.ReadsReady)
	}
	if ids := l.n.loop.Ranges(); len(ids) > 0 {
		l.t.Fatalf("the loop has %v", ids)
	}
}

// gone holds the effects of a replica's end to what they must be.
func gone(t *testing.T, eff *Effects) {
	t.Helper()
	if len(eff.Appends) != 1 || eff.Appends[0].Destroy != takenTombstone || eff.Appends[0].Range != testRange {
		t.Errorf("appended: %+v", eff.Appends)
	}
	if n := len(eff.Changes); n == 0 || !eff.Changes[n-1].Destroyed || eff.Changes[n-1].Descriptor == nil {
		t.Errorf("observers are told %+v", eff.Changes)
	}
}

// A replica whose range was taken over ends at once, whatever it is, and whoever waits for it is told to ask elsewhere: what is behind
// the freeze has had no effect. Broken, they wait for their time to be over, or are told that the outcome is not known.
func TestRuleATakenOverReplicaEnds(t *testing.T) {
	for _, leading := range []bool{true, false} {
		l := newLone(t, nil)
		if leading {
			l.lead()
			l.propose(12)
		} else {
			l.step(Events{Messages: []Message{message(2, msgApp(6, 5, 10, 11, 11))}})
			l.step(l.durable())
		}
		l.step(Events{Reads: []Read{{Range: testRange, ID: 7}}})
		eff := l.step(Events{Admin: []Admin{takeOver(l.n, testRange)}})
		gone(t, eff)
		if got := ends(eff.Failed); leading && !slices.Equal(got, []string{"12 moved"}) {
			t.Errorf("proposals end: %v", got)
		}
		if len(eff.ReadsReady) != 1 || eff.ReadsReady[0].ID != 7 || eff.ReadsReady[0].Err == nil {
			t.Errorf("leading %v, reads end: %+v", leading, eff.ReadsReady)
		}
		l.knock()
		if eff := l.step(Events{Admin: []Admin{{Range: testRange, Absorbed: &Absorbed{Descriptor: descriptor(testRange, 1, 2, 3), Tombstone: takenTombstone}}}}); len(eff.Appends)+len(eff.Changes) > 0 {
			t.Errorf("it ends twice: %+v", eff.Changes)
		}
	}
}

// What comes for it in the step in which it ends finds nothing either, though the store does not show its end yet.
func TestRuleATakenOverReplicaIsNotMadeInTheSameStep(t *testing.T) {
	l := newLone(t, nil)
	l.lead()
	end := takeOver(l.n, testRange)
	delete(l.n.disk.tombstones, testRange) // as if the store were behind
	ev := Events{Admin: []Admin{end, {Range: testRange, Start: true}}, Messages: []Message{message(3, msgHeartbeat(9))}}
	eff := l.step(ev)
	gone(t, eff)
	if l.n.loop.groups[testRange] != nil {
		t.Error("it is there again")
	}
}

// A node that stopped between the merge and the end of the right one's replica finds what Raft had of it, below its tombstone. It
// is buried then, and never speaks. Broken, a replica without a state would vote, and be sent a snapshot of keys that are another's.
func TestRuleATakenOverReplicaIsBuriedAtTheStart(t *testing.T) {
	l := newLone(t, nil)
	l.lead()
	takeOver(l.n, testRange)
	l.w.start(l.n)
	l.n.ev = Events{}
	eff := l.step(Events{Admin: []Admin{{Range: testRange, Start: true}}})
	if len(eff.Appends) != 1 || eff.Appends[0].Destroy != takenTombstone || len(l.n.loop.Ranges()) > 0 || len(eff.Messages) > 0 {
		t.Fatalf("%+v, and the loop has %v", eff.Appends, l.n.loop.Ranges())
	}
	if l.n.disk.written[testRange] != nil {
		t.Error("something is left on the disk")
	}
	l.knock()
}

// The message that finds it first, before anybody asks for its start, buries it as well.
func TestRuleATakenOverReplicaIsBuriedByAMessage(t *testing.T) {
	l := newLone(t, nil)
	takeOver(l.n, testRange)
	l.w.start(l.n)
	l.n.ev = Events{}
	eff := l.step(Events{Messages: []Message{message(3, msgHeartbeat(9))}})
	if len(eff.Appends) != 1 || eff.Appends[0].Destroy != takenTombstone || len(l.n.loop.Ranges()) > 0 {
		t.Fatalf("%+v, and the loop has %v", eff.Appends, l.n.loop.Ranges())
	}
	l.knock()
}

// Cold replicas end as well, the leader's and the followers'; one that is spoken to after the merge was applied and before its loop
// is told is not built again from a state that is gone.
func TestRuleATakenOverColdReplicaEnds(t *testing.T) {
	w := newLeaseWorld(t, func(c *Config) { c.ColdAfter = 3 * time.Second })
	w.run(20 * time.Second)
	leader := w.leader(leaseRange)
	leaders := leader.loop.leaders
	for _, n := range w.sorted() {
		if n.loop.cold[leaseRange] == nil {
			t.Fatalf("n%d is not cold", n.id)
		}
		end := takeOver(n, leaseRange)
		m := Message{Range: leaseRange, FromNode: 9, FromReplica: 9, ToNode: n.id, ToReplica: n.loop.cold[leaseRange].replica}
		for _, raft := range []*raftpb.Message{msgHeartbeat(99), msgVote(99, 99, 99)} {
			m.Raft = raft
			m.Raft.From, m.Raft.To = new(uint64(9)), new(uint64(m.ToReplica))
			n.ev.Messages = append(n.ev.Messages, m)
		}
		w.propose(n, leaseRange, "late", nil)
		n.ev.Reads = append(n.ev.Reads, Read{Range: leaseRange, ID: 5})
		w.step(n)
		if n.loop.groups[leaseRange] != nil {
			t.Fatalf("n%d is warm", n.id)
		}
		n.ev.Admin = append(n.ev.Admin, end)
		w.step(n)
		if _, ok := n.loop.Status(leaseRange); ok || len(n.loop.Ranges()) > 0 || n.disk.written[leaseRange] != nil {
			t.Errorf("n%d has something of it: %v", n.id, n.loop.Ranges())
		}
		if c := n.lastChange[leaseRange]; !c.Destroyed || c.Descriptor == nil {
			t.Errorf("n%d tells observers %+v", n.id, c)
		}
		if n.disk.tombstones[leaseRange] != takenTombstone {
			t.Errorf("n%d has tombstone %d", n.id, n.disk.tombstones[leaseRange])
		}
	}
	if leader.loop.leaders != leaders-1 {
		t.Errorf("it counts %d leaders, and had %d", leader.loop.leaders, leaders)
	}
	w.run(2 * time.Second)
	if l := w.leader(leaseRange); l != nil {
		t.Errorf("n%d leads it", l.id)
	}
}
