package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// simCluster is three stores in one goroutine: their loops, log stores, appenders, appliers and snapshots are the real
// ones, called in an order that a seed decides. Time stands still unless the test moves it; a frame arrives, a batch
// becomes durable and a command is applied when the test says so. Everything that happens is written to trace.
type simCluster struct {
	t                 testing.TB
	now               base.Instant
	rand              *base.Rand
	nodes             []*simNode
	wire              []simFrame
	trace             bytes.Buffer
	ranges            []base.RangeID
	sums              map[appliedAt]uint64 // what every replica must hold at that index
	check             bool                 // hold what is sent and what a crash leaves against the rules: needs engine.Mem
	checked, compared int                  // answers and images that were
	told, gaps        int                  // events and gaps, of all processes

}

type appliedAt struct {
	id    base.RangeID
	index uint64
}

type simFrame struct {
	from, to base.NodeID
	frame    []byte
}

// simDisk is what survives a node's process.
type simDisk interface {
	open(testing.TB) engine.Engine
	// crash ends the engine and keeps what a crash would; all: what a kill of the process alone leaves, which is
	// everything that was committed.
	crash(t testing.TB, r *base.Rand, all bool)
}

// memDisk is the ordered map.
type memDisk struct{ eng *engine.Mem }

func (d *memDisk) open(testing.TB) engine.Engine { return d.eng }

func (d *memDisk) crash(_ testing.TB, r *base.Rand, all bool) {
	keep := d.eng.Unsynced()
	if !all {
		keep = int(r.Int63n(int64(keep + 1)))
	}
	d.eng = d.eng.Crash(keep)
}

type simNode struct {
	c                   *simCluster
	id                  base.NodeID
	disk                simDisk
	eng                 engine.Engine
	s                   *Store
	incarnation         base.Incarnation
	down                bool
	holdSync, holdApply bool
	wake                base.Instant
	sends               []raftgroup.Message
	ready               []func()
	listeners           []*listener // of each of its processes
	watch               func(bool)  // around the installation of a snapshot
}

func (n *simNode) worker() *worker { return n.s.workers[0] }

// newSimCluster founds a cluster with a replica of each range on each node.
func newSimCluster(t testing.TB, seed uint64, disk func(base.NodeID) simDisk) *simCluster {
	c := &simCluster{
		t: t, now: 1, rand: base.NewRand(seed), sums: map[appliedAt]uint64{},
		ranges: []base.RangeID{base.RangeSys, base.RangeDefault},
	}
	for id := base.NodeID(1); id <= 3; id++ {
		c.nodes = append(c.nodes, &simNode{c: c, id: id, disk: disk(id)})
	}
	for _, n := range c.nodes {
		b := n.disk.open(t).NewBatch()
		for _, id := range c.ranges {
			must(t, CreateReplica(b, simDescriptor(id), base.ReplicaID(n.id)))
		}
		must(t, commitSync(b))
		n.start()
	}
	t.Cleanup(c.close)
	return c
}

func simDescriptor(id base.RangeID) *metapb.RangeDescriptor {
	d := &metapb.RangeDescriptor{RangeId: uint64(id), KeyspaceId: uint64(id), Generation: 1, NextReplicaId: 4}
	for i := uint64(1); i <= 3; i++ {
		d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: i, NodeId: i, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	}
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *simCluster) logf(format string, args ...any) {
	fmt.Fprintf(&c.trace, "%d "+format+"\n", append([]any{c.now}, args...)...)
}

func (c *simCluster) close() {
	for _, n := range c.nodes {
		if !n.down {
			n.stop()
		}
		must(c.t, n.eng.Close())
	}
}

// start runs a node on what its disk holds, as Store.Start does, but without goroutines.
func (n *simNode) start() {
	t := n.c.t
	n.incarnation++
	n.eng = n.disk.open(t)
	var err error
	l := listen(t)
	n.s, err = New(l.config(Config{
		Engine: n.eng, Node: n.id, Incarnation: n.incarnation, Loops: 1,
		OnFatal: func(err error) { t.Errorf("%s: %v", n.id, err) },
	}))
	must(t, err)
	l.s = n.s
	n.listeners = append(n.listeners, l)
	w := n.worker()
	w.loop, err = raftgroup.NewLoop(raftgroup.Config{
		Node: n.id, Incarnation: n.incarnation, Seed: n.c.rand.Uint64(), Store: &logStore{eng: n.eng, cache: n.s.cache},
		LogKeepEntries: 6, LogKeepBytes: 1 << 20,
	}, n.c.now)
	must(t, err)
	n.s.transport = simTransport{n}
	ids, err := localRanges(n.eng)
	must(t, err)
	for _, id := range ids {
		must(t, n.s.load(id))
		n.s.admin(id, raftgroup.Admin{Range: id, Start: true})
	}
	for _, id := range n.c.ranges {
		l.watch(id, n.id == 1)
	}
	n.down, n.holdSync, n.holdApply, n.wake, n.sends, n.ready = false, false, false, n.c.now, nil, nil
	n.c.logf("%s starts with %v", n.id, ids)
}

// stop ends the process: whoever waits learns nothing more of it, as its client would not.
func (n *simNode) stop() {
	n.down = true
	for _, p := range n.takeSyncs() {
		if p.wait != nil {
			_ = p.wait() // the engine's batch; nobody is told
		}
	}
	n.s.snapshots.stop()
	n.s.compactor.cancel()
	n.s.cache.close()
}

func (n *simNode) crash(all bool) {
	n.c.logf("%s crashes", n.id)
	if n.c.check {
		n.checkImages()
	}
	if mem, ok := n.disk.(*memDisk); ok {
		mem.crash(n.c.t, n.c.rand, all) // before the waits, which would sync
		n.stop()
	} else {
		n.stop()
		n.disk.crash(n.c.t, n.c.rand, all)
	}
}

// step is one pass of the worker.
func (n *simNode) step() {
	w := n.worker()
	select {
	case <-w.box.signal:
	default:
		if n.wake > n.c.now {
			return
		}
	}
	ev, asks := w.box.take()
	eff := w.loop.Step(n.c.now, ev)
	n.traceEffects(eff)
	for i := range eff.SendSnapshot {
		n.sends = append(n.sends, eff.SendSnapshot[i].Message)
	}
	eff.SendSnapshot = eff.SendSnapshot[:0] // the simulator carries them, not a goroutine
	for i := range eff.Appends {
		if eff.Appends[i].Snapshot != nil || eff.Appends[i].Destroy != 0 {
			n.apply() // the worker is going to wait for this
		}
		if eff.Appends[i].Snapshot != nil && n.watch != nil {
			n.watch(true)
			defer n.watch(false)
		}
	}
	n.wake = eff.Wake
	must(n.c.t, w.carryOut(eff))
	for _, f := range asks {
		f(w.loop)
	}
	if !n.holdSync {
		n.sync()
	}
	if !n.holdApply {
		n.apply()
	}
	for _, f := range n.ready {
		f()
	}
	n.ready = n.ready[:0]
}

func (n *simNode) traceEffects(eff *raftgroup.Effects) {
	for i := range eff.Appends {
		a := &eff.Appends[i]
		n.c.logf("%s appends %s id=%d %v entries=%v old=%d truncate=%v snapshot=%v destroy=%d", n.id, a.Range, a.ReplicaID,
			bytesOf(a.HardState), indexes(a), a.OldLast, a.Truncate, a.Snapshot.GetIndex(), a.Destroy)
	}
	for i := range eff.Changes {
		ch := &eff.Changes[i]
		n.c.logf("%s %s role=%d term=%d leader=%d destroyed=%v", n.id, ch.Range, ch.Role, ch.Term, ch.Leader, ch.Destroyed)
	}
}

func bytesOf(m proto.Message) string {
	raw, err := proto.Marshal(m)
	return fmt.Sprintf("%x %v", raw, err)
}

func indexes(a *raftgroup.Append) (out []uint64) {
	for _, e := range a.Entries {
		out = append(out, e.GetTerm(), e.GetIndex())
	}
	return out
}

func (n *simNode) takeSyncs() []pendingSync {
	y := n.worker().syncer
	y.mu.Lock()
	defer y.mu.Unlock()
	queue := y.queue
	y.queue = nil
	return queue
}

// sync makes durable all that was committed, and says so.
func (n *simNode) sync() {
	for _, p := range n.takeSyncs() {
		if p.wait != nil {
			must(n.c.t, p.wait())
		}
		n.worker().box.put(func(ev *raftgroup.Events) { ev.Durable = append(ev.Durable, raftgroup.Durable{Seq: p.seq}) })
	}
}

// apply is one pass of the applier. What it leads to is the same on every replica, at every index.
func (n *simNode) apply() {
	a := n.worker().applier
	a.mu.Lock()
	queue, asked := a.queue, a.teller.asked
	a.queue, a.teller.asked = nil, nil
	a.mu.Unlock()
	a.answer(asked)
	must(n.c.t, a.apply(queue))
	for i := range queue {
		n.compare(n.eng, queue[i].Range)
	}
}

// compare holds the state of a replica against that of the others at the same index.
func (n *simNode) compare(r engine.Reader, id base.RangeID) {
	v, err := apply.ReadView(r, id)
	must(n.c.t, err)
	sum, err := apply.Checksum(r, &v)
	must(n.c.t, err)
	at := appliedAt{id, v.AppliedIndex}
	if want, ok := n.c.sums[at]; !ok {
		n.c.sums[at] = sum
	} else if want != sum {
		n.c.t.Fatalf("%s: %s at %d holds something else than another replica did there", n.id, id, v.AppliedIndex)
	}
	n.c.logf("%s applied %s to %d/%d: %x", n.id, id, v.AppliedTerm, v.AppliedIndex, sum)
}

// simTransport puts frames on the wire.
type simTransport struct{ n *simNode }

func (t simTransport) Send(to base.NodeID, class transport.Class, frame []byte) error {
	c := t.n.c
	c.logf("%s sends %s %d bytes %x", t.n.id, to, len(frame), xxhash.Sum64(frame))
	if c.check {
		t.n.checkSent(frame, to)
	}
	c.wire = append(c.wire, simFrame{t.n.id, to, bytes.Clone(frame)})
	return nil
}

func (t simTransport) OpenBulk(context.Context, base.NodeID) (transport.BulkStream, error) {
	return nil, transport.ErrUnreachable
}
func (t simTransport) Peers() []transport.PeerStatus { return nil }
func (t simTransport) Close()                        {}

// deliver takes one frame off the wire; lost and doubled ones are the caller's choice.
func (c *simCluster) deliver(i int, again bool) {
	f := c.wire[i]
	if !again {
		c.wire = append(c.wire[:i], c.wire[i+1:]...)
	}
	if to := c.nodes[f.to-1]; !to.down {
		must(c.t, to.s.HandleRaft(f.from, bytes.Clone(f.frame)))
	}
}

// sendSnapshots carries the snapshots that a node's loop wants sent, each whole and at once.
func (n *simNode) sendSnapshots() {
	for _, m := range n.sends {
		err := n.sendSnapshot(m)
		n.c.logf("%s sends a snapshot of %s to %s: %v", n.id, m.Range, m.ToNode, err == nil)
		n.s.admin(m.Range, raftgroup.Admin{Range: m.Range, Sent: &raftgroup.SnapshotSent{To: m.ToReplica, OK: err == nil}})
	}
	n.sends = n.sends[:0]
}

func (n *simNode) sendSnapshot(m raftgroup.Message) error {
	to := n.c.nodes[m.ToNode-1]
	if to.down {
		return transport.ErrUnreachable
	}
	token := fmt.Sprintf("%d-%d-%d", n.id, m.Range, n.s.nextID.Add(1))
	dir := n.eng.StagingDir() + "/out-" + token
	defer n.s.snapshots.remove(dir)
	offer, files, err := n.s.snapshots.prepare(m, token, dir)
	if err != nil {
		return err
	}
	defer closeAll(files)
	script := &scriptedStream{t: n.c.t}
	script.add(&rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Offer{Offer: offer}})
	script.addFiles(files)
	return to.s.HandleSnapshot(context.Background(), n.id, script)
}

// scriptedStream is a bulk stream whose other end said everything in advance.
type scriptedStream struct {
	t    testing.TB
	in   [][]byte
	sent []*rangepb.SnapshotMessage
}

func (s *scriptedStream) add(m *rangepb.SnapshotMessage) {
	raw, err := proto.Marshal(m)
	must(s.t, err)
	s.in = append(s.in, raw)
}

func (s *scriptedStream) addFiles(files []engine.File) {
	for i, f := range files {
		n, err := f.Size()
		must(s.t, err)
		data := make([]byte, n)
		if _, err := f.ReadAt(data, 0); err != nil && err != io.EOF {
			s.t.Fatal(err)
		}
		for off := 0; off < len(data); {
			part := data[off:min(len(data), off+1000)]
			s.add(&rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Chunk{Chunk: &rangepb.SnapshotChunk{
				File: uint64(i), Offset: uint64(off), Data: part, Checksum: xxhash.Sum64(part),
			}}})
			off += len(part)
		}
	}
	s.add(&rangepb.SnapshotMessage{Body: &rangepb.SnapshotMessage_Done{Done: &rangepb.SnapshotDone{}}})
}

func (s *scriptedStream) Send(raw []byte) error {
	m := &rangepb.SnapshotMessage{}
	must(s.t, proto.Unmarshal(raw, m))
	s.sent = append(s.sent, m)
	return nil
}

func (s *scriptedStream) Recv() ([]byte, error) {
	if len(s.in) == 0 {
		return nil, io.EOF
	}
	raw := s.in[0]
	s.in = s.in[1:]
	return raw, nil
}

func (s *scriptedStream) CloseSend() error { return nil }
