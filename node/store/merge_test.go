package store

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/engine/enginetest"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/merge"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// ask proposes a command and returns what it was answered with.
func (n *splitNode) ask(id base.RangeID, cmd *kvpb.Command) proto.Message {
	n.t.Helper()
	var m proto.Message
	err := errors.New("no answer")
	n.s.Propose(raftgroup.Proposal{Range: id, Data: body(n.t, cmd)}, base.Never, func(got proto.Message, e error) { m, err = got, e })
	n.turn()
	must(n.t, err)
	return m
}

// frozen cuts the range and freezes the right part, to be merged again.
func (n *splitNode) frozen() *kvpb.FrozenRange {
	n.t.Helper()
	n.split()
	left, right := n.s.View(leftRange).Descriptor, n.s.View(rightRange).Descriptor
	cmd := merge.Begin(left, right).Next().Propose.Command
	return n.ask(rightRange, cmd).(*kvpb.FreezeResponse).Right
}

// merge puts the two together.
func (n *splitNode) merge() {
	n.t.Helper()
	left, right := n.s.View(leftRange).Descriptor, n.s.View(rightRange).Descriptor
	frozen := n.ask(rightRange, merge.Begin(left, right).Next().Propose.Command).(*kvpb.FreezeResponse).Right
	n.ask(leftRange, n.mergeCommand(frozen))
}

func (n *splitNode) mergeCommand(right *kvpb.FrozenRange) *kvpb.Command {
	return &kvpb.Command{Body: &kvpb.Command_Merge{Merge: &kvpb.Merge{ExpectedGeneration: n.s.View(leftRange).Descriptor.Generation, Right: right}}}
}

func putCommand(t *testing.T, key string) *kvpb.Command {
	return &kvpb.Command{Body: &kvpb.Command_Put{Put: body(t, &pb.PutRequest{Key: []byte(key)})}}
}

// leftOf lists what an engine has of a range but its keys and its tombstone.
func leftOf(t *testing.T, r engine.Reader, id base.RangeID) (out []string) {
	t.Helper()
	spans := []keys.Span{keys.RangeLocalSpan(id), keys.UnreplicatedSpan(id)}
	for _, s := range spans {
		it, err := r.NewIter(engine.IterOptions{Lower: s.Start, Upper: s.End})
		must(t, err)
		for ok := it.First(); ok; ok = it.Next() {
			if string(it.Key()) != string(keys.RaftTombstone(id)) {
				out = append(out, keys.Pretty(it.Key()))
			}
		}
		must(t, it.Close())
	}
	if _, err := r.Get(keys.RaftReplicaID(id)); err == nil {
		out = append(out, "its id")
	}
	return out
}

// merged holds a node to what it must be once it has merged the two: one replica that has all, and nothing of the other.
func (n *splitNode) merged(want ...string) {
	n.t.Helper()
	if all, ok := n.holds(leftRange); !ok || !slices.Equal(all, want) {
		n.t.Errorf("it holds %v", all)
	}
	if _, ok := n.s.State(rightRange); ok || n.s.View(rightRange) != nil || n.s.isAbsorbed(rightRange) || !slices.Equal(n.s.Ranges(), []base.RangeID{leftRange}) {
		n.t.Errorf("the right one is here: %v", n.s.Ranges())
	}
	if rest := leftOf(n.t, n.eng, rightRange); len(rest) > 0 {
		n.t.Errorf("of the right one there are %v", rest)
	}
	if dead, err := readUint(n.eng, keys.RaftTombstone(rightRange)); err != nil || base.ReplicaID(dead) != deadForEver {
		n.t.Errorf("its tombstone is %d, %v", dead, err)
	}
}

// The right one's replica ends with the merge, its keys are the left one's, and revisions go on.
func TestMergeEndsTheRightOne(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	right := n.frozen()
	var throttled *base.Throttled
	if err := n.propose(rightRange, putCommand(t, "y")); !errors.As(err, &throttled) {
		t.Errorf("frozen, it answers %v", err)
	}
	read := &pb.RangeRequest{Key: []byte("x")}
	if err := n.s.Read(rightRange, read, &pb.RangeResponse{}); !errors.As(err, &throttled) {
		t.Errorf("frozen, it serves: %v", err)
	}
	read.Serializable = true
	must(t, n.s.Read(rightRange, read, &pb.RangeResponse{}))
	n.ask(leftRange, n.mergeCommand(right))
	n.merged("a", "x")
	must(t, n.propose(leftRange, putCommand(t, "y")))
	if now := n.s.View(leftRange).Counters.Revision; int64(now) <= right.Revision {
		t.Errorf("at revision %d, behind %d", now, right.Revision)
	}
	for _, ask := range []func(Done){
		func(d Done) {
			n.s.Propose(raftgroup.Proposal{Range: rightRange, Data: body(t, putCommand(t, "z"))}, base.Never, d)
		},
		func(d Done) { n.s.ReadIndex(rightRange, base.Never, d) },
		func(d Done) { n.s.Confirm(rightRange, 1, base.Never, d) },
	} {
		answered, err := false, error(nil)
		ask(func(_ proto.Message, e error) { answered, err = true, e })
		n.turn()
		if !answered || err == nil {
			t.Errorf("the right one answers: %v, %v", answered, err)
		}
	}
	n.merged("a", "x", "y")
	// The same cut again is another range.
	must(t, n.propose(leftRange, &kvpb.Command{Body: &kvpb.Command_Absorbed{Absorbed: &kvpb.Absorbed{ExpectedGeneration: n.s.View(leftRange).Descriptor.Generation}}}))
	cmd, err := apply.Split(n.s.View(leftRange).Descriptor, []byte("m"), 32)
	must(t, err)
	must(t, n.propose(leftRange, cmd))
	if found, ok := n.holds(32); !ok || !slices.Equal(found, []string{"x", "y"}) {
		t.Errorf("cut again, the right part holds %v", found)
	}
}

// A merge of what this node does not have all of is not applied: nobody would have proposed it.
func TestMergeUnconfirmedStopsTheStore(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	right := n.frozen()
	right.AppliedIndex += 5
	var fatal error
	n.s.cfg.OnFatal = func(err error) { fatal = err }
	n.s.Propose(raftgroup.Proposal{Range: leftRange, Data: body(t, n.mergeCommand(right))}, base.Never, func(proto.Message, error) {})
	n.turn()
	var c *base.Corruption
	if !errors.As(fatal, &c) {
		t.Fatalf("it goes on: %v", fatal)
	}
	if rest := leftOf(t, n.eng, rightRange); len(rest) == 0 {
		t.Error("the right one is gone")
	}
}

// What waits for the right one when it is taken over is ended.
func TestMergeEndsWhoWaits(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	right := n.frozen()
	n.s.Propose(raftgroup.Proposal{Range: leftRange, Data: body(t, n.mergeCommand(right))}, base.Never, func(proto.Message, error) {})
	var answers []error
	told := func(_ proto.Message, err error) { answers = append(answers, err) }
	for n.s.View(rightRange) != nil { // until it is applied
		n.now = n.now.Add(time.Millisecond)
		_, err := n.h.Pass(nil)
		must(t, err)
		for _, y := range n.h.Syncs() {
			must(t, n.h.Synced(y))
		}
		n.h.Apply()
	}
	n.s.Propose(raftgroup.Proposal{Range: rightRange, Data: body(t, putCommand(t, "z"))}, base.Never, told)
	n.s.ReadIndex(rightRange, base.Never, told)
	n.turn()
	if len(answers) != 2 || answers[0] == nil || answers[1] == nil {
		t.Errorf("answered: %v", answers)
	}
	n.merged("a", "x")
}

// again starts a node on an engine, as after a crash.
func again(t *testing.T, eng engine.Engine) *splitNode {
	t.Helper()
	n := &splitNode{t: t, eng: eng, now: 1}
	var err error
	n.s, err = New(Config{Engine: eng, Node: 1, Incarnation: 2, Loops: 2, Clock: func() base.Instant { return n.now }, OnFatal: func(err error) { t.Errorf("stopped: %v", err) }})
	must(t, err)
	n.h, err = n.s.StartByHand(simTransport{})
	must(t, err)
	return n
}

// oneOrTwo holds a node that starts after a crash to what it may find: the two as they were before the merge, or one.
func oneOrTwo(t *testing.T, eng engine.Engine) (one bool) {
	t.Helper()
	n := again(t, eng)
	defer n.h.Stop()
	n.turn()
	left, right := n.s.View(leftRange), n.s.View(rightRange)
	if left == nil || (len(left.Descriptor.End) == 0) != (right == nil) {
		t.Fatalf("neither one nor two: %v", n.s.Ranges())
	}
	if right == nil {
		n.merged("a", "x")
		return true
	}
	found, _ := n.holds(leftRange)
	if !desc.IsFrozen(right.Descriptor) || !slices.Equal(found, []string{"a"}) {
		t.Errorf("%s, and the left one holds %v", desc.Format(right.Descriptor), found)
	}
	out := &pb.RangeResponse{}
	must(t, n.s.Read(rightRange, &pb.RangeRequest{Key: []byte("x"), Serializable: true}, out))
	if len(out.Kvs) != 1 {
		t.Error("the right one has lost its key")
	}
	return false
}

// Whatever is on disk at a crash while the two are merged, a node starts from it and has one of the two or both, and nothing is left
// of a replica that was taken over: also if it stopped before its loop had heard of that.
func TestMergeCrashes(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	right := n.frozen()
	mem := n.eng.(*engine.Mem)
	mem.SyncTo(mem.Unsynced())
	n.s.Propose(raftgroup.Proposal{Range: leftRange, Data: body(t, n.mergeCommand(right))}, base.Never, func(proto.Message, error) {})
	outcomes := map[bool]int{}
	halfway := 0
	image := func() {
		for keep := range mem.Unsynced() + 1 {
			img := mem.Crash(keep)
			if _, err := img.Get(keys.RangeDescriptor(rightRange)); err != nil && len(leftOf(t, img, rightRange)) > 0 {
				halfway++
			}
			outcomes[oneOrTwo(t, img)]++
		}
	}
	for range 20 {
		n.now = n.now.Add(time.Millisecond)
		_, err := n.h.Pass(nil)
		must(t, err)
		image()
		for _, y := range n.h.Syncs() {
			must(t, n.h.Synced(y))
			image()
		}
		n.h.Apply()
		image()
	}
	n.merged("a", "x")
	if outcomes[true] == 0 || outcomes[false] == 0 || halfway == 0 {
		t.Errorf("of the images %v are merged, %d before the end of the replica", outcomes, halfway)
	}
}

// The same on the disk that a node has, with a crash before any of its operations that write.
func TestMergeCrashesOnDisk(t *testing.T) {
	disk := enginetest.NewDisk(1)
	eng, err := disk.Open()
	must(t, err)
	b := eng.NewBatch()
	left, right := mergePair()
	for _, d := range []*metapb.RangeDescriptor{left, right} {
		must(t, CreateReplica(b, d, 1))
	}
	must(t, commitSync(b))
	n := again(t, eng)
	n.turn()
	var images []*enginetest.Disk
	disk.Watch(func() { images = append(images, disk.Crash(0), disk.Crash(100)) })
	n.ask(leftRange, n.mergeCommand(&kvpb.FrozenRange{Descriptor_: right, AppliedIndex: apply.InitialIndex, Revision: 1, Compacted: -1}))
	must(t, eng.Flush())
	disk.Watch(nil)
	images = append(images, disk.Crash(0))
	n.h.Stop()
	must(t, eng.Close())
	outcomes := map[bool]int{}
	for _, d := range images {
		e, err := d.Open()
		must(t, err)
		n := again(t, e)
		n.turn()
		r := n.s.View(rightRange)
		outcomes[r == nil]++
		if l := n.s.View(leftRange); (len(l.Descriptor.End) == 0) != (r == nil) {
			t.Errorf("neither one nor two: %v", n.s.Ranges())
		}
		if rest := leftOf(t, e, rightRange); r == nil && len(rest) > 0 {
			t.Errorf("of the right one there are %v", rest)
		}
		n.h.Stop()
		must(t, e.Close())
	}
	if outcomes[true] == 0 || outcomes[false] == 0 {
		t.Errorf("of the images %v are merged", outcomes)
	}
}

// mergePair are two neighbours on node 1 alone, the right one frozen for the left one.
func mergePair() (left, right *metapb.RangeDescriptor) {
	left, right = desctest.First(leftRange, splitSpace), desctest.First(rightRange, splitSpace)
	left.End, left.Generation, right.Start, right.Generation = []byte("m"), 5, []byte("m"), 7
	right.Frozen = &metapb.Frozen{IntoRangeId: left.RangeId, IntoGeneration: left.Generation}
	return left, right
}

// A node confirms what is applied, and on disk: not before the sync has ended that began after it.
func TestConfirmIsDurable(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	right := n.frozen()
	confirm := func(generation uint64) (answered *bool, err *error) {
		answered, err = new(bool), new(error)
		n.s.Confirm(rightRange, base.Generation(generation), base.Never, func(_ proto.Message, e error) { *answered, *err = true, e })
		return answered, err
	}
	answered, err := confirm(right.Descriptor_.Generation + 1)
	n.turn()
	var nl *base.NotLeader
	if !*answered || !errors.As(*err, &nl) {
		t.Errorf("what is not there yet: %v, %v", *answered, *err)
	}
	b := n.eng.NewBatch() // something that a crash would take back
	must(t, b.Set(keys.RaftCompacted(99), uintBytes(nil, 1)))
	must(t, b.CommitNoSync())
	must(t, b.Close())
	answered, err = confirm(right.Descriptor_.Generation)
	var syncs []*Sync
	for range 10 {
		n.now = n.now.Add(time.Millisecond)
		_, perr := n.h.Pass(nil)
		must(t, perr)
		syncs = append(syncs, n.h.Syncs()...)
		n.h.Apply()
		if *answered {
			t.Fatal("it says so before it is on disk")
		}
	}
	for _, y := range syncs {
		must(t, n.h.Synced(y))
	}
	n.turn()
	if !*answered || *err != nil {
		t.Fatalf("%v, %v", *answered, *err)
	}
	if _, err := n.eng.(*engine.Mem).Synced(keys.RaftCompacted(99)); err != nil {
		t.Error("what was in the engine before is not on disk")
	}
}

// What the right one's compaction hid is removed by the left one's, whose mark may be further already.
func TestMergeCompactsTheRightOnesKeys(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	must(t, n.propose(leftRange, putCommand(t, "x"))) // a second version
	compact := func(id base.RangeID) {
		cmd := &kvpb.Command{Body: &kvpb.Command_Compaction{Compaction: body(t, &pb.CompactionRequest{Revision: int64(n.s.View(id).Counters.Revision)})}}
		must(t, n.propose(id, cmd))
	}
	n.split()
	must(t, n.propose(leftRange, putCommand(t, "b")))
	compact(leftRange)
	n.h.Compact()
	right := n.ask(rightRange, merge.Begin(n.s.View(leftRange).Descriptor, n.s.View(rightRange).Descriptor).Next().Propose.Command).(*kvpb.FreezeResponse).Right
	n.ask(leftRange, n.mergeCommand(right))
	n.h.Compact()
	it, err := n.eng.NewIter(engine.IterOptions{Lower: keys.DataSpan(splitSpace, []byte("m"), nil).Start, Upper: keys.DataSpan(splitSpace, nil, nil).End})
	must(t, err)
	defer it.Close()
	versions := 0
	for ok := it.First(); ok; ok = it.Next() {
		versions++
	}
	if versions != 1 {
		t.Errorf("%d versions are here, below the mark", versions)
	}
}

// behind is a node that has missed a merge: it holds both as they were, as voters among two. ahead is what the other one has.
type behind struct {
	*splitNode
	ahead *splitNode
}

func onBoth(d *metapb.RangeDescriptor) *metapb.RangeDescriptor {
	d = desc.Clone(d)
	d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: 2, NodeId: 2, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	d.NextReplicaId = 3
	return d
}

func newBehind(t *testing.T, left, right *metapb.RangeDescriptor) *behind {
	t.Helper()
	b := &behind{splitNode: &splitNode{t: t, eng: engine.NewMem(), now: 1}, ahead: newAhead(t)}
	w := b.eng.NewBatch()
	for _, d := range []*metapb.RangeDescriptor{left, right} {
		must(t, CreateReplica(w, d, 1))
	}
	must(t, w.Set(keys.Data(nil, splitSpace, []byte("old"), 1), []byte("old")))
	must(t, w.CommitNoSync())
	must(t, w.Close())
	b.begin(1)
	b.turn()
	return b
}

// newAhead is an empty store on node 2.
func newAhead(t *testing.T) *splitNode {
	n := &splitNode{t: t, eng: engine.NewMem(), now: 1}
	n.begin(2)
	return n
}

func (n *splitNode) begin(node base.NodeID) {
	n.t.Helper()
	var err error
	n.s, err = New(Config{Engine: n.eng, Node: node, Incarnation: 1, Loops: 2, Clock: func() base.Instant { return n.now }, OnFatal: func(err error) { n.t.Errorf("stopped: %v", err) }})
	must(n.t, err)
	n.h, err = n.s.StartByHand(nowhere{})
	must(n.t, err)
	n.t.Cleanup(n.h.Stop)
}

// offer has the other node send what it has of a range, at an index behind all that this one has.
func (b *behind) offer(d *metapb.RangeDescriptor) (*Parcel, error) {
	b.t.Helper()
	w := b.ahead.eng.NewBatch()
	must(b.t, CreateReplica(w, d, 2))
	must(b.t, w.Set(keys.RangeApplied(base.RangeID(d.RangeId)), uintBytes(uintBytes(nil, 50), 9)))
	must(b.t, w.CommitNoSync())
	must(b.t, w.Close())
	must(b.t, b.ahead.s.load(base.RangeID(d.RangeId)))
	p, err := b.ahead.h.Pack(raftgroup.Message{
		Range: base.RangeID(d.RangeId), FromNode: 2, ToNode: 1, FromReplica: 2, ToReplica: 1,
		Raft: &raftpb.Message{
			Type: raftpb.MsgSnap.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(9)),
			Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(50)), Term: new(uint64(9)), ConfState: raftgroup.ConfState(d)}},
		},
	})
	must(b.t, err)
	return p, b.h.Deliver(p, p.Bytes(), 1<<20)
}

// A snapshot from behind a merge takes the place of the remnant that this node has of the range which was taken over, whole or cut
// again since: nothing is left of it, and its tombstone is there.
func TestMergeSnapshotReplacesTheRemnant(t *testing.T) {
	for name, end := range map[string]string{"whole": "", "cut again": "p"} {
		t.Run(name, func(t *testing.T) {
			left, right := mergePair()
			b := newBehind(t, onBoth(left), onBoth(right))
			now := onBoth(left)
			now.End, now.Generation = []byte(end), 9
			_, err := b.offer(now)
			must(t, err)
			b.turn()
			if v := b.s.View(leftRange); !desc.Equal(v.Descriptor, now) || v.AppliedIndex != 50 {
				t.Fatalf("%s at %d", desc.Format(v.Descriptor), v.AppliedIndex)
			}
			b.merged()
			it, err := b.eng.NewIter(engine.IterOptions{Lower: keys.DataSpan(splitSpace, nil, nil).Start, Upper: keys.DataSpan(splitSpace, nil, nil).End})
			must(t, err)
			defer it.Close()
			if it.First() {
				t.Errorf("%s is here still", keys.Pretty(it.Key()))
			}
			// And so it is at the next start.
			n := again(t, b.eng.(*engine.Mem).Crash(1<<30))
			defer n.h.Stop()
			n.turn()
			if !slices.Equal(n.s.Ranges(), []base.RangeID{leftRange}) {
				t.Errorf("started with %v", n.s.Ranges())
			}
		})
	}
}

// A snapshot over any other neighbour is refused, and leaves it as it is.
func TestMergeSnapshotSparesOthers(t *testing.T) {
	for name, spoil := range map[string]func(left, right, now *metapb.RangeDescriptor){
		"not frozen":          func(_, right, _ *metapb.RangeDescriptor) { right.Frozen = nil },
		"frozen for another":  func(_, right, _ *metapb.RangeDescriptor) { right.Frozen.IntoRangeId = 77 },
		"a part of its keys":  func(_, right, now *metapb.RangeDescriptor) { now.Start = []byte("o") },
		"from before the cut": func(left, _, now *metapb.RangeDescriptor) { now.Generation = left.Generation - 1 },
	} {
		t.Run(name, func(t *testing.T) {
			left, right := mergePair()
			now := onBoth(left)
			now.End, now.Generation = nil, 9
			spoil(left, right, now)
			b := newBehind(t, onBoth(left), onBoth(right))
			if _, err := b.offer(now); err == nil || !strings.Contains(err.Error(), "r31") {
				t.Fatalf("taken: %v", err)
			}
			b.turn()
			if v := b.s.View(rightRange); v == nil || !desc.Equal(v.Descriptor, onBoth(right)) || b.s.View(leftRange).AppliedIndex != apply.InitialIndex {
				t.Errorf("%v", b.s.Ranges())
			}
		})
	}
}

// A snapshot of the right range that was on its way while it was taken over here is dropped: it is nobody's. It comes when the merge
// is applied, or its loop has it by then and is about to take it in.
func TestMergeSnapshotOfTheRightOneComesLate(t *testing.T) {
	for name, early := range map[string]bool{"after it": false, "while it is applied": true} {
		t.Run(name, func(t *testing.T) {
			n := newSplitNode(t, func(engine.Writer) {})
			right := n.frozen()
			b := &behind{splitNode: n, ahead: newAhead(t)}
			n.s.Propose(raftgroup.Proposal{Range: leftRange, Data: body(t, n.mergeCommand(right))}, base.Never, func(proto.Message, error) {})
			for !n.h.Applies() {
				n.now = n.now.Add(time.Millisecond)
				_, err := n.h.Pass(nil)
				must(t, err)
				for _, y := range n.h.Syncs() {
					must(t, n.h.Synced(y))
				}
			}
			taken := 0
			if early {
				_, err := b.offer(onBoth(right.Descriptor_))
				must(t, err)
				_, err = n.h.Pass(func(eff *raftgroup.Effects) {
					for i := range eff.Appends {
						if eff.Appends[i].Snapshot != nil {
							taken++
							n.s.worker(leftRange).applier.once()
						}
					}
				})
				must(t, err)
				if taken != 1 {
					t.Fatalf("%d snapshots were to be taken in", taken)
				}
			}
			n.turn()
			n.merged("a", "x")
			if !early {
				_, _ = b.offer(onBoth(right.Descriptor_)) // whether it is refused, or received and dropped, is the same
				n.turn()
			}
			if st := n.s.SnapshotStats(); st.Installed != 0 || len(n.s.snapshots.staged) > 0 {
				t.Errorf("%+v, and %d are staged", st, len(n.s.snapshots.staged))
			}
			n.merged("a", "x")
		})
	}
}

// nowhere is a network on which nothing arrives.
type nowhere struct{ simTransport }

func (nowhere) Send(base.NodeID, transport.Class, []byte) error { return transport.ErrUnreachable }
