package raftgroup

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// The stories in testdata tell, in text, what the protocol does. A verb does one thing to a small cluster, and what
// happens is printed below it. Heartbeats are left out.
//
//	cluster nodes=3 [of=2] [keep=4]   nodes 1..3; replicas 1..of on them (default: on all); logs keep that many entries
//	run 1s                            let time pass
//	propose node=1 [term=6] x y z     the replica on node 1 is asked to propose, at that term alone
//	read node=2                       a linearizable read on node 2
//	latch node=1 of=A                 reader A wants node 1 to hold the range; A is older than B
//	raise node=1 of=A x               x is proposed through A's latch
//	unlatch node=1 of=A               A lets its latch go
//	crash node=1 / start node=1       the process dies with what it had not synced; it starts again
//	hold sync=1 / release sync=1      the disk of node 1 stops, and goes on (also apply=)
//	cut 1 2 / heal                    messages between the two are lost, in both directions
//	transfer node=1 to=2              node 1 is to hand leadership to replica 2
//	change node=1 learner=4           a step of membership: learner=NODE, promote=REPLICA, swap=IN,OUT, leave, remove=REPLICA
//	campaign node=1                   an election now
//	say from=1 to=3 node=3            a late heartbeat of replica 1 to replica 3 arrives at node 3
//	state                             every replica as it is
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &story{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.do(t, d) })
	})
}

type story struct {
	w     *world
	reads uint64
	shown int // of the trace
}

func (s *story) do(t *testing.T, d *datadriven.TestData) string {
	verbs := map[string]func(*testing.T, *datadriven.TestData){
		"cluster": s.cluster, "run": s.run, "propose": s.propose, "read": s.read, "crash": s.crash, "start": s.start,
		"hold": s.hold, "release": s.release, "cut": s.cut, "heal": s.heal, "transfer": s.transfer, "change": s.change,
		"latch": s.latch, "raise": s.raise, "unlatch": s.unlatch,
		"campaign": s.campaign, "say": s.say,
	}
	if d.Cmd == "state" {
		return s.state()
	}
	verb, ok := verbs[d.Cmd]
	if !ok {
		d.Fatalf(t, "no such verb")
	}
	verb(t, d)
	if d.Cmd != "hold" && d.Cmd != "cut" && d.Cmd != "crash" {
		for s.w.settle() {
		}
	}
	return s.news()
}

// news is what happened since the last verb, without heartbeats.
func (s *story) news() string {
	all := s.w.trace.String()
	fresh := all[s.shown:]
	s.shown = len(all)
	var b strings.Builder
	for line := range strings.Lines(fresh) {
		if !strings.Contains(line, "MsgHeartbeat") {
			b.WriteString(line)
		}
	}
	if b.Len() == 0 {
		return "ok\n"
	}
	return b.String()
}

func arg[T any](t *testing.T, d *datadriven.TestData, name string, or T) T {
	t.Helper()
	if d.HasArg(name) {
		d.ScanArgs(t, name, &or)
	}
	return or
}

func (s *story) node(t *testing.T, d *datadriven.TestData) *testNode {
	n := s.w.nodes[base.NodeID(arg(t, d, "node", 0))]
	if n == nil {
		d.Fatalf(t, "which node?")
	}
	return n
}

func (s *story) cluster(t *testing.T, d *datadriven.TestData) {
	nodes, keep := arg(t, d, "nodes", 3), arg(t, d, "keep", 1000)
	of := arg(t, d, "of", nodes)
	s.w = newWorld(7)
	s.w.cut = map[[2]base.NodeID]bool{}
	s.w.config = func(c *Config) { c.LogKeepEntries = uint64(keep) }
	var replicas []base.NodeID
	for id := 1; id <= nodes; id++ {
		s.w.addNode(base.NodeID(id))
		if id <= of {
			replicas = append(replicas, base.NodeID(id))
		}
	}
	s.w.place(descriptor(testRange, replicas...))
	for _, n := range s.w.sorted() {
		s.w.start(n)
	}
}

func (s *story) run(t *testing.T, d *datadriven.TestData) {
	dur, err := time.ParseDuration(d.CmdArgs[0].Key)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	s.w.run(dur)
}

func (s *story) propose(t *testing.T, d *datadriven.TestData) {
	n, term := s.node(t, d), uint64(0)
	for _, a := range d.CmdArgs[1:] {
		if a.Key == "term" {
			a.Scan(t, 0, &term)
			continue
		}
		s.w.propose(n, testRange, a.Key, nil)
		n.ev.Proposals[len(n.ev.Proposals)-1].Term = term
	}
}

func (s *story) read(t *testing.T, d *datadriven.TestData) {
	s.reads++
	n := s.node(t, d)
	n.ev.Reads = append(n.ev.Reads, Read{Range: testRange, ID: ReadID(s.reads)})
}

func (s *story) latchID(t *testing.T, d *datadriven.TestData) LatchID {
	return LatchID{Began: int64(arg(t, d, "of", "?")[0]), Node: 1, Seq: 1, Try: 1}
}

func (s *story) latch(t *testing.T, d *datadriven.TestData) {
	s.reads++
	n := s.node(t, d)
	n.ev.Latches = append(n.ev.Latches, Latch{Range: testRange, ID: s.latchID(t, d), Waiter: ReadID(s.reads)})
}

func (s *story) unlatch(t *testing.T, d *datadriven.TestData) {
	n := s.node(t, d)
	n.ev.Latches = append(n.ev.Latches, Latch{Range: testRange, ID: s.latchID(t, d), End: true})
}

func (s *story) raise(t *testing.T, d *datadriven.TestData) {
	n, id := s.node(t, d), s.latchID(t, d)
	s.w.propose(n, testRange, d.CmdArgs[2].Key, nil)
	n.ev.Proposals[len(n.ev.Proposals)-1].Latch = &id
}

func (s *story) crash(t *testing.T, d *datadriven.TestData) { s.w.crash(s.node(t, d)) }
func (s *story) start(t *testing.T, d *datadriven.TestData) { s.w.start(s.node(t, d)) }

func (s *story) hold(t *testing.T, d *datadriven.TestData) { s.setHold(t, d, true) }

func (s *story) release(t *testing.T, d *datadriven.TestData) {
	s.setHold(t, d, false)
	for _, n := range s.w.sorted() {
		if !n.stopped && !n.holdSync {
			s.w.sync(n)
		}
		if !n.stopped && !n.holdApply {
			s.w.apply(n)
		}
	}
}

func (s *story) setHold(t *testing.T, d *datadriven.TestData, on bool) {
	if id := arg(t, d, "sync", 0); id != 0 {
		s.w.nodes[base.NodeID(id)].holdSync = on
	}
	if id := arg(t, d, "apply", 0); id != 0 {
		s.w.nodes[base.NodeID(id)].holdApply = on
	}
}

func (s *story) cut(t *testing.T, d *datadriven.TestData) {
	var ids [2]base.NodeID
	for i := range ids {
		if _, err := fmt.Sscan(d.CmdArgs[i].Key, (*uint64)(&ids[i])); err != nil {
			d.Fatalf(t, "%v", err)
		}
	}
	s.w.cut[ids], s.w.cut[[2]base.NodeID{ids[1], ids[0]}] = true, true
}

func (s *story) heal(*testing.T, *datadriven.TestData) { clear(s.w.cut) }

func (s *story) transfer(t *testing.T, d *datadriven.TestData) {
	n := s.node(t, d)
	n.ev.Admin = append(n.ev.Admin, Admin{Range: testRange, Transfer: base.ReplicaID(arg(t, d, "to", 0))})
}

func (s *story) campaign(t *testing.T, d *datadriven.TestData) {
	n := s.node(t, d)
	n.ev.Admin = append(n.ev.Admin, Admin{Range: testRange, Campaign: true})
}

func (s *story) say(t *testing.T, d *datadriven.TestData) {
	n, from, to := s.node(t, d), arg(t, d, "from", uint64(0)), arg(t, d, "to", uint64(0))
	n.ev.Messages = append(n.ev.Messages, Message{
		Range: testRange, FromNode: base.NodeID(from), ToNode: n.id, FromReplica: base.ReplicaID(from), ToReplica: base.ReplicaID(to),
		Raft: &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(from), To: new(to), Term: new(uint64(6)), Commit: new(uint64(0))},
	})
}

// change proposes one step from the descriptor that the proposer has applied. Which steps are legal is meta/desc's to
// say; here they are what the story wants.
func (s *story) change(t *testing.T, d *datadriven.TestData) {
	n := s.node(t, d)
	next := proto.CloneOf(n.disk.written[testRange].desc)
	next.Generation++
	cc := &raftpb.ConfChangeV2{}
	add := func(kind raftpb.ConfChangeType, id uint64) {
		cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(id)})
	}
	role := func(id uint64, r metapb.ReplicaRole) {
		for _, rep := range next.Replicas {
			if rep.ReplicaId == id {
				rep.Role = r
			}
		}
	}
	switch a := d.CmdArgs[1]; a.Key {
	case "learner":
		next.Replicas = append(next.Replicas, &metapb.Replica{
			ReplicaId: next.NextReplicaId, NodeId: arg(t, d, a.Key, uint64(0)), Role: metapb.ReplicaRole_REPLICA_ROLE_LEARNER,
		})
		add(raftpb.ConfChangeAddLearnerNode, next.NextReplicaId)
		next.NextReplicaId++
	case "promote":
		id := arg(t, d, a.Key, uint64(0))
		role(id, metapb.ReplicaRole_REPLICA_ROLE_VOTER)
		add(raftpb.ConfChangeAddNode, id)
	case "swap":
		var in, out uint64
		d.ScanArgs(t, a.Key, &in, &out)
		role(in, metapb.ReplicaRole_REPLICA_ROLE_INCOMING)
		role(out, metapb.ReplicaRole_REPLICA_ROLE_OUTGOING)
		cc.Transition = raftpb.ConfChangeTransitionJointExplicit.Enum()
		add(raftpb.ConfChangeAddNode, in)
		add(raftpb.ConfChangeRemoveNode, out)
	case "leave":
		next.Replicas = slices.DeleteFunc(next.Replicas, func(r *metapb.Replica) bool { return r.Role == metapb.ReplicaRole_REPLICA_ROLE_OUTGOING })
		for _, r := range next.Replicas {
			if r.Role == metapb.ReplicaRole_REPLICA_ROLE_INCOMING {
				r.Role = metapb.ReplicaRole_REPLICA_ROLE_VOTER
			}
		}
	case "remove":
		id := arg(t, d, a.Key, uint64(0))
		next.Replicas = slices.DeleteFunc(next.Replicas, func(r *metapb.Replica) bool { return r.ReplicaId == id })
		add(raftpb.ConfChangeRemoveNode, id)
	default:
		d.Fatalf(t, "no such step")
	}
	data, err := proto.Marshal(next)
	if err != nil {
		t.Fatal(err)
	}
	s.w.propose(n, testRange, string(data), cc)
}

func (s *story) state() string {
	var b strings.Builder
	for _, n := range s.w.sorted() {
		st, ok := n.loop.Status(testRange)
		switch tomb := n.disk.tombstones[testRange]; {
		case n.stopped:
			fmt.Fprintf(&b, "n%d: stopped\n", n.id)
		case !ok && tomb != 0:
			fmt.Fprintf(&b, "n%d: no replica; tombstone %d\n", n.id, tomb)
		case !ok:
			fmt.Fprintf(&b, "n%d: no replica\n", n.id)
		default:
			fmt.Fprintf(&b, "n%d: replica %d %s, term %d, log %d..%d, committed %d, applied %d: %s\n", n.id, st.Replica, st.Role,
				st.Term, st.First, st.Last, st.Commit, st.Applied, strings.Join(n.disk.written[testRange].commands, " "))
		}
	}
	return b.String()
}
