package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
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
