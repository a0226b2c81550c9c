package sim

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/change"
)

// plain is a plan without faults.
func plain(seed uint64) *Plan {
	return &Plan{
		Version: PlanVersion, Seed: seed, Nodes: 3, Ranges: 2, Clients: 3, Length: 10 * time.Second, Ops: 400, Think: 30 * time.Millisecond,
		Workload: []string{"register", "append"}, LogKeep: 1000,
		Network: NetworkPlan{Delay: 500 * time.Microsecond, Jitter: 200 * time.Microsecond},
		Disk:    DiskPlan{Sync: 300 * time.Microsecond, Jitter: 300 * time.Microsecond, Apply: 50 * time.Microsecond},
	}
}

func passes(t *testing.T, p *Plan) *Result {
	t.Helper()
	r := Run(p, nil)
	for _, v := range r.Violations {
		t.Errorf("seed %d: %s: %s", p.Seed, v.Checker, v.What)
	}
	return r
}

// A share of what `make sim-many` runs at length.
func TestSeeds(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	ok := 0
	for seed := range seeds {
		ok += passes(t, Draw(seed+1, Only{})).OK
	}
	t.Logf("%d operations were answered", ok)
	if ok < int(seeds)*100 {
		t.Errorf("%d operations in %d runs: the runs are idle", ok, seeds)
	}
}

// The same plan gives the same trace, whatever is done with the trace.
func TestSamePlanSameTrace(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(6) {
		p := Draw(seed+100, Only{})
		p.Pebble = seed >= 4
		var a, b bytes.Buffer
		x, y, z := Run(p, &a), Run(p, &b), Run(p, nil)
		if x.Hash != y.Hash || x.Hash != z.Hash || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("seed %d: %x, %x and, without a trace, %x", p.Seed, x.Hash, y.Hash, z.Hash)
		}
		seen[x.Hash] = true
	}
	if len(seen) != 6 {
		t.Errorf("six seeds gave %d different traces", len(seen))
	}
}

// Nothing that is decided rests on which engine it is: on Pebble the same happens at the same time. (As long as no snapshot
// is sent: its tables have other sizes there, and so take another time.)
func TestSameTraceOnPebble(t *testing.T) {
	for seed := range uint64(2) {
		p := plain(seed + 1)
		mem := passes(t, p)
		p.Pebble = true
		if pebble := passes(t, p); pebble.Hash != mem.Hash {
			t.Errorf("seed %d: %x on the map, %x on Pebble", p.Seed, mem.Hash, pebble.Hash)
		}
	}
}

// Without faults nothing fails, and every client gets all that it wants.
func TestWithoutFaults(t *testing.T) {
	r := passes(t, plain(7))
	if r.Failed+r.Unknown > 0 || r.OK < 400 || r.Seen["elections"] != 3 {
		t.Errorf("%d answered, %d failed, %d unknown, %d elections", r.OK, r.Failed, r.Unknown, r.Seen["elections"])
	}
}

// A replica that is away while it is removed, and while all those move on that it knows, finds out from the index.
func TestOrphan(t *testing.T) {
	p := plain(3)
	p.Nodes = 7
	w := newWorld(p, nil)
	for _, n := range w.nodes {
		n.start()
	}
	defer w.close()
	r := w.ranges[0]
	away := w.nodes[0]
	steps := w.await("the first leaders", firstLimit, w.led)
	for i := range w.nodes[1:] {
		w.net.cut(0, i+1, classRaft, classControl, classBulk)
		w.net.cut(i+1, 0, classRaft, classControl, classBulk)
	}
	away.crash(0) // so that the others are looked at alone
	r.goal = change.Goal{Voters: []base.NodeID{5, 6, 7}}
	steps = steps && w.await("the replicas move on", recoverLimit, func() bool {
		l := w.leader(r)
		if l == nil || l.id < 5 {
			return false
		}
		st, _ := l.process.hand.Status(r.id)
		return len(st.Descriptor.Replicas) == 3 && w.published(st.Descriptor)
	})
	away.start()
	for i := range w.nodes[1:] {
		w.net.mend(0, i+1, classRaft, classControl, classBulk)
		w.net.mend(i+1, 0, classRaft, classControl, classBulk)
	}
	if !steps || !w.await("the removed one is gone", 3*base.OrphanAfter, func() bool { return away.process.store.View(r.id) == nil }) || w.result.Seen["orphans found"] == 0 {
		t.Errorf("%v %v", w.result.Violations, w.result.Seen)
	}
}

// The checks of the closing phase are alive: a range that cannot have a leader is a violation.
func TestLivenessIsChecked(t *testing.T) {
	w := newWorld(plain(5), nil)
	for _, n := range w.nodes {
		n.start()
	}
	defer w.close()
	w.until(5*time.Second, func() bool { return false })
	w.nodes[0].crash(0)
	w.nodes[1].crash(0)
	if w.await("the cluster is whole", 10*time.Second, w.whole) || len(w.result.Violations) != 1 || !strings.Contains(fmt.Sprint(w.result.Violations), "liveness") {
		t.Errorf("two of three nodes are down, and: %+v", w.result.Violations)
	}
}
