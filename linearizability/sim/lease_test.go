package sim

import (
	"testing"
	"time"
)

// With clocks that are wrong by far more than leases allow, two nodes hold a lease of one range at once, and the rule sees
// it: it is alive.
func TestTwoLeasesAreSeen(t *testing.T) {
	for seed := range uint64(40) {
		p := plain(seed + 1)
		p.Length, p.Ops = 30*time.Second, 4000
		w := newWorld(p, nil)
		for i, n := range w.nodes {
			n.clock.bound, n.clock.drift = 0, []int{-350_000, 350_000, 350_000}[i]
		}
		for _, n := range w.nodes {
			n.start()
		}
		w.await("the first leaders", firstLimit, w.led)
		for _, r := range w.ranges {
			if l := w.leader(r); l != nil && l.id != 1 {
				l.process.store.Transfer(r.id, 1) // replica 1 is on node 1, whose clock is slow
			}
		}
		w.until(w.now+3*time.Second, func() bool { return false })
		for i := range w.nodes[1:] {
			w.net.cut(0, i+1, allClasses...)
			w.net.cut(i+1, 0, allClasses...)
		}
		w.until(w.now+5*time.Second, func() bool { return false })
		w.close()
		for _, v := range w.result.Violations {
			if v.Checker == "one lease a range" {
				t.Logf("seed %d: %s", p.Seed, v.What)
				return
			}
		}
	}
	t.Error("clocks that are wrong by 35 % gave no range two leases: nothing was checked")
}
