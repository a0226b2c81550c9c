package check

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNothingIsWrong(t *testing.T) {
	said, sum := newWorld(t).check(&clusterpb.CheckRequest{})
	if len(said) > 0 || sum.Keyspaces != 5 || sum.IndexEntries != 6 || sum.Ranges != 7 || sum.Replicas != 21 || sum.Versions != 42 || sum.Settled != 0 {
		t.Errorf("%q, %v", said, sum)
	}
	said, sum = newWorld(t).check(&clusterpb.CheckRequest{Keyspace: "shards", NoChecksums: true})
	if len(said) > 0 || sum.Keyspaces != 1 || sum.IndexEntries != 3 || sum.Ranges != 3 || sum.Replicas != 0 {
		t.Errorf("one keyspace: %q, %v", said, sum)
	}
	w := newWorld(t)
	err := Run(t.Context(), Config{Cluster: w, Status: w.status, Keyspaces: func(context.Context) ([]*metapb.KeyspaceRecord, error) { return nil, nil }},
		&clusterpb.CheckRequest{Keyspace: "nope"}, func(*clusterpb.CheckResponse) error { return nil })
	if status.Code(err) != codes.NotFound {
		t.Errorf("an unknown keyspace: %v", err)
	}
}

// TestPlanted: each thing that can be wrong is found, named, and nothing else is. The words begin what is to be said, in order.
func TestPlanted(t *testing.T) {
	cut := func(end string) func(*metapb.RangeDescriptor) {
		return func(d *metapb.RangeDescriptor) { d.End = []byte(end); d.Generation++ }
	}
	for name, c := range map[string]struct {
		plant func(*world)
		says  []string
	}{
		"a hole in the index": {func(w *world) { w.unlist(101) }, []string{
			"INDEX shards r101 n0: the index does not list this range",
			`TILING shards r102 n0: as the index says, no range holds the keys from "g" to "p"`,
		}},
		"no first range in the index": {func(w *world) { w.unlist(100) }, []string{
			"INDEX shards r100 n0: the index does not list",
			`TILING shards r101 n0: as the index says, no range holds the keys before "g"`,
		}},
		"no last range in the index": {func(w *world) { w.unlist(102) }, []string{
			"INDEX shards r102 n0: the index does not list",
			`TILING shards r101 n0: as the index says, no range holds the keys from "p" to the end`,
		}},
		"an entry too many": {func(w *world) {
			d := desc.Clone(w.of(101))
			d.RangeId, d.Start, d.End = 77, []byte("h"), []byte("k")
			w.list(d)
		}, []string{
			"INDEX shards r77 n0: the index lists a range that no longer exists: r101 holds its keys",
			`TILING shards r77 n0: as the index says, two ranges hold the keys from "h"`,
		}},
		"the index stays behind": {func(w *world) { w.become(101, func(d *metapb.RangeDescriptor) { d.Generation++ }) },
			[]string{"INDEX shards r101 n0: the index has stayed behind the range"}},
		"the index is ahead": {func(w *world) { w.become(4, func(d *metapb.RangeDescriptor) { d.Generation-- }) },
			[]string{"INDEX default r4 n0: the index is ahead of the range"}},
		"meta's own entry is behind": {func(w *world) { w.become(2, func(d *metapb.RangeDescriptor) { d.Generation++ }) },
			[]string{"INDEX meta r2 n0: the index has stayed behind the range"}},
		"the same generation and not the same": {func(w *world) { w.become(101, func(d *metapb.RangeDescriptor) { d.NextReplicaId++ }) },
			[]string{"INDEX shards r101 n0: the index and the range differ at the same generation"}},
		"entries of a keyspace that is gone": {func(w *world) {
			d := desc.Clone(w.of(101))
			d.RangeId, d.KeyspaceId = 77, 150
			w.list(d)
		}, []string{"INDEX ks150 r0 n0: the index lists 1 ranges of a keyspace that there is not"}},
		"an entry that cannot be read": {func(w *world) {
			w.index[base.KeyspaceMeta][string(route.IndexKey(shards, []byte("c")))] = []byte{0xff}
		}, []string{`INDEX meta r0 n0: the index's entry `}},
		"an entry in another's place": {func(w *world) {
			k := string(route.DescriptorKey(w.of(101)))
			w.index[base.KeyspaceMeta][string(route.IndexKey(shards, []byte("o")))] = w.index[base.KeyspaceMeta][k]
			delete(w.index[base.KeyspaceMeta], k)
		}, []string{`INDEX shards r101 n0: the index lists a range under the end "o"`}},
		"a hole between ranges": {func(w *world) { w.list(w.become(101, cut("o"))); w.unlistEnd("p") }, []string{
			`TILING shards r102 n0: as the index says, no range holds the keys from "o" to "p"`,
			`TILING shards r102 n0: as the ranges say, no range holds the keys from "o" to "p"`,
		}},
		"two ranges for one key": {func(w *world) { w.list(w.become(101, cut("q"))); w.unlistEnd("p") }, []string{
			`TILING shards r102 n0: as the index says, two ranges hold the keys from "p"`,
			`TILING shards r102 n0: as the ranges say, two ranges hold the keys from "p"`,
		}},
		"a range that nobody lists, over another's keys": {func(w *world) { w.add(99, shards, "h", "k"); w.unlist(99) }, []string{
			"INDEX shards r99 n0: the index does not list this range",
			`TILING shards r99 n0: as the ranges say, two ranges hold the keys from "h"`,
		}},
		"root does not reach to the end": {func(w *world) { w.become(1, cut("x")) },
			[]string{`TILING root r1 n0: as the ranges say, no range holds the keys from "x" to the end`}},
		"a changed byte": {func(w *world) { w.write(101, 2, "gb", 7, "new valuf of b") },
			[]string{`REPLICAS shards r101 n2: the replica on n2 holds other data than the others, read at revision 10, first at key "gb", revision 7`}},
		"a changed byte on the first": {func(w *world) { w.write(101, 1, "gb", 3, "valuf of b") },
			[]string{`REPLICAS shards r101 n1: the replica on n1 holds other data than the others, read at revision 10, first at key "gb", revision 3`}},
		"a version is missing": {func(w *world) { w.write(4, 3, "a", 2, "") },
			[]string{`REPLICAS default r4 n3: the replica on n3 holds other data than the others, read at revision 10, first at key "a", revision 2`}},
		"a version too many, behind all": {func(w *world) { w.write(102, 3, "pz", 4, "extra") },
			[]string{`REPLICAS shards r102 n3: the replica on n3 holds other data than the others, read at revision 10, first behind `}},
		"three replicas, three values": {func(w *world) { w.write(4, 1, "a", 2, "x"); w.write(4, 2, "a", 2, "y") }, []string{
			"REPLICAS default r4 n1: ", "REPLICAS default r4 n2: ", "REPLICAS default r4 n3: "}},
		"a replica at an older generation": {func(w *world) {
			old := desc.Clone(w.of(101))
			old.Generation--
			w.ranges[101][3].desc = old
		}, []string{"REPLICAS shards r101 n3: a replica that has applied all that is committed is at an older generation"}},
		"a replica with another descriptor": {func(w *world) {
			other := desc.Clone(w.of(101))
			other.NextReplicaId++
			w.ranges[101][3].desc = other
		}, []string{"REPLICAS shards r101 n3: replicas differ in what the range is"}},
		"bytes that cannot be read": {func(w *world) {
			w.asked = func(n base.NodeID, id base.RangeID, req *rangepb.ChecksumRequest) error {
				if n == 1 && id == 101 && req.Revision > 0 {
					return &base.Corruption{Where: "a block", Cause: errors.New("checksum")}
				}
				return nil
			}
		}, []string{"REPLICAS shards r101 n1: the replica on n1 holds bytes that cannot be read"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.plant(w)
			said, sum := w.check(&clusterpb.CheckRequest{})
			same := len(said) == len(c.says) && sum.Findings == uint64(len(said))
			for i := 0; same && i < len(said); i++ {
				same = strings.HasPrefix(said[i], c.says[i])
			}
			if !same {
				t.Errorf("it says\n%s\nand not\n%s", strings.Join(said, "\n"), strings.Join(c.says, "\n"))
			}
		})
	}
}

// unlistEnd takes away the entry under an end that is no range's any more.
func (w *world) unlistEnd(end string) {
	delete(w.index[base.KeyspaceMeta], string(route.IndexKey(shards, []byte(end))))
}

// TestSettles: the index follows a split after a while. That is counted, and not wrong.
func TestSettles(t *testing.T) {
	w := newWorld(t)
	left := w.become(101, func(d *metapb.RangeDescriptor) { d.End = []byte("k"); d.Generation++ })
	w.add(103, shards, "k", "p")
	right := w.of(103)
	w.list(func() *metapb.RangeDescriptor { // as it was
		d := desc.Clone(left)
		d.End, d.Generation = []byte("p"), 3
		return d
	}())
	w.looked = func(n int) {
		if n == base.CheckLooks-1 {
			w.list(left)
			w.list(right)
		}
	}
	said, sum := w.check(&clusterpb.CheckRequest{})
	if len(said) > 0 || sum.Settled != 2 || sum.Ranges != 8 { // r101 was behind, and r103 was not listed
		t.Errorf("%q, %v", said, sum)
	}
}

// TestIndexGoesBack: an entry that says less than it said before is found, though no look found it wrong.
func TestIndexGoesBack(t *testing.T) {
	w := newWorld(t)
	w.looked = func(n int) {
		if n == 2 {
			d := desc.Clone(w.of(102))
			d.Generation--
			w.list(d)
		}
	}
	said, _ := w.check(&clusterpb.CheckRequest{})
	if len(said) != 1 || !strings.HasPrefix(said[0], "INDEX shards r102 n0: the index's entry has gone back") {
		t.Errorf("%q", said)
	}
}

// TestRedone: what is compacted or cut while it is compared is compared again, as it is then.
func TestRedone(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"compacted": func(w *world) {
			for _, c := range w.ranges[101] {
				c.mark = 2
			}
		},
		"cut": func(w *world) {
			w.list(w.become(101, func(d *metapb.RangeDescriptor) { d.NextReplicaId++; d.Generation++ }))
		},
	} {
		w := newWorld(t)
		hashed := 0
		w.asked = func(n base.NodeID, id base.RangeID, req *rangepb.ChecksumRequest) error {
			if id == 101 && req.Revision > 0 {
				if hashed++; hashed == 5 { // after the first page
					change(w)
				}
			}
			return nil
		}
		// What lies at the mark or below is decoded, to tell tombstones: the oldest version of the range is hidden by none.
		for n := range w.ranges[101] {
			w.write(101, n, "ga", 2, "\x02x")
		}
		said, sum := w.check(&clusterpb.CheckRequest{})
		if len(said) > 0 || sum.Redone < 1 || sum.Replicas != 21 {
			t.Errorf("%s: %q, %v", name, said, sum)
		}
	}
	w := newWorld(t)
	w.asked = func(n base.NodeID, id base.RangeID, req *rangepb.ChecksumRequest) error {
		if id == 101 && req.Revision > 0 {
			w.list(w.become(101, func(d *metapb.RangeDescriptor) { d.Generation++ }))
		}
		return nil
	}
	said, sum := w.check(&clusterpb.CheckRequest{})
	if len(said) != 1 || !strings.HasPrefix(said[0], "UNSEEN shards r101 n0, 0 replicas: "+errRedo.Error()) || sum.Redone != base.CheckTries {
		t.Errorf("without a pause: %q, %v", said, sum)
	}
}

// TestUnseen: what cannot be looked at is named, and the rest is looked at.
func TestUnseen(t *testing.T) {
	w := newWorld(t)
	w.down[3] = "it does not answer"
	w.write(101, 2, "gb", 7, "another")
	said, sum := w.check(&clusterpb.CheckRequest{})
	if len(said) != 3 || said[2] != "UNSEEN  r0 n3, 7 replicas: it does not answer" || sum.Replicas != 14 || sum.Unseen != 1 ||
		!strings.HasPrefix(said[0], "REPLICAS shards r101 n1: ") || !strings.HasPrefix(said[1], "REPLICAS shards r101 n2: ") {
		t.Errorf("a node is down: %q, %v", said, sum) // of two that differ both are named
	}

	w = newWorld(t)
	for _, n := range []base.NodeID{1, 2, 3} {
		delete(w.ranges[101], n)
	}
	delete(w.ranges, 101)
	said, _ = w.check(&clusterpb.CheckRequest{})
	if len(said) != 1 || !strings.HasPrefix(said[0], "UNSEEN shards r101 n0, 0 replicas: ") {
		t.Errorf("a range that nobody has: %q", said)
	}

	w = newWorld(t)
	delete(w.ranges[101], 3)
	said, _ = w.check(&clusterpb.CheckRequest{})
	if len(said) != 1 || said[0] != "UNSEEN  r0 n3, 1 replicas: "+errNoReplica.Error() {
		t.Errorf("a replica that is not there: %q", said)
	}
	w.list(w.become(101, func(d *metapb.RangeDescriptor) {
		d.Replicas[2].Role = metapb.ReplicaRole_REPLICA_ROLE_LEARNER
		d.Generation++
	}))
	if said, _ = w.check(&clusterpb.CheckRequest{}); len(said) > 0 {
		t.Errorf("a learner that has nothing yet: %q", said)
	}

	w = newWorld(t)
	w.asked = func(n base.NodeID, id base.RangeID, req *rangepb.ChecksumRequest) error {
		if n == 1 && req.Revision > 0 {
			return status.Error(codes.Unimplemented, "an older version")
		}
		return nil
	}
	said, sum = w.check(&clusterpb.CheckRequest{})
	if len(said) != 1 || !strings.HasPrefix(said[0], "UNSEEN  r0 n1, 7 replicas: ") || sum.Replicas != 14 {
		t.Errorf("a node that cannot hash: %q, %v", said, sum)
	}
}
