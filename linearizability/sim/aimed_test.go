package sim

import (
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// aimed is, of each fault that aims at a situation, what a run counts when that has come about, and the mistake that it finds.
var aimed = []struct {
	kind         FaultKind
	seen, mutant string
}{
	{"shrink", "ranges wanted on fewer nodes", "removal-below-quorum"},
	{"step-again", "steps taken again and refused", "step-carried-out-twice"},
	{"publish-late", "old descriptors published again", "publish-older"},
	{"split-heap", "cuts that a node with watches fell behind", "watch-gap-at-split"},
	{"merge-nap", "merges whose driver was stuck", "thaw-anyway"},
	{"confirm-torn", "disks that stalled when a merge was to be confirmed", "confirm-unsynced"},
	{"merge-read", "reads where a merge had not been heard of", "frozen-serves-reads"},
}

// aimedPlan is a plan with nothing but one such fault, twice, and what that needs: ranges that were cut, replicas that move.
func aimedPlan(kind FaultKind, seed uint64) *Plan {
	p := plain(seed)
	p.Nodes, p.Ranges, p.Clients, p.Workload = 4, 2, 4, []string{"register", "spread"}
	p.Length, p.Ops, p.Think = 40*time.Second, 3000, 100*time.Millisecond
	p.Clock = nil
	switch kind {
	case "split-heap":
		p.Workload[1] = "spread-watch"
	case "step-again", "publish-late":
		p.Faults = append(p.Faults, Fault{Kind: "churn", At: 2 * time.Second, For: 20 * time.Second, Amount: 2000})
	case "merge-nap", "confirm-torn", "merge-read":
		p.Faults = append(p.Faults, Fault{Kind: "split", At: 2 * time.Second, Amount: int64(seed) << 9}, Fault{Kind: "split", At: 3 * time.Second, Amount: int64(seed) << 10})
	}
	r := base.NewRand(mix(seed))
	k, _ := kindNamed(kind)
	for i := range 2 {
		f := Fault{Kind: kind, At: time.Duration(5+15*i) * time.Second}
		k.draw(r, p, &f)
		f.At = time.Duration(5+15*i) * time.Second
		p.Faults = append(p.Faults, f)
	}
	return p
}

// Faults that aim bring about what they aim at, and the product survives that.
func TestAimed(t *testing.T) {
	for _, a := range aimed {
		t.Run(string(a.kind), func(t *testing.T) {
			seen := 0
			for seed := range uint64(3) {
				seen += passes(t, aimedPlan(a.kind, seed+1)).Seen[a.seen]
			}
			if t.Logf("%d %s", seen, a.seen); seen == 0 {
				t.Errorf("no %s in 3 runs", a.seen)
			}
		})
	}
}
