package placement_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

const tera = 1 << 40

// fill has a decider spread ranges that n1 to n3 hold over nodes with such disks and cores, and says what each holds and leads then.
func fill(t *testing.T, nodes []*metapb.NodeRecord) (holds, leads map[base.NodeID]int, moved int) {
	t.Helper()
	w := newWorld(3, len(nodes))
	for i, r := range nodes {
		h := w.nodes[base.NodeID(i+1)]
		h.record.DiskBytes, h.record.Cpus = r.DiskBytes, r.Cpus
	}
	w.policy = nil
	w.catchUp = 200 * time.Millisecond
	for i := range 40 {
		w.addRange(parse(t, fmt.Sprintf("r%d ks100 [%03d, %03d) gen 5: 1@n1 2@n2 3@n3 next 4", 1000+i, i, i+1)))
	}
	w.decider(0)
	before := 0
	w.watch.step = func(*ranged, *metapb.RangeDescriptor) { before++ }
	for range 40 {
		if w.run(10 * time.Second); w.placed() == "" {
			holds, leads = make(map[base.NodeID]int), make(map[base.NodeID]int)
			for _, r := range w.ranges {
				leads[r.leader]++
				for _, rep := range r.desc.Replicas {
					holds[base.NodeID(rep.NodeId)]++
				}
			}
			return holds, leads, before
		}
	}
	t.Fatalf("no rest: %s", w.placed())
	return nil, nil, 0
}

// Disks of different sizes fill up together; who leads goes by cores.
func TestLargeDisksHoldMore(t *testing.T) {
	nodes := make([]*metapb.NodeRecord, 6)
	for i := range nodes {
		nodes[i] = &metapb.NodeRecord{DiskBytes: tera, Cpus: 8}
	}
	nodes[5].DiskBytes = 2 * tera
	holds, leads, _ := fill(t, nodes)
	for n := base.NodeID(1); n <= 6; n++ {
		want := 120 / 7 // of 120 replicas, for a weight of seven
		if n == 6 {
			want *= 2
		}
		if holds[n] < want-3 || holds[n] > want+3 {
			t.Errorf("%s holds %d replicas, want about %d: %v", n, holds[n], want, holds)
		}
		if want := 40 / 6; leads[n] < want-3 || leads[n] > want+3 {
			t.Errorf("%s leads %d ranges, want about %d: %v", n, leads[n], want, leads)
		}
	}
}

// What makes no difference that counts moves nothing more than equal disks do: some percent of size, or a disk that is not known.
func TestDisksOfAKindWeighTheSame(t *testing.T) {
	alike, unlike := make([]*metapb.NodeRecord, 5), make([]*metapb.NodeRecord, 5)
	for i := range alike {
		alike[i] = &metapb.NodeRecord{DiskBytes: tera, Cpus: 8}
		unlike[i] = &metapb.NodeRecord{DiskBytes: uint64(tera + (i-2)*tera/20), Cpus: 8}
	}
	unlike[4] = &metapb.NodeRecord{}
	a, _, moves := fill(t, alike)
	b, _, others := fill(t, unlike)
	if fmt.Sprint(a, moves) != fmt.Sprint(b, others) {
		t.Errorf("of equal disks %v after %d steps, of disks of a kind %v after %d", a, moves, b, others)
	}
}
