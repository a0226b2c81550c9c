package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/spread"
	"github.com/cairndb/cairn/raftgroup"
)

// sharded is a keyspace of ranges that lie on the nodes of a world, each alone on one: [-∞, "1") on the first, ["1", "2") on the
// second, and so on.
const sharded = base.KeyspaceID(100)

func newSharded(t testing.TB, nodes base.NodeID, ranges int) *world {
	w := newWorld(t, nodes)
	for i := range ranges {
		d := &metapb.RangeDescriptor{RangeId: uint64(100 + i), KeyspaceId: uint64(sharded), Generation: 1, NextReplicaId: 2}
		d.Replicas = []*metapb.Replica{{ReplicaId: 1, NodeId: 1 + uint64(i)%uint64(nodes), Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}}
		if i > 0 {
			d.Start = []byte(strconv.Itoa(i))
		}
		if i < ranges-1 {
			d.End = []byte(strconv.Itoa(i + 1))
		}
		must(t, w.nodes[base.NodeID(d.Replicas[0].NodeId)].cfg.Store.Place(d))
		for _, n := range w.nodes {
			n.Learn(d)
		}
	}
	return w
}

func (w *world) put(d *Dispatcher, key, value string) int64 {
	w.t.Helper()
	m, err := d.Propose(w.ctx(), sharded, []byte(key), putCommand(w.t, key, value))
	if err != nil {
		w.t.Error(err)
		return 0
	}
	return m.(*pb.PutResponse).Header.Revision
}

var all = &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}

// Writers in all ranges write without a pause, each a number to one range after the other, and reads of all ranges are answered all
// the same; each shows, of every writer, numbers that were there at one moment.
func TestSnapshotsUnderWriters(t *testing.T) {
	const ranges, writers, snapshots = 6, 6, 40
	w := newSharded(t, 3, ranges)
	ctx, cancel := context.WithCancel(w.ctx())
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				for r := range ranges {
					w.put(w.nodes[base.NodeID(1+i%3)], fmt.Sprintf("%d/%d", r, i), strconv.Itoa(n))
				}
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	for i := range snapshots {
		resp, err := w.nodes[base.NodeID(1+i%3)].Range(w.ctx(), sharded, all)
		if err != nil {
			t.Fatalf("snapshot %d: %v", i, err)
		}
		seen := map[string]int{}
		for _, kv := range resp.Kvs {
			if seen[string(kv.Key)], err = strconv.Atoi(string(kv.Value)); err != nil {
				t.Fatal(err)
			}
			if kv.ModRevision > resp.Header.Revision {
				t.Fatalf("%q of revision %d in the state of %d", kv.Key, kv.ModRevision, resp.Header.Revision)
			}
		}
		for i := range writers {
			first, last := seen[fmt.Sprintf("0/%d", i)], seen[fmt.Sprintf("%d/%d", ranges-1, i)]
			for r := 1; r < ranges; r++ {
				if before, now := seen[fmt.Sprintf("%d/%d", r-1, i)], seen[fmt.Sprintf("%d/%d", r, i)]; now > before {
					t.Fatalf("writer %d's %d is there and the one before it is not: %v", i, now, seen)
				}
			}
			if first > last+1 {
				t.Fatalf("writer %d's %d is there, and its %d is not", i, first, last+1)
			}
		}
	}
}

// A snapshot reads the same again, by pages too, from any node, whatever was written meanwhile and by whose clock.
func TestSnapshotStays(t *testing.T) {
	w := newSharded(t, 3, 5)
	for id, d := range w.nodes {
		d.cfg.UnixMicros = func() int64 { return time.Now().UnixMicro() - 3600e6*int64(id) } // hours apart
	}
	for i := range 5 {
		for j := range 4 {
			w.put(w.nodes[base.NodeID(1+i%3)], fmt.Sprintf("%d/%d", i, j), "old")
		}
	}
	first, err := w.nodes[3].Range(w.ctx(), sharded, &pb.RangeRequest{Key: all.Key, RangeEnd: all.RangeEnd, Limit: 3})
	must(t, err)
	if len(first.Kvs) != 3 || !first.More || first.Count != 20 {
		t.Fatalf("the first page: %d of %d keys, more: %t", len(first.Kvs), first.Count, first.More)
	}
	kvs := first.Kvs
	for more, page := true, 0; more; page++ {
		for i := range 5 {
			if rev := w.put(w.nodes[base.NodeID(1+(i+page)%3)], fmt.Sprintf("%d/%d", i, page%4), "new"); rev <= first.Header.Revision {
				t.Fatalf("a write after the snapshot at %d has revision %d", first.Header.Revision, rev)
			}
		}
		resp, err := w.nodes[base.NodeID(1+page%3)].Range(w.ctx(), sharded, &pb.RangeRequest{
			Key: append(kvs[len(kvs)-1].Key, 0), RangeEnd: all.RangeEnd, Limit: 3, Revision: first.Header.Revision,
		})
		must(t, err)
		kvs, more = append(kvs, resp.Kvs...), resp.More
	}
	if len(kvs) != 20 {
		t.Fatalf("%d keys in all pages", len(kvs))
	}
	for _, kv := range kvs {
		if string(kv.Value) != "old" {
			t.Errorf("%q is %q in a snapshot from before", kv.Key, kv.Value)
		}
	}
}

// What is read of several ranges is ordered and cut as if it were one.
func TestSpreadOrder(t *testing.T) {
	w := newSharded(t, 2, 4)
	for i, key := range []string{"2/a", "0/a", "3/a", "1/a"} {
		w.put(w.nodes[1], key, fmt.Sprint(9-i))
	}
	for _, c := range []struct {
		req  *pb.RangeRequest
		want string
	}{
		{&pb.RangeRequest{Limit: 2}, "0/a=8 1/a=6 more of 4"},
		{&pb.RangeRequest{Limit: 2, SortOrder: pb.RangeRequest_DESCEND}, "3/a=7 2/a=9 more of 4"},
		{&pb.RangeRequest{SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_VALUE, KeysOnly: true}, "1/a= 3/a= 0/a= 2/a= of 4"},
		{&pb.RangeRequest{CountOnly: true}, "of 4"},
		{&pb.RangeRequest{Serializable: true}, "0/a=8 1/a=6 2/a=9 3/a=7 of 4"},
		{&pb.RangeRequest{Key: []byte("1"), RangeEnd: []byte("3")}, "1/a=6 2/a=9 of 2"},
	} {
		if c.req.Key == nil {
			c.req.Key, c.req.RangeEnd = all.Key, all.RangeEnd
		}
		resp, err := w.nodes[2].Range(w.ctx(), sharded, c.req)
		must(t, err)
		got := ""
		for _, kv := range resp.Kvs {
			got += fmt.Sprintf("%s=%s ", kv.Key, kv.Value)
		}
		if resp.More {
			got += "more "
		}
		if got += fmt.Sprintf("of %d", resp.Count); got != c.want {
			t.Errorf("%v: %s, not %s", c.req, got, c.want)
		}
	}
	var throttled *base.Throttled
	if _, err := w.nodes[2].Range(w.ctx(), sharded, &pb.RangeRequest{Key: all.Key, RangeEnd: all.RangeEnd, Revision: 1 << 60}); err == nil || errors.As(err, &throttled) {
		t.Errorf("a revision of the future: %v", err)
	}
}

func latchOf(seq uint64) raftgroup.LatchID {
	return raftgroup.LatchID{Began: 1, Node: 2, Seq: seq, Try: 1}
}

// A reader that dies holds writers up for as long as a latch lasts, and no longer; what goes through its latch then is refused.
func TestLatchOfTheDead(t *testing.T) {
	w := newSharded(t, 2, 2)
	ask := &spread.Ask{Kind: spread.Latch, ID: latchOf(1), Key: []byte("0")}
	g, err := w.nodes[2].latch(w.ctx(), sharded, ask)
	must(t, err)
	if g.Node != 1 || string(g.Descriptor.End) != "1" {
		t.Fatalf("%v is held by %s", g.Descriptor, g.Node)
	}
	began := time.Now()
	w.put(w.nodes[2], "0/a", "x")
	if took := time.Since(began); took < base.LatchDuration/2 {
		t.Errorf("a write in a range that is held took %s", took)
	}
	var throttled *base.Throttled
	if err := w.nodes[2].raiseLatched(w.ctx(), &spread.Ask{Kind: spread.Raise, ID: ask.ID, Grant: g, Key: g.Descriptor.Start, Revision: 1}); !errors.As(err, &throttled) {
		t.Errorf("raised through a latch that is over: %v", err)
	}
}

// A latch that is let go, here or from another node, holds nobody up.
func TestLatchLetGo(t *testing.T) {
	w := newSharded(t, 2, 2)
	for i, key := range []string{"0", "1"} {
		ask := &spread.Ask{Kind: spread.Latch, ID: latchOf(uint64(i)), Key: []byte(key)}
		g, err := w.nodes[2].latch(w.ctx(), sharded, ask)
		must(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.put(w.nodes[1], key+"/a", "x")
		}()
		w.nodes[2].free(&spread.Ask{ID: ask.ID, Grant: g})
		began := time.Now()
		<-done
		if took := time.Since(began); took > base.LatchDuration-50*time.Millisecond {
			t.Errorf("a write in %q took %s after the latch had been let go", key, took)
		}
	}
}

// Whatever another node wants to send through its latch: nothing but a raise goes, and through nobody else's.
func TestPeersLatchesAreChecked(t *testing.T) {
	w := newSharded(t, 3, 3)
	g, err := w.nodes[2].latch(w.ctx(), sharded, &spread.Ask{Kind: spread.Latch, ID: latchOf(1), Key: []byte("0")})
	must(t, err)
	unlatch := func(from base.NodeID, command []byte) error {
		body := encode(t, &rangepb.Unlatch{Id: encodeLatchID(latchOf(1)), Command: command})
		return w.nodes[from].ask(w.ctx(), 1, base.RangeID(g.Descriptor.RangeId), rangepb.RequestKind_REQUEST_KIND_UNLATCH, body, &kvpb.RaiseRevisionResponse{})
	}
	for _, command := range [][]byte{encode(t, putCommand(t, "0/a", "x")), {0xff}} {
		if err := unlatch(2, command); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%x went through a latch: %v", command, err)
		}
	}
	raise := spread.Ask{Kind: spread.Raise, Key: g.Descriptor.Start, Revision: g.Revision}
	var throttled *base.Throttled
	if err := unlatch(3, encode(t, raise.Command(1))); !errors.As(err, &throttled) {
		t.Errorf("n3 raises through n2's latch: %v", err)
	}
	must(t, unlatch(2, encode(t, raise.Command(1))))
	for _, kind := range []rangepb.RequestKind{rangepb.RequestKind_REQUEST_KIND_LATCH, rangepb.RequestKind_REQUEST_KIND_UNLATCH} {
		if err := w.nodes[2].ask(w.ctx(), 1, base.RangeID(g.Descriptor.RangeId), kind, []byte{0xff}, &kvpb.RaiseRevisionResponse{}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s that cannot be read: %v", kind, err)
		}
	}
}

// The answers to latches and raises are lost now and then, and a node that is asked by what was known a moment ago has only a part
// of what it is asked for: the reads are late, and right.
func TestSpreadIsRetried(t *testing.T) {
	w := newSharded(t, 2, 3)
	for i := range 3 {
		w.put(w.nodes[1], fmt.Sprintf("%d/a", i), "x")
	}
	lost := 0
	w.loseFrames(func(to base.NodeID, f *rangepb.ControlFrame) bool {
		if len(f.GetResponses().GetResponses()) > 0 && to == 2 && lost < 3 {
			lost++
			return true
		}
		return false
	})
	go func() {
		for to := range w.lost {
			w.nodes[to].PeerDown(1, errors.New("gone"))
		}
	}()
	defer close(w.lost)
	d := w.nodes[1].routes.find(sharded, []byte("0"))
	cmd, err := apply.Split(d, []byte("0/b"), 200)
	must(t, err)
	if _, err = w.nodes[1].Propose(w.ctx(), sharded, d.Start, cmd); err != nil {
		t.Fatal(err)
	}
	resp, err := w.nodes[2].Range(w.ctx(), sharded, all)
	must(t, err)
	if len(resp.Kvs) != 3 || lost != 3 {
		t.Errorf("%d keys, and %d answers were lost", len(resp.Kvs), lost)
	}
}
