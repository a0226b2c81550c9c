package store

import (
	"bytes"
	"errors"
	"fmt"
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
	"github.com/cairndb/cairn/raftgroup"
)

// quiet is a cluster with leaders, in which everything is delivered.
func quiet(t *testing.T, disk func(base.NodeID) simDisk) (*simCluster, *client) {
	c := newSimCluster(t, 1, disk)
	c.heal(3 * time.Second)
	return c, newClient(c)
}

// others returns the two nodes that do not lead.
func (c *simCluster) others(l *simNode) (out []*simNode) {
	for _, n := range c.nodes {
		if n != l {
			out = append(out, n)
		}
	}
	return out
}

func TestRuleNothingIsSaidBeforeItIsDurable(t *testing.T) {
	c, cl := quiet(t, mem)
	c.check = true
	l := c.leader(base.RangeDefault)
	f := c.others(l)
	for _, n := range f {
		n.holdSync = true
	}
	pass := func() {
		for range 10 {
			for len(c.wire) > 0 {
				c.deliver(0, false)
			}
			for _, n := range c.nodes {
				n.step()
			}
		}
	}
	cl.put(l, base.RangeDefault)
	pass()
	if cl.outcomes[0] != 0 || f[0].disk.(*memDisk).eng.Unsynced() == 0 {
		t.Fatalf("%d writes acknowledged with both followers' disks held", cl.outcomes[0])
	}
	before := c.checked
	f[0].holdSync = false
	f[0].sync()
	pass()
	if cl.outcomes[0] != 1 || c.checked == before {
		t.Fatalf("%d writes acknowledged, %d answers sent, when one follower's disk is free", cl.outcomes[0], c.checked-before)
	}
}

// The leader's own disk counts like any other: with it held, and one follower's, nothing is committed.
func TestRuleTheLeadersDiskIsHeldToo(t *testing.T) {
	c, cl := quiet(t, mem)
	l := c.leader(base.RangeDefault)
	l.holdSync = true
	c.others(l)[0].holdSync = true
	cl.put(l, base.RangeDefault)
	for range 10 {
		for len(c.wire) > 0 {
			c.deliver(0, false)
		}
		for _, n := range c.nodes {
			n.step()
		}
	}
	if cl.outcomes[0] != 0 {
		t.Fatal("a write was acknowledged with one of three disks")
	}
	l.sync()
	l.step()
	if cl.outcomes[0] != 1 {
		t.Fatal("a write is not acknowledged with two of three disks")
	}
}

// HardState, entries, the deletion of a truncated suffix and the replica id are one batch, that must be synced.
func TestRuleAppendsAreOneBatch(t *testing.T) {
	eng := engine.NewMem()
	cache, err := newEntryCache(1 << 20)
	must(t, err)
	defer cache.close()
	a := &appender{eng: eng, hard: map[base.RangeID]termVote{}}
	store := &logStore{eng: eng, cache: cache}
	write := func(wantSync bool, aps ...raftgroup.Append) {
		t.Helper()
		b := eng.NewBatch()
		sync, err := a.write(b, aps)
		must(t, err)
		if sync != wantSync {
			t.Errorf("must be synced: %v", sync)
		}
		must(t, b.CommitNoSync())
	}
	entries := func(term, from, to uint64) (out []*raftpb.Entry) {
		for i := from; i <= to; i++ {
			out = append(out, &raftpb.Entry{Index: new(i), Term: new(term), Type: raftpb.EntryNormal.Enum(), Data: fmt.Append(nil, i)})
		}
		return out
	}
	hard := func(term, vote, commit uint64) *raftpb.HardState {
		return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
	}
	write(true,
		raftgroup.Append{Range: 7, ReplicaID: 3, HardState: hard(5, 1, 0), Entries: entries(5, 1, 5)},
		raftgroup.Append{Range: 8, ReplicaID: 2, HardState: hard(2, 2, 0)})
	write(false, raftgroup.Append{Range: 7, HardState: hard(5, 1, 2)}) // a commit index alone
	write(true, raftgroup.Append{Range: 7, HardState: hard(6, 2, 2), Entries: entries(6, 3, 3), OldLast: 5})
	write(false, raftgroup.Append{Range: 7, Truncate: &raftgroup.TruncatedState{Index: 2, Term: 5}})
	write(true, raftgroup.Append{Range: 7, HardState: hard(6, 3, 2)}) // another vote
	want := []string{
		"{0 0 <nil> {0 0} 0}", "{3 0 5.1.0 {0 0} 5}", "{3 0 5.1.2 {0 0} 5}", "{3 0 6.2.2 {0 0} 3}", "{3 0 6.2.2 {2 5} 3}", "{3 0 6.3.2 {2 5} 3}",
	}
	if eng.Unsynced() != len(want)-1 {
		t.Fatalf("%d batches, want %d", eng.Unsynced(), len(want)-1)
	}
	for k, w := range want {
		l, err := (&logStore{eng: eng.Crash(k), cache: cache}).Load(7)
		must(t, err)
		hs := "<nil>"
		if h := l.HardState; h != nil {
			hs = fmt.Sprintf("%d.%d.%d", h.GetTerm(), h.GetVote(), h.GetCommit())
		}
		if got := fmt.Sprintf("{%d %d %s %v %d}", l.ReplicaID, l.Tombstone, hs, l.Truncated, l.LastIndex); got != w {
			t.Errorf("after %d batches: %s, want %s", k, got, w)
		}
	}
	if term, err := store.Term(7, 3); err != nil || term != 6 {
		t.Errorf("entry 3 has term %d, %v", term, err)
	}
	write(true, raftgroup.Append{Range: 7, Destroy: 9})
	if l, err := store.Load(7); err != nil || l.ReplicaID != 0 || l.Tombstone != 9 || l.LastIndex != 0 {
		t.Errorf("after the end: %+v, %v", l, err)
	}
	if l, err := store.Load(8); err != nil || l.ReplicaID != 2 {
		t.Errorf("its neighbour: %+v, %v", l, err)
	}
}

// Whatever a crash leaves of an installation, the replica is wholly as before or wholly as in the snapshot.
func TestRuleInstallIsAtomic(t *testing.T) {
	c, cl := quiet(t, pebbleDisk(9))
	const id = base.RangeDefault
	l := c.leader(id)
	n := c.others(l)[0]
	n.crash(true)
	for range 30 {
		cl.put(l, id)
		cl.churn(l, id)
		c.healOnly(l, c.others(l)[1])
	}
	n.start()
	old, err := (&logStore{eng: n.eng, cache: n.s.cache}).Load(id)
	must(t, err)
	disk := n.disk.(*pebbleOn).disk
	var images []*enginetest.Disk
	n.watch = func(on bool) {
		if !on {
			disk.Watch(nil)
			return
		}
		disk.Watch(func() {
			for _, percent := range []int{0, 50, 100} {
				images = append(images, disk.Crash(percent))
			}
		})
	}
	c.heal(3 * time.Second)
	if n.s.SnapshotStats().Installed == 0 || len(images) == 0 {
		t.Fatalf("no snapshot was installed: %+v, %d images", n.s.SnapshotStats(), len(images))
	}
	seen := [2]int{}
	for i, img := range images {
		eng, err := img.Open()
		if err != nil {
			t.Fatalf("image %d does not open: %v", i, err)
		}
		n.checkImage(eng, id)
		l, err := (&logStore{eng: eng, cache: n.s.cache}).Load(id)
		must(t, err)
		installed := l.Truncated.Index > old.LastIndex
		if installed != (l.Applied > old.LastIndex) || l.ReplicaID != old.ReplicaID || installed && (l.Truncated.Index != l.Applied || l.HardState.GetCommit() < l.Applied) {
			t.Fatalf("image %d of an installation: %+v; before it %+v", i, l, old)
		}
		if installed {
			seen[1]++
		} else {
			seen[0]++
		}
		must(t, eng.Close())
	}
	if seen[0] == 0 || seen[1] == 0 {
		t.Errorf("%d images from before the installation, %d from after it", seen[0], seen[1])
	}
	c.agree(cl)
}

// healOnly delivers everything between some nodes for a while; the rest of the wire is lost.
func (c *simCluster) healOnly(nodes ...*simNode) {
	for range 20 {
		c.now = c.now.Add(5 * time.Millisecond)
		for len(c.wire) > 0 {
			c.deliver(0, false)
		}
		for _, n := range nodes {
			n.sync()
			n.apply()
			n.step()
		}
	}
}

// change proposes a step to another descriptor on the leader.
func (c *simCluster) change(l *simNode, to *metapb.RangeDescriptor, err error) {
	c.t.Helper()
	must(c.t, err)
	id := base.RangeID(to.RangeId)
	cmd, cc, err := apply.Change(l.s.View(id).Descriptor, to)
	must(c.t, err)
	l.s.Propose(raftgroup.Proposal{Range: id, Data: encode(c.t, cmd), Change: cc}, c.now.Add(5*time.Second), func(_ proto.Message, err error) {
		if err != nil {
			c.t.Errorf("to %s: %v", desc.Format(to), err)
		}
	})
}

// A removed replica leaves its tombstone, in the batch that deletes it; messages for the old id make nothing, after a
// crash too, and the range comes back under a new one.
func TestRuleTombstone(t *testing.T) {
	c, cl := quiet(t, mem)
	const id = base.RangeDefault
	l := c.leader(id)
	n := c.others(l)[0]
	cl.put(l, id)
	c.heal(time.Second)
	old := base.ReplicaID(desc.ReplicaOn(l.s.View(id).Descriptor, n.id).ReplicaId)
	to, err := desc.RemoveVoter(l.s.View(id).Descriptor, old)
	c.change(l, to, err)
	c.heal(5 * time.Second)
	load := func(r engine.Engine) raftgroup.Loaded {
		ld, err := (&logStore{eng: r, cache: n.s.cache}).Load(id)
		must(t, err)
		return ld
	}
	if ld := load(n.eng); ld.ReplicaID != 0 || ld.Tombstone <= old {
		t.Fatalf("the removed replica is still there: %+v", ld)
	}
	for _, s := range append(apply.Spans(to), keys.UnreplicatedSpan(id)) {
		it, err := n.eng.NewIter(engine.IterOptions{Lower: s.Start, Upper: s.End})
		must(t, err)
		if it.First() {
			t.Errorf("it left %s", keys.Pretty(it.Key()))
		}
		must(t, it.Close())
	}
	for range 2 {
		frame, err := appendRaftMessage(nil, &raftgroup.Message{Range: id, FromReplica: base.ReplicaID(l.id), ToReplica: old,
			Raft: &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(l.id)), To: new(uint64(old)), Term: new(uint64(99))}})
		must(t, err)
		must(t, n.s.HandleRaft(l.id, frame))
		n.step()
		if ld := load(n.eng); ld.ReplicaID != 0 || ld.Tombstone <= old || n.s.View(id) != nil {
			t.Fatalf("a message for the removed replica made %+v", ld)
		}
		n.crash(false)
		n.start()
	}
	to, err = desc.AddLearner(to, n.id)
	c.change(l, to, err)
	c.heal(5 * time.Second)
	if v := n.s.View(id); v == nil || !desc.Equal(v.Descriptor, to) || n.s.SnapshotStats().Installed != 1 {
		t.Fatalf("the range did not come back under a new id: %+v", v)
	}
	c.agree(cl)
}

// A replica that is replaced by a newer one on its node may have entries that are being applied, its own removal among
// them. What becomes of them is not told to the newer one.
func TestRuleReplacedReplicaDoesNotSpeakForTheNewOne(t *testing.T) {
	c, cl := quiet(t, mem)
	const id = base.RangeDefault
	l := c.leader(id)
	n := c.others(l)[0]
	n.holdApply = true
	for range 5 {
		cl.put(l, id)
	}
	// deaf: what n says is lost.
	pass := func(deaf bool) {
		for range 40 {
			c.now = c.now.Add(10 * time.Millisecond)
			for len(c.wire) > 0 {
				if deaf && c.wire[0].from == n.id {
					c.wire = c.wire[1:]
					continue
				}
				c.deliver(0, false)
			}
			for _, x := range c.nodes {
				x.sendSnapshots()
				x.step()
			}
		}
	}
	pass(false)
	to, err := desc.RemoveVoter(l.s.View(id).Descriptor, base.ReplicaID(desc.ReplicaOn(l.s.View(id).Descriptor, n.id).ReplicaId))
	c.change(l, to, err)
	pass(true) // nobody hears it, so that nobody tells it that it was removed
	if len(n.worker().applier.queue) == 0 {
		t.Fatal("nothing waits to be applied in the old replica")
	}
	to, err = desc.AddLearner(to, n.id)
	c.change(l, to, err)
	pass(false)
	c.heal(3 * time.Second)
	if v := n.s.View(id); v == nil || !desc.Equal(v.Descriptor, to) {
		t.Fatalf("the new replica was not made: %+v", v)
	}
	c.agree(cl)
}

// A write whose outcome is not known is never told as one that certainly failed.
func TestRuleAmbiguous(t *testing.T) {
	const id = base.RangeDefault
	for _, x := range []struct {
		name string
		end  func(c *simCluster, n *simNode)
		want error
	}{
		{"deadline", func(c *simCluster, n *simNode) { n.s.waiters.expire(c.now.Add(time.Minute)) }, errDeadline},
		{"stop", func(_ *simCluster, n *simNode) { n.down = true; n.s.Stop() }, base.ErrStopped},
	} {
		for _, stage := range []string{"in the mailbox", "in the log", "on its way"} {
			t.Run(x.name+" "+stage, func(t *testing.T) {
				c, cl := quiet(t, mem)
				l := c.leader(id)
				l.holdSync = true
				var got []error
				cmd := &kvpb.Command{Body: &kvpb.Command_Put{Put: encode(t, &pb.PutRequest{Key: []byte("a")})}}
				cl.propose(l, id, cmd, func(_ proto.Message, err error) { got = append(got, err) })
				if stage != "in the mailbox" {
					l.step()
				}
				if stage == "on its way" {
					c.others(l)[0].holdApply = true
					l.sync()
					l.step()
				}
				reads := 0
				if x.name == "stop" {
					l.s.ReadIndex(id, c.now, func(_ proto.Message, err error) {
						reads++
						if !errors.Is(err, x.want) || errors.As(err, new(*base.Ambiguous)) {
							t.Errorf("a read ended with %v", err)
						}
					})
				}
				x.end(c, l)
				if len(got) != 1 || !errors.As(got[0], new(*base.Ambiguous)) || !errors.Is(got[0], x.want) {
					t.Errorf("the write ended with %v", got)
				}
				if x.name == "stop" {
					if reads != 1 {
						t.Errorf("the read ended %d times", reads)
					}
					cl.propose(l, id, cmd, func(_ proto.Message, err error) { got = append(got, err) })
					if len(got) != 2 || got[1] != base.ErrStopped {
						t.Errorf("a write to a stopped store ended with %v: it certainly did not happen", got[1:])
					}
				}
			})
		}
	}
}

// A follower refuses for certain, and says who leads.
func TestFollowerRefuses(t *testing.T) {
	c, cl := quiet(t, mem)
	l := c.leader(base.RangeDefault)
	n := c.others(l)[0]
	var got error
	cl.propose(n, base.RangeDefault, &kvpb.Command{}, func(_ proto.Message, err error) { got = err })
	n.step()
	var nl *base.NotLeader
	if !errors.As(got, &nl) || nl.HintNode != l.id {
		t.Errorf("%v, want a hint to %s", got, l.id)
	}
	cl.propose(n, 77, &kvpb.Command{}, func(_ proto.Message, err error) { got = err })
	n.step()
	if !errors.As(got, new(*base.RangeMoved)) {
		t.Errorf("%v for a range that is not here", got)
	}
	if bytes.Contains(c.trace.Bytes(), []byte("!BADKEY")) || !strings.Contains(c.trace.String(), "applied") {
		t.Error("the trace is malformed")
	}
}
