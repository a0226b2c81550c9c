package raftgroup

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// checkSent: what an answer speaks of would outlive a crash now. A vote that was given, the term in which, entries that were
// taken, and the replica that says so.
func (n *testNode) checkSent(m *Message) {
	kind := m.Raft.GetType()
	if m.TooOld != 0 || m.Raft.GetReject() || kind != raftpb.MsgAppResp && kind != raftpb.MsgVoteResp {
		return
	}
	r := n.disk.synced[m.Range]
	if r == nil || r.id != m.FromReplica || r.hard.GetTerm() < m.Raft.GetTerm() {
		panic(fmt.Sprintf("%s says %s; on disk is %+v", n.id, describe(m), r))
	}
	votes := kind == raftpb.MsgVoteResp && r.hard.GetTerm() == m.Raft.GetTerm()
	if last := r.truncated.Index + uint64(len(r.entries)); votes && r.hard.GetVote() != m.Raft.GetTo() || last < m.Raft.GetIndex() {
		panic(fmt.Sprintf("%s says %s; on disk are %v and a log up to %d", n.id, describe(m), r.hard, last))
	}
}

// change is a change of membership: the descriptor that it leads to, and the conf change.
type change struct {
	next *metapb.RangeDescriptor
	cc   *raftpb.ConfChangeV2
}

func newChange(d *metapb.RangeDescriptor) *change {
	c := &change{proto.CloneOf(d), &raftpb.ConfChangeV2{}}
	c.next.Generation++
	return c
}

func (c *change) add(kind raftpb.ConfChangeType, id uint64) *change {
	c.cc.Changes = append(c.cc.Changes, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(id)})
	return c
}

func (c *change) role(id uint64, role metapb.ReplicaRole) *change {
	for _, r := range c.next.Replicas {
		if r.ReplicaId == id {
			r.Role = role
		}
	}
	return c
}

func (c *change) drop(which func(*metapb.Replica) bool) *change {
	c.next.Replicas = slices.DeleteFunc(c.next.Replicas, which)
	return c
}

// leaveJoint ends a joint configuration.
func leaveJoint(d *metapb.RangeDescriptor) *change {
	c := newChange(d).drop(func(r *metapb.Replica) bool { return r.Role == metapb.ReplicaRole_REPLICA_ROLE_OUTGOING })
	for _, r := range c.next.Replicas {
		if r.Role == metapb.ReplicaRole_REPLICA_ROLE_INCOMING {
			r.Role = metapb.ReplicaRole_REPLICA_ROLE_VOTER
		}
	}
	return c
}

// someChange draws a legal step from d, nil if there is none of the kind that was drawn.
func someChange(d *metapb.RangeDescriptor, r *base.Rand, nodes int) *change {
	const learner, voter = metapb.ReplicaRole_REPLICA_ROLE_LEARNER, metapb.ReplicaRole_REPLICA_ROLE_VOTER
	by := map[metapb.ReplicaRole][]uint64{}
	free := []uint64{}
	for n := range uint64(nodes) {
		if !slices.ContainsFunc(d.Replicas, func(x *metapb.Replica) bool { return x.NodeId == n+1 }) {
			free = append(free, n+1)
		}
	}
	for _, x := range d.Replicas {
		by[x.Role] = append(by[x.Role], x.ReplicaId)
	}
	if len(by[metapb.ReplicaRole_REPLICA_ROLE_INCOMING]) > 0 {
		return leaveJoint(d)
	}
	pick := func(ids []uint64) uint64 { return ids[r.Int63n(int64(len(ids)))] }
	learners, voters := by[learner], by[voter]
	switch x := r.Int63n(10); {
	case x < 4 && len(free) > 0:
		c := newChange(d).add(raftpb.ConfChangeAddLearnerNode, d.NextReplicaId)
		c.next.Replicas = append(c.next.Replicas, &metapb.Replica{ReplicaId: d.NextReplicaId, NodeId: pick(free), Role: learner})
		c.next.NextReplicaId++
		return c
	case x < 7 && len(learners) > 0:
		in, out := pick(learners), pick(voters)
		c := newChange(d).role(in, metapb.ReplicaRole_REPLICA_ROLE_INCOMING).role(out, metapb.ReplicaRole_REPLICA_ROLE_OUTGOING)
		c.cc.Transition = raftpb.ConfChangeTransitionJointExplicit.Enum()
		return c.add(raftpb.ConfChangeAddNode, in).add(raftpb.ConfChangeRemoveNode, out)
	case x < 8 && len(learners) > 0 && len(voters) < 4:
		in := pick(learners)
		return newChange(d).role(in, voter).add(raftpb.ConfChangeAddNode, in)
	case x < 9 && len(learners) > 0:
		out := pick(learners)
		return newChange(d).drop(func(x *metapb.Replica) bool { return x.ReplicaId == out }).add(raftpb.ConfChangeRemoveNode, out)
	case x < 10 && len(voters) > 3:
		out := pick(voters)
		return newChange(d).drop(func(x *metapb.Replica) bool { return x.ReplicaId == out }).add(raftpb.ConfChangeRemoveNode, out)
	}
	return nil
}

// move runs five nodes under loss, delay, reordering and crashes while the range's replicas move between them.
func move(t *testing.T, seed uint64) string {
	t.Helper()
	w, r := newWorld(seed), base.NewRand(seed)
	w.config = func(c *Config) { c.LogKeepEntries, c.LogKeepBytes = 10, 1<<20 }
	for id := range base.NodeID(5) {
		w.addNode(id + 1)
	}
	w.place(descriptor(testRange, 1, 2, 3))
	for _, n := range w.sorted() {
		w.start(n)
	}
	sent := map[uint64]string{}
	leaders := map[uint64]base.ReplicaID{} // of terms
	for range 4000 {
		w.now = w.now.Add(time.Duration(r.Int63n(int64(20 * time.Millisecond))))
		n := w.sorted()[r.Int63n(5)]
		switch x := r.Int63n(1000); {
		case x < 2 && !n.stopped:
			w.crash(n)
		case n.stopped && x < 60:
			w.start(n)
		case n.stopped:
		case x < 600:
			w.chaosWire(r)
		case x < 640:
			sent[w.propose(n, testRange, fmt.Sprint(w.seq+1), nil)] = fmt.Sprint(w.seq)
		case x < 700:
			w.proposeChange(n, r)
		case x < 705:
			n.ev.Admin = append(n.ev.Admin, Admin{Range: testRange, Transfer: base.ReplicaID(1 + r.Int63n(8))})
		case x < 750:
			n.holdSync = !n.holdSync
		case x < 800:
			n.holdApply = !n.holdApply
		}
		if n.stopped {
			continue
		}
		w.drive(n)
		if c := n.lastChange[testRange]; c.Role == Leader {
			if old, ok := leaders[c.Term]; ok && old != c.Replica {
				t.Fatalf("seed %d: replicas %d and %d led at term %d", seed, old, c.Replica, c.Term)
			}
			leaders[c.Term] = c.Replica
		}
	}
	w.heal()
	w.settleMembers(t, seed)
	w.judge(t, seed, sent)
	return w.trace.String()
}

// proposeChange has a leader propose a step from what it has applied.
func (w *world) proposeChange(n *testNode, r *base.Rand) {
	st, ok := n.loop.Status(testRange)
	if !ok || st.Role != Leader {
		return
	}
	c := someChange(n.disk.written[testRange].desc, r, len(w.nodes))
	if c == nil {
		return
	}
	data, err := proto.Marshal(c.next)
	if err != nil {
		panic(err)
	}
	w.propose(n, testRange, string(data), c.cc)
}

// drive lets a node do what it is not held back from.
func (w *world) drive(n *testNode) {
	if !n.holdSync {
		w.sync(n)
	}
	if !n.holdApply {
		w.apply(n)
	}
	w.sendSnapshots(n)
	if !empty(&n.ev) || n.wake <= w.now {
		w.step(n)
	}
}

// heal starts what is stopped and holds nothing back any more.
func (w *world) heal() {
	for _, n := range w.sorted() {
		n.holdSync, n.holdApply = false, false
		if n.stopped {
			w.start(n)
		} else {
			w.sync(n)
			w.apply(n)
		}
	}
	w.run(10 * time.Second)
}

// settleMembers leaves a joint configuration and proposes one last command.
func (w *world) settleMembers(t *testing.T, seed uint64) {
	t.Helper()
	for range 2 {
		l := w.leader(testRange)
		if l == nil {
			t.Fatalf("seed %d: no leader after the heal\n%s", seed, w.states())
		}
		d := l.disk.written[testRange].desc
		if len(ConfState(d).VotersOutgoing) > 0 {
			c := leaveJoint(d)
			data, err := proto.Marshal(c.next)
			if err != nil {
				t.Fatal(err)
			}
			w.propose(l, testRange, string(data), c.cc)
			w.run(10 * time.Second)
			continue
		}
		last := w.propose(l, testRange, "last", nil)
		w.run(5 * time.Second)
		if !slices.Contains(l.outcomes, fmt.Sprintf("proposal %d: applied", last)) {
			t.Fatalf("seed %d: nothing is applied after the heal\n%s", seed, w.states())
		}
		return
	}
	t.Fatalf("seed %d: the joint configuration is not left\n%s", seed, w.states())
}

// judge checks that all members hold the same, that nobody else holds anything, and that what was told about the commands
// is true.
func (w *world) judge(t *testing.T, seed uint64, sent map[uint64]string) {
	t.Helper()
	l := w.leader(testRange)
	truth := l.disk.written[testRange]
	for _, n := range w.sorted() {
		rep, member := n.disk.written[testRange], slices.IndexFunc(truth.desc.Replicas, func(x *metapb.Replica) bool { return x.NodeId == uint64(n.id) })
		switch {
		case member < 0 && rep != nil && rep.desc != nil: // one that never had a state is only an id, and asks nobody
			t.Errorf("seed %d: %s is no member and has replica %d\n%s", seed, n.id, rep.id, w.states())
		case member >= 0 && (rep == nil || rep.id != base.ReplicaID(truth.desc.Replicas[member].ReplicaId)):
			t.Errorf("seed %d: %s has %v and should have %v\n%s", seed, n.id, rep, truth.desc.Replicas[member], w.states())
		case member >= 0 && !slices.Equal(rep.commands, truth.commands):
			t.Errorf("seed %d: %s and %s applied different commands", seed, n.id, l.id)
		}
		for _, o := range n.outcomes {
			var seq uint64
			if k, _ := fmt.Sscanf(o, "proposal %d:", &seq); k == 0 || sent[seq] == "" {
				continue
			}
			applied := slices.Contains(truth.commands, sent[seq])
			if strings.HasSuffix(o, ": applied") && !applied {
				t.Errorf("seed %d: command %s was acknowledged and is lost", seed, sent[seq])
			}
			if strings.Contains(o, "not the leader") && applied {
				t.Errorf("seed %d: command %s was refused for certain and applied", seed, sent[seq])
			}
		}
	}
}

func (w *world) states() string {
	var b strings.Builder
	for _, n := range w.sorted() {
		st, ok := n.loop.Status(testRange)
		fmt.Fprintf(&b, "%s: here %v, tombstone %d, %+v\n", n.id, ok, n.disk.tombstones[testRange], st)
	}
	return b.String()
}

func TestMovesUnderChaos(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 30
	}
	happened := map[string]int{"installs the snapshot": 0, "writes tombstone": 0, "too old": 0, "newer replica": 0, "removed from the range": 0, "told by": 0}
	for seed := range seeds {
		trace := move(t, seed+1)
		for what := range happened {
			happened[what] += strings.Count(trace, what)
		}
		if seed < 3 && trace != move(t, seed+1) {
			t.Errorf("seed %d: two runs differ", seed+1)
		}
	}
	for what, n := range happened {
		if n == 0 {
			t.Errorf("in %d runs it never happened that: %s", seeds, what)
		}
	}
	t.Log(happened)
}
