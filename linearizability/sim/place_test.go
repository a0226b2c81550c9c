package sim

import (
	"testing"
	"time"
)

// placed is a plan without faults, whose replicas are placed by deciders.
func placed(seed uint64, nodes int) *Plan {
	p := plain(seed)
	p.Nodes, p.Allocator = nodes, true
	return p
}

// With deciders and without faults a larger cluster comes to rest, and replicas are spread over it.
func TestPlaced(t *testing.T) {
	p := placed(1, 5)
	p.Length = 20 * time.Second
	r := passes(t, p)
	if r.Seen["decisions done"] == 0 {
		t.Errorf("nothing was decided: %v", r.Seen)
	}
}
