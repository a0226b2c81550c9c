package sim

import (
	"sort"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// Only restricts what is drawn.
type Only struct{ Classes []string }

// Draw makes the plan of a seed.
func Draw(seed uint64, only Only) *Plan {
	r := base.NewRand(mix(seed))
	p := &Plan{Version: PlanVersion, Seed: seed, Nodes: 3 + int(r.Int63n(3)), Ranges: 1 + int(r.Int63n(3)), Clients: 1 + int(r.Int63n(5)),
		Length: between(r, 20*time.Second, 40*time.Second), Ops: 300 + int(r.Int63n(1200)), LogKeep: []int{5, 20, 100, 1000}[r.Int63n(4)]}
	p.Think = time.Duration(int64(p.Length)*int64(p.Ranges*p.Clients)/int64(p.Ops)) * 3 / 4
	p.Pebble = r.Int63n(50) == 0
	names := []string{"register", "set", "append", "txn", "bank", "monotonic"}
	for range p.Ranges {
		p.Workload = append(p.Workload, names[r.Int63n(int64(len(names)))])
	}
	p.Network = NetworkPlan{Delay: between(r, 50*time.Microsecond, 2*time.Millisecond), Jitter: between(r, 0, 2*time.Millisecond)}
	if r.Int63n(4) == 0 {
		p.Network.Delay = between(r, 2*time.Millisecond, 40*time.Millisecond)
	}
	if r.Int63n(2) == 0 {
		p.Network.Loss, p.Network.Duplicate, p.Network.Reorder = int(r.Int63n(20_000)), int(r.Int63n(20_000)), int(r.Int63n(50_000))
	}
	p.Disk = DiskPlan{Sync: between(r, 50*time.Microsecond, 3*time.Millisecond), Jitter: between(r, 0, 3*time.Millisecond), Apply: between(r, 10*time.Microsecond, 2*time.Millisecond)}
	for range p.Nodes {
		p.Clock = append(p.Clock, ClockPlan{Offset: between(r, 0, time.Hour), Drift: int(r.Int63n(2000) - 1000)})
	}
	var pool []*kind
	share := 1 + r.Int63n(4)                                                                            // of four
	for i := range kinds[:len(kinds)-len(splitKinds)-len(mergeKinds)-len(placeKinds)-len(aimedKinds)] { // those have their own draw
		if only.allows(kinds[i].Class) && r.Int63n(4) < share {
			pool = append(pool, &kinds[i])
		}
	}
	count := int(r.Int63n(24))
	if len(pool) == 0 || r.Int63n(20) == 0 {
		count = 0
	}
	if r.Int63n(5) == 0 && len(pool) > 0 {
		pool = pool[:1]
	}
	for range count {
		k := pool[r.Int63n(int64(len(pool)))]
		f := Fault{Kind: k.Kind, At: between(r, 0, p.Length)}
		k.draw(r, p, &f)
		p.Faults = append(p.Faults, f)
	}
	p.ColdAfter = []time.Duration{0, 100 * time.Millisecond, time.Second, 4 * time.Second}[r.Int63n(4)]
	if r.Int63n(3) == 0 {
		for i := range p.Clock {
			p.Clock[i].Drift = int(r.Int63n(2*maxDrift) - maxDrift)
		}
	}
	p.Alone = r.Int63n(10) == 0
	drawSplits(r, p, only)
	drawMerges(r, p, only)
	drawPlacement(r, p, only)
	drawWatches(r, p, only)
	drawAimed(r, p, only)
	sort.SliceStable(p.Faults, func(i, j int) bool { return p.Faults[i].At < p.Faults[j].At })
	return p
}

// drawWatches has some keyspaces watched, and others locked in. It is drawn after all else.
func drawWatches(r *base.Rand, p *Plan, only Only) {
	for i, name := range p.Workload {
		into, cut := [2]string{"watch", "lock"}, name == spread || name == snapshot
		if cut {
			into = [2]string{"spread-watch", "spread-lock"}
		}
		x := r.Int63n(5)
		if x >= 2 {
			continue
		}
		p.Workload[i] = into[x]
		for range 4 { // what is watched is to be in several ranges from early on
			f := Fault{Kind: "split", At: between(r, p.Length/20, p.Length/3)}
			if drawSplit(r, p, &f); cut && only.allows("W12") {
				p.Faults = append(p.Faults, f)
			}
		}
	}
}

func (o Only) allows(class string) bool {
	for _, c := range o.Classes {
		if c == class {
			return true
		}
	}
	return len(o.Classes) == 0
}
