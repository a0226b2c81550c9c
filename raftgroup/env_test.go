package raftgroup

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// world is a small cluster in one goroutine: loops over in-memory disks whose syncs, applies and messages happen when
// the test says so. It obeys the driver's duties as the shell of a node does, and writes down what happens.
type world struct {
	now    base.Instant
	seed   uint64
	nodes  map[base.NodeID]*testNode
	wire   []Message // under way
	trace  bytes.Buffer
	seq    uint64
	config func(*Config)
	cut    map[[2]base.NodeID]bool // links, from and to, on which everything is lost
}

// disk is what a node's store holds. What was written and not synced is lost at a crash.
type disk struct {
	synced, written map[base.RangeID]*diskReplica
	tombstones      map[base.RangeID]base.ReplicaID
}

type diskReplica struct {
	id        base.ReplicaID
	hard      *raftpb.HardState
	truncated TruncatedState
	entries   []*raftpb.Entry // from truncated.Index+1 on
	applied   uint64
	term      uint64 // of applied
	desc      *metapb.RangeDescriptor
	commands  []string // the state machine: what was applied, in order
}

func (d *diskReplica) clone() *diskReplica {
	c := *d
	c.entries, c.commands = slices.Clone(d.entries), slices.Clone(d.commands)
	return &c
}

type testNode struct {
	id          base.NodeID
	loop        *Loop
	disk        *disk
	ev          Events
	wake        base.Instant
	incarnation base.Incarnation
	unsynced    []uint64 // seqs written and not synced
	applies     []Apply
	outcomes    []string
	snapshots   []SendSnapshot
	staged      map[string]*diskReplica
	stopped     bool
	lastChange  map[base.RangeID]StateChange
	gates       map[base.RangeID]*Gate
	cold        int
	holdSync    bool
	holdApply   bool
}

func newWorld(seed uint64) *world { return &world{seed: seed, nodes: map[base.NodeID]*testNode{}} }

func (w *world) logf(format string, args ...any) { fmt.Fprintf(&w.trace, format+"\n", args...) }

// descriptor of a range on nodes 1..n, each a voter.
func descriptor(id base.RangeID, nodes ...base.NodeID) *metapb.RangeDescriptor {
	d := &metapb.RangeDescriptor{RangeId: uint64(id), KeyspaceId: 4, Generation: 1}
	for i, n := range nodes {
		d.Replicas = append(d.Replicas, &metapb.Replica{
			ReplicaId: uint64(i + 1), NodeId: uint64(n), Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER,
		})
	}
	d.NextReplicaId = uint64(len(nodes) + 1)
	return d
}

func (w *world) addNode(id base.NodeID) *testNode {
	n := &testNode{id: id, disk: &disk{
		synced: map[base.RangeID]*diskReplica{}, written: map[base.RangeID]*diskReplica{},
		tombstones: map[base.RangeID]base.ReplicaID{},
	}}
	w.nodes[id] = n
	return n
}

// place writes a replica of d as bootstrap does: an empty log behind index 10, term 5.
func (w *world) place(d *metapb.RangeDescriptor) {
	for _, r := range d.Replicas {
		w.placeOn(w.nodes[base.NodeID(r.NodeId)], d)
	}
}

// placeOn writes one node's replica alone.
func (w *world) placeOn(n *testNode, d *metapb.RangeDescriptor) {
	for _, r := range d.Replicas {
		if base.NodeID(r.NodeId) != n.id {
			continue
		}
		rep := &diskReplica{
			id: base.ReplicaID(r.ReplicaId), truncated: TruncatedState{10, 5}, applied: 10, term: 5, desc: d,
			hard: &raftpb.HardState{Term: new(uint64(5)), Vote: new(uint64(0)), Commit: new(uint64(10))},
		}
		n.disk.written[base.RangeID(d.RangeId)] = rep
		n.disk.synced[base.RangeID(d.RangeId)] = rep.clone()
	}
}

// start starts (again) a node's loop on what its disk holds.
func (w *world) start(n *testNode) {
	n.incarnation++
	n.stopped, n.ev, n.applies, n.unsynced, n.snapshots = false, Events{}, nil, nil, nil
	n.staged, n.lastChange = map[string]*diskReplica{}, map[base.RangeID]StateChange{}
	cfg := Config{Node: n.id, Incarnation: n.incarnation, Store: n.disk, Seed: w.seed*31 + uint64(n.id)*7 + uint64(n.incarnation)}
	if w.config != nil {
		w.config(&cfg)
	}
	var err error
	if n.loop, err = NewLoop(cfg, w.now); err != nil {
		panic(err)
	}
	for _, id := range slices.Sorted(maps.Keys(n.disk.written)) {
		n.ev.Admin = append(n.ev.Admin, Admin{Range: id, Start: true})
	}
	n.wake = w.now
}

// crash loses everything that was not synced.
func (w *world) crash(n *testNode) {
	w.logf("n%d crashes", n.id)
	n.stopped = true
	n.disk.written = map[base.RangeID]*diskReplica{}
	for id, r := range n.disk.synced {
		n.disk.written[id] = r.clone()
	}
}

// Load implements LogStore.
func (d *disk) Load(id base.RangeID) (Loaded, error) {
	l := Loaded{Tombstone: d.tombstones[id]}
	if r := d.written[id]; r != nil {
		l.ReplicaID, l.HardState, l.Truncated, l.Applied, l.Descriptor = r.id, r.hard, r.truncated, r.applied, r.desc
		l.LastIndex = r.truncated.Index + uint64(len(r.entries))
	}
	return l, nil
}

// Descriptor implements LogStore.
func (d *disk) Descriptor(id base.RangeID) (*metapb.RangeDescriptor, error) {
	return d.written[id].desc, nil
}

// Entries implements LogStore.
func (d *disk) Entries(id base.RangeID, lo, hi, maxBytes uint64, terms Terms) ([]*raftpb.Entry, error) {
	r := d.written[id]
	var out []*raftpb.Entry
	var size uint64
	for i := lo; i < hi; i++ {
		e := r.entries[i-r.truncated.Index-1]
		if e.GetIndex() != i || e.GetTerm() != terms.At(i) {
			panic(fmt.Sprintf("%s: entry %d/%d where %d/%d should be", id, e.GetTerm(), e.GetIndex(), terms.At(i), i))
		}
		if size += uint64(proto.Size(e)); size > maxBytes && len(out) > 0 {
			break
		}
		out = append(out, e)
	}
	return out, nil
}

// Term implements LogStore.
func (d *disk) Term(id base.RangeID, index uint64) (uint64, error) {
	r := d.written[id]
	return r.entries[index-r.truncated.Index-1].GetTerm(), nil
}

// step steps one node and carries out what it asks for.
func (w *world) step(n *testNode) {
	ev := n.ev
	n.ev = Events{}
	eff := n.loop.Step(w.now, &ev)
	n.wake = eff.Wake
	for i := range eff.Messages {
		n.checkSent(&eff.Messages[i])
	}
	for i := range eff.Appends {
		w.write(n, &eff.Appends[i])
	}
	if eff.Seq != 0 {
		n.unsynced = append(n.unsynced, eff.Seq)
		if !n.holdSync {
			w.sync(n)
		}
	}
	for _, m := range eff.Messages {
		w.logf("n%d → n%d %s: %s", m.FromNode, m.ToNode, m.Range, describe(&m))
		w.wire = append(w.wire, m)
	}
	n.applies = append(n.applies, eff.Applies...)
	if !n.holdApply {
		w.apply(n)
	}
	for _, r := range eff.ReadsReady {
		n.outcomes = append(n.outcomes, fmt.Sprintf("read %d: %s", r.ID, errText(r.Err)))
		w.logf("n%d read %d: %s", n.id, r.ID, errText(r.Err))
	}
	for _, x := range eff.Latched {
		word := fmt.Sprintf("holds, %d applied", n.disk.written[x.Range].applied)
		if x.Err != nil {
			word = x.Err.Error()
		}
		n.outcomes = append(n.outcomes, fmt.Sprintf("latch %c: %s", rune(x.ID.Began), errText(x.Err)))
		w.logf("n%d latch %c: %s", n.id, rune(x.ID.Began), word)
	}
	for _, f := range eff.Failed {
		n.outcomes = append(n.outcomes, fmt.Sprintf("proposal %d: %v", f.ID.Seq, f.Err))
		w.logf("n%d proposal %d failed: %v", n.id, f.ID.Seq, f.Err)
	}
	for _, s := range eff.SendSnapshot {
		w.logf("n%d → n%d %s: snapshot of index %d", n.id, s.Message.ToNode, s.Message.Range, s.Message.Raft.GetSnapshot().GetMetadata().GetIndex())
		n.snapshots = append(n.snapshots, s)
	}
	for _, token := range eff.DropStaged {
		w.logf("n%d drops snapshot %s", n.id, token)
		delete(n.staged, token)
	}
	for _, c := range eff.Gates {
		if n.gates == nil {
			n.gates = map[base.RangeID]*Gate{}
		}
		n.gates[c.Range] = c.Gate
	}
	n.cold += len(eff.Cold)
	for _, c := range eff.Changes {
		n.lastChange[c.Range] = c
		if c.Destroyed {
			w.logf("n%d %s: replica %d destroyed (%s)", n.id, c.Range, c.Replica, c.Reason)
			continue
		}
		w.logf("n%d %s: replica %d is %s at term %d, leader %d", n.id, c.Range, c.Replica, c.Role, c.Term, c.Leader)
	}
}

// write carries out one Append.
func (w *world) write(n *testNode, a *Append) {
	id := a.Range
	if a.Destroy != 0 {
		w.logf("n%d %s: writes tombstone %d", n.id, id, a.Destroy)
		delete(n.disk.written, id)
		delete(n.disk.synced, id)
		n.disk.tombstones[id] = a.Destroy
		// What is under way for the old replica is not reported to a new one.
		n.applies = slices.DeleteFunc(n.applies, func(x Apply) bool { return x.Range == id })
		n.ev.Applied = slices.DeleteFunc(n.ev.Applied, func(x Applied) bool { return x.Range == id })
		return
	}
	r := n.disk.written[id]
	if r == nil {
		r = &diskReplica{hard: &raftpb.HardState{}}
		n.disk.written[id] = r
	}
	if a.Snapshot != nil {
		w.apply(n) // what is under way comes before the snapshot
		st := n.staged[a.Token]
		delete(n.staged, a.Token)
		*r = diskReplica{id: a.ReplicaID, hard: a.HardState, applied: st.applied, term: st.term, desc: st.desc, commands: st.commands,
			truncated: TruncatedState{a.Snapshot.GetIndex(), a.Snapshot.GetTerm()}}
		n.disk.synced[id] = r.clone()
		w.logf("n%d %s: installs the snapshot of index %d", n.id, id, a.Snapshot.GetIndex())
		n.ev.Applied = append(n.ev.Applied, Applied{Range: id, Index: r.applied, Descriptor: r.desc})
		return
	}
	if a.ReplicaID != 0 {
		r.id = a.ReplicaID
	}
	if a.HardState != nil {
		r.hard = a.HardState
	}
	if len(a.Entries) > 0 {
		first := a.Entries[0].GetIndex()
		r.entries = append(r.entries[:first-r.truncated.Index-1:first-r.truncated.Index-1], a.Entries...)
		w.logf("n%d %s: appends %s", n.id, id, entryRange(a.Entries))
	}
	if t := a.Truncate; t != nil {
		r.entries = slices.Clone(r.entries[t.Index-r.truncated.Index:])
		r.truncated = *t
		w.logf("n%d %s: drops its log up to %d", n.id, id, t.Index)
	}
}

// sync makes everything written durable, and tells the loop.
func (w *world) sync(n *testNode) {
	for id, r := range n.disk.written {
		n.disk.synced[id] = r.clone()
	}
	for _, seq := range n.unsynced {
		n.ev.Durable = append(n.ev.Durable, Durable{seq})
	}
	n.unsynced = nil
}

// apply applies what waits.
func (w *world) apply(n *testNode) {
	for _, a := range n.applies {
		r := n.disk.written[a.Range]
		if r == nil {
			continue
		}
		out := Applied{Range: a.Range}
		for _, e := range a.Entries {
			if e.GetIndex() != r.applied+1 {
				panic(fmt.Sprintf("n%d %s: entry %d applied after %d", n.id, a.Range, e.GetIndex(), r.applied))
			}
			r.applied, r.term = e.GetIndex(), e.GetTerm()
			w.applyEntry(n, r, e, &out)
		}
		out.Index = r.applied
		if len(out.Changes) > 0 {
			out.Descriptor = r.desc
			out.Removed = !slices.ContainsFunc(r.desc.Replicas, func(x *metapb.Replica) bool { return base.ReplicaID(x.ReplicaId) == r.id })
		}
		n.ev.Applied = append(n.ev.Applied, out)
	}
	n.applies = nil
}

func (w *world) applyEntry(n *testNode, r *diskReplica, e *raftpb.Entry, out *Applied) {
	data := e.GetData()
	var cc raftpb.ConfChangeV2
	if e.GetType() == raftpb.EntryConfChangeV2 {
		if err := proto.Unmarshal(data, &cc); err != nil {
			panic(err)
		}
		data = cc.Context
	}
	id, cmd, ok := DecodeProposal(data)
	if !ok {
		return
	}
	if e.GetType() == raftpb.EntryConfChangeV2 {
		next := &metapb.RangeDescriptor{}
		if err := proto.Unmarshal(cmd, next); err != nil {
			panic(err)
		}
		if next.Generation != r.desc.Generation+1 {
			return // stale
		}
		r.desc = next
		out.Changes = append(out.Changes, &cc)
	} else {
		r.commands = append(r.commands, string(cmd))
	}
	if id.Node == n.id {
		n.outcomes = append(n.outcomes, fmt.Sprintf("proposal %d: applied", id.Seq))
		w.logf("n%d proposal %d: applied", n.id, id.Seq)
	}
}

// sendSnapshots carries out the snapshots that a node was asked to send.
func (w *world) sendSnapshots(n *testNode) {
	for _, s := range n.snapshots {
		r := n.disk.written[s.Message.Range]
		to := w.nodes[s.Message.ToNode]
		ok := r != nil && to != nil && !to.stopped && !w.cut[[2]base.NodeID{n.id, to.id}]
		if ok {
			m := s.Message
			m.Raft = proto.CloneOf(m.Raft)
			m.Raft.Snapshot.Metadata = &raftpb.SnapshotMetadata{Index: new(r.applied), Term: new(r.term), ConfState: ConfState(r.desc)}
			w.seq++
			token := fmt.Sprintf("s%d", w.seq)
			to.staged[token] = r.clone()
			to.ev.Admin = append(to.ev.Admin, Admin{Range: m.Range, Received: &ReceivedSnapshot{Message: m, Token: token}})
		}
		n.ev.Admin = append(n.ev.Admin, Admin{Range: s.Message.Range, Sent: &SnapshotSent{To: s.Message.ToReplica, OK: ok}})
	}
	n.snapshots = nil
}

// propose has a node's replica propose a command, and returns its number.
func (w *world) propose(n *testNode, id base.RangeID, cmd string, change *raftpb.ConfChangeV2) uint64 {
	w.seq++
	n.ev.Proposals = append(n.ev.Proposals, Proposal{
		Range: id, ID: ProposalID{Node: n.id, Seq: w.seq}, Data: []byte(cmd), Change: change,
	})
	return w.seq
}

// ids in order.
func (w *world) sorted() []*testNode {
	var out []*testNode
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		out = append(out, w.nodes[id])
	}
	return out
}

// run lets everything happen at once for some time: no loss, no delay.
func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); ; {
		for w.settle() {
		}
		next := end
		for _, n := range w.sorted() {
			if !n.stopped && n.wake < next {
				next = n.wake
			}
		}
		if next >= end {
			w.now = end
			return
		}
		w.now = max(w.now, next)
		for _, n := range w.sorted() {
			if !n.stopped && n.wake <= w.now {
				w.step(n)
			}
		}
	}
}

// settle delivers what is under way and steps whoever has something to do.
func (w *world) settle() bool {
	busy := false
	wire := w.wire
	w.wire = nil
	for i := range wire {
		if to := w.nodes[wire[i].ToNode]; to != nil && !to.stopped && !w.cut[[2]base.NodeID{wire[i].FromNode, to.id}] {
			to.ev.Messages = append(to.ev.Messages, copyMessage(wire[i]))
		}
	}
	for _, n := range w.sorted() {
		if n.stopped {
			continue
		}
		w.sendSnapshots(n)
		if !empty(&n.ev) {
			w.step(n)
			busy = true
		}
	}
	return busy
}

// copyMessage is what the wire does: the two ends share no memory.
func copyMessage(m Message) Message {
	if m.Raft != nil {
		m.Raft = proto.CloneOf(m.Raft)
	}
	return m
}

func empty(ev *Events) bool {
	return len(ev.Messages)+len(ev.Proposals)+len(ev.Latches)+len(ev.Reads)+len(ev.Durable)+len(ev.Applied)+len(ev.Admin)+
		len(ev.Promised)+len(ev.Supported)+len(ev.Lost) == 0
}

func (w *world) leader(id base.RangeID) *testNode {
	var best *testNode
	for _, n := range w.sorted() {
		if n.stopped {
			continue
		}
		if c := n.lastChange[id]; c.Role == Leader && (best == nil || c.Term > best.lastChange[id].Term) {
			best = n
		}
	}
	return best
}

func describe(m *Message) string {
	if m.TooOld != 0 && m.Fort == nil {
		return fmt.Sprintf("too old: %d and later only", m.TooOld)
	}
	if f := m.Fort; f != nil {
		return fmt.Sprintf("%s at term %d", [...]string{FortAsk: "fortify", FortGiven: "fortified", FortRelease: "released", FortInquire: "do you lead", FortHeard: "heard"}[f.Kind], f.Term)
	}
	s := raft.DescribeMessage(m.Raft, func(b []byte) string {
		_, cmd, ok := DecodeProposal(b)
		if !ok {
			return fmt.Sprintf("%q", b)
		}
		return fmt.Sprintf("%q", cmd)
	})
	return strings.TrimSpace(s)
}

func entryRange(es []*raftpb.Entry) string {
	first, last := es[0], es[len(es)-1]
	if len(es) == 1 {
		return fmt.Sprintf("%d/%d", first.GetTerm(), first.GetIndex())
	}
	return fmt.Sprintf("%d/%d..%d/%d", first.GetTerm(), first.GetIndex(), last.GetTerm(), last.GetIndex())
}

func errText(err error) string {
	if err == nil {
		return "ready"
	}
	return err.Error()
}
