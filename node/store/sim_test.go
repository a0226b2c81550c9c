package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/engine/enginetest"
	"github.com/cairndb/cairn/raftgroup"
)

// client is what the writers and readers of a run know.
type client struct {
	c        *simCluster
	seq      int
	acked    map[base.RangeID]map[string]bool
	refused  map[base.RangeID]map[string]bool
	newest   map[base.RangeID]int64 // revision that was acknowledged
	outcomes [4]int                 // acknowledged, refused, ambiguous, reads
}

func newClient(c *simCluster) *client {
	cl := &client{c: c, acked: map[base.RangeID]map[string]bool{}, refused: map[base.RangeID]map[string]bool{}, newest: map[base.RangeID]int64{}}
	for _, id := range c.ranges {
		cl.acked[id], cl.refused[id] = map[string]bool{}, map[string]bool{}
	}
	return cl
}

// put writes a key that nobody else writes.
func (cl *client) put(n *simNode, id base.RangeID) (key string) {
	cl.seq++
	key = fmt.Sprintf("key%06d", cl.seq)
	cl.propose(n, id, &kvpb.Command{Body: &kvpb.Command_Put{Put: encode(cl.c.t, &pb.PutRequest{Key: []byte(key), Value: []byte(strings.Repeat(key, 3))})}}, func(m proto.Message, err error) {
		cl.c.logf("%s: put %s: %v", n.id, key, err)
		var amb *base.Ambiguous
		switch {
		case err == nil:
			cl.acked[id][key] = true
			cl.newest[id] = max(cl.newest[id], m.(*pb.PutResponse).Header.Revision)
			cl.outcomes[0]++
		case errors.As(err, &amb):
			cl.outcomes[2]++
		default:
			cl.refused[id][key] = true
			cl.outcomes[1]++
		}
	})
	return key
}

// churn overwrites or deletes keys that everybody writes, or compacts.
func (cl *client) churn(n *simNode, id base.RangeID) {
	r := cl.c.rand
	key := fmt.Appendf(nil, "shared%d", r.Int63n(5))
	cmd := &kvpb.Command{}
	switch r.Int63n(4) {
	case 0:
		cmd.Body = &kvpb.Command_DeleteRange{DeleteRange: encode(cl.c.t, &pb.DeleteRangeRequest{Key: key})}
	case 1:
		cmd.Body = &kvpb.Command_Compaction{Compaction: encode(cl.c.t, &pb.CompactionRequest{Revision: cl.newest[id] / 2})}
	default:
		cmd.Body = &kvpb.Command_Put{Put: encode(cl.c.t, &pb.PutRequest{Key: key, Value: fmt.Append(nil, cl.seq)})}
	}
	cl.propose(n, id, cmd, func(_ proto.Message, err error) { cl.c.logf("%s: churn: %v", n.id, err) })
}

func (cl *client) propose(n *simNode, id base.RangeID, cmd *kvpb.Command, done Done) {
	n.s.Propose(raftgroup.Proposal{Range: id, Data: encode(cl.c.t, cmd)}, cl.c.now.Add(3*time.Second), done)
}

// read must see all that was acknowledged before it began.
func (cl *client) read(n *simNode, id base.RangeID) {
	want := cl.newest[id]
	n.s.ReadIndex(id, cl.c.now.Add(3*time.Second), func(_ proto.Message, err error) {
		if err != nil {
			cl.c.logf("%s: read: %v", n.id, err)
			return
		}
		n.ready = append(n.ready, func() {
			out := &pb.RangeResponse{}
			must(cl.c.t, n.s.Read(id, &pb.RangeRequest{Key: []byte("key"), RangeEnd: []byte("kez"), CountOnly: true}, out))
			cl.c.logf("%s: read %s: %d keys at %d", n.id, id, out.Count, out.Header.Revision)
			if out.Header.Revision < want {
				cl.c.t.Fatalf("%s: a read of %s saw revision %d; %d was acknowledged before it", n.id, id, out.Header.Revision, want)
			}
			cl.outcomes[3]++
		})
	})
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	must(t, err)
	return raw
}

// turmoil runs steps of loss, delay, doubling, reordering, held disks and crashes under load. lose: crashes take
// unsynced batches with them.
func (c *simCluster) turmoil(cl *client, steps int, lose bool) {
	r := c.rand
	for range steps {
		c.now = c.now.Add(time.Duration(r.Int63n(int64(20 * time.Millisecond))))
		n := c.nodes[r.Int63n(3)]
		id := c.ranges[r.Int63n(int64(len(c.ranges)))]
		x := r.Int63n(1000)
		switch {
		case n.down && x < 20:
			n.start()
		case n.down:
			continue
		case x < 6:
			n.crash(!lose)
			continue
		case x < 450:
			c.shake()
		case x < 650:
			if l := c.leader(id); l != nil && x < 600 {
				n = l
			}
			cl.put(n, id)
		case x < 700:
			cl.churn(n, id)
		case x < 760:
			cl.read(n, id)
		case x < 790:
			n.holdSync = !n.holdSync
		case x < 830:
			n.holdApply = !n.holdApply
		case x < 840 && c.check:
			n.checkImages()
		case x < 845:
			must(c.t, n.s.compactor.compact(id))
		case x < 860:
			n.s.waiters.expire(c.now)
		}
		n.sendSnapshots()
		n.step()
	}
}

// leader is the first node that takes itself for the range's leader.
func (c *simCluster) leader(id base.RangeID) *simNode {
	for _, n := range c.nodes {
		if st, ok := n.s.State(id); ok && !n.down && st.Role == raftgroup.Leader {
			return n
		}
	}
	return nil
}

// shake loses, doubles or delivers a few frames, out of order.
func (c *simCluster) shake() {
	for range 8 {
		if len(c.wire) == 0 {
			return
		}
		i := int(c.rand.Int63n(int64(min(len(c.wire), 6))))
		to := c.nodes[c.wire[i].to-1]
		switch x := c.rand.Int63n(100); {
		case x < 8:
			c.wire = slices.Delete(c.wire, i, i+1)
			continue
		case x < 11:
			c.deliver(i, true)
		default:
			c.deliver(i, false)
		}
		if !to.down {
			to.step()
		}
	}
}

// heal lets everything through for a while.
func (c *simCluster) heal(d time.Duration) {
	for _, n := range c.nodes {
		if n.down {
			n.start()
		}
		n.holdSync, n.holdApply = false, false
	}
	for end := c.now.Add(d); c.now < end; c.now = c.now.Add(5 * time.Millisecond) {
		for range 4 {
			for len(c.wire) > 0 {
				c.deliver(0, false)
			}
			for _, n := range c.nodes {
				n.sendSnapshots()
				n.sync()
				n.apply()
				n.step()
			}
		}
	}
}

// agree checks, after a heal, that nothing acknowledged is lost, nothing refused is there, and all replicas are equal.
func (c *simCluster) agree(cl *client) {
	for _, id := range c.ranges {
		var at []uint64
		for _, n := range c.nodes {
			at = append(at, n.s.View(id).AppliedIndex)
			n.compare(n.eng, id)
			out := &pb.RangeResponse{}
			must(c.t, n.s.Read(id, &pb.RangeRequest{Key: []byte("key"), RangeEnd: []byte("kez"), KeysOnly: true}, out))
			found := map[string]bool{}
			for _, kv := range out.Kvs {
				found[string(kv.Key)] = true
				if cl.refused[id][string(kv.Key)] {
					c.t.Fatalf("%s: %s was refused for certain and is in %s", n.id, kv.Key, id)
				}
			}
			for key := range cl.acked[id] {
				if !found[key] {
					c.t.Fatalf("%s: %s was acknowledged and is not in %s", n.id, key, id)
				}
			}
		}
		if at[0] != at[1] || at[1] != at[2] {
			c.t.Fatalf("%s is applied to %v after the heal", id, at)
		}
	}
}

// run is one whole run: turmoil, heal, a write that must succeed, and the checks. It returns the trace.
func runSim(t testing.TB, seed uint64, disk func(base.NodeID) simDisk, steps int, lose, check bool) (string, *client, *simCluster) {
	c := newSimCluster(t, seed, disk)
	c.check = check
	cl := newClient(c)
	c.heal(3 * time.Second) // the first leaders
	c.turmoil(cl, steps, lose)
	c.heal(10 * time.Second)
	for _, id := range c.ranges {
		before := cl.outcomes[0]
		for _, n := range c.nodes {
			cl.put(n, id)
		}
		c.heal(time.Second)
		if cl.outcomes[0] != before+1 {
			t.Fatalf("seed %d: after the heal %d of three nodes took a write to %s, want the leader alone", seed, cl.outcomes[0]-before, id)
		}
	}
	c.agree(cl)
	c.heardAll()
	return c.trace.String(), cl, c
}

// heardAll holds what was told of each node's replicas against how far they are. A gap is what a
// snapshot leaves.
func (c *simCluster) heardAll() {
	for _, n := range c.nodes {
		for i, l := range n.listeners {
			c.told, c.gaps = c.told+l.events, c.gaps+l.gaps
			if i < len(n.listeners)-1 {
				continue
			}
			for _, id := range c.ranges {
				if v := n.s.View(id); l.of[id] == nil || l.of[id].next != v.Counters.Revision+1 {
					c.t.Errorf("%s: told of %s up to %+v; it is at %d", n.id, id, l.of[id], v.Counters.Revision)
				}
			}
		}
	}
}

func mem(base.NodeID) simDisk { return &memDisk{engine.NewMem()} }

func TestSimulation(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	var total [4]int
	checked, compared, installed, told, gaps := 0, 0, 0, 0, 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) {
			trace, cl, c := runSim(t, seed+1, mem, 3000, true, true)
			for i := range total {
				total[i] += cl.outcomes[i]
			}
			checked, compared = checked+c.checked, compared+c.compared
			told, gaps = told+c.told, gaps+c.gaps
			installed += strings.Count(trace, "sends a snapshot")
		})
	}
	t.Logf("%d acknowledged, %d refused, %d ambiguous, %d reads; %d answers and %d crash images checked; %d snapshots; %d events told, with %d gaps",
		total[0], total[1], total[2], total[3], checked, compared, installed, told, gaps)
	if slices.Contains(total[:], 0) || checked == 0 || compared == 0 || installed == 0 || told == 0 || gaps == 0 {
		t.Error("the runs do not reach everything that they are to check")
	}
}

// The same seed gives the same trace, byte for byte: every frame, append, outcome and checksum.
func TestSameSeedSameTrace(t *testing.T) {
	for seed := range uint64(3) {
		a, _, _ := runSim(t, seed+1, mem, 1500, true, false)
		b, _, _ := runSim(t, seed+1, mem, 1500, true, false)
		if a != b {
			t.Fatalf("seed %d: two runs differ: %s", seed+1, firstDifference(a, b))
		}
	}
	a, _, _ := runSim(t, 1, mem, 300, true, false)
	if b, _, _ := runSim(t, 2, mem, 300, true, false); a == b {
		t.Error("the trace does not depend on the seed")
	}
}

// The same run on Pebble gives the same trace: nothing above the engine rests on which one it is. The crashes are of the
// process alone, since what a disk loses beyond what was synced is the disk's.
func TestSameTraceOnPebble(t *testing.T) {
	for seed := range uint64(2) {
		a, _, _ := runSim(t, seed+1, mem, 600, false, false)
		b, _, _ := runSim(t, seed+1, pebbleDisk(0), 600, false, false)
		if a != b {
			t.Fatalf("seed %d: Pebble and the map differ: %s", seed+1, firstDifference(a, b))
		}
	}
}

// On Pebble, crashes that lose unsynced writes lose nothing acknowledged.
func TestSimulationOnPebble(t *testing.T) {
	for seed := range uint64(2) {
		runSim(t, seed+100, pebbleDisk(seed+1), 600, true, false)
	}
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d: %q or %q", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d or %d lines", len(x), len(y))
}

// pebbleOn is Pebble over files in memory that forget, at a crash, part of what was not synced.
type pebbleOn struct {
	disk *enginetest.Disk
	eng  *engine.Pebble
}

func pebbleDisk(seed uint64) func(base.NodeID) simDisk {
	return func(id base.NodeID) simDisk { return &pebbleOn{disk: enginetest.NewDisk(seed*3 + uint64(id))} }
}

func (d *pebbleOn) open(t testing.TB) engine.Engine {
	if d.eng == nil {
		var err error
		d.eng, err = d.disk.Open()
		must(t, err)
	}
	return d.eng
}

func (d *pebbleOn) crash(t testing.TB, r *base.Rand, all bool) {
	percent := 0
	if all {
		must(t, commitSync(d.eng.NewBatch())) // the log is with the system, which goes on
	} else {
		percent = int(r.Int63n(101))
	}
	d.disk = d.disk.Crash(percent)
	must(t, d.eng.Close())
	d.eng = nil
}
