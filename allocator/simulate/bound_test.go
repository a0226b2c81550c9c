package simulate

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/allocator"
)

// Whatever was moved, the bound is not above it: it is computed from any state to any other, as if a planner had done that.
func TestBoundIsABound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.IntRange(3, 7).Draw(t, "nodes")
		ranges := rapid.IntRange(1, 12).Draw(t, "ranges")
		constraints := rapid.SampledFrom([]string{"", ` constraints="+zone=a:1"`, ` constraints="-zone=b"`, ` constraints="+zone=a:2 -zone=c:1"`}).Draw(t, "constraints")
		s, err := Parse("bound", fmt.Sprintf("nodes %d zone=a,b,c weight=1,2\nkeyspace k ranges=%d size=uniform(1MB,9MB)%s", nodes, ranges, constraints))
		if err != nil {
			t.Fatal(err)
		}
		s.number()
		c, err := newCluster(s, allocator.Decide)
		if err != nil {
			t.Fatal(err)
		}
		place := func(what string) (out [][]int32) {
			for range c.groups {
				all := make([]int32, nodes)
				for i := range all {
					all[i] = int32(i)
				}
				of := rapid.Permutation(all).Draw(t, what)[:rapid.IntRange(1, 3).Draw(t, "replicas")]
				out = append(out, slices.Clone(of))
			}
			return out
		}
		before, moves := place("before"), 0
		after := before
		if rapid.Bool().Draw(t, "moved") {
			after = place("after")
		}
		for i := range nodes {
			c.nodes[i].State = rapid.SampledFrom([]allocator.NodeState{allocator.Active, allocator.Active, allocator.Failed, allocator.Leaving}).Draw(t, "state")
			c.nodes[i].alive = c.nodes[i].State != allocator.Failed
		}
		for i := range c.groups {
			c.change(int32(i), func(g *group) { g.replicas, g.leader = after[i], -1 })
			for _, n := range after[i] {
				if !slices.Contains(before[i], n) {
					moves++
				}
			}
		}
		bound := c.bound(before)
		if bound > moves {
			t.Fatalf("%d replicas were moved, and the bound is %d: %v to %v", moves, bound, before, after)
		}
	})
}

// The bound says something: what had to be moved counts in it, each replica once.
func TestBoundIsReached(t *testing.T) {
	s, err := Parse("tight", "nodes 4 zone=a,b weight=1\nkeyspace k ranges=1 size=uniform(1MB,9MB)")
	if err != nil {
		t.Fatal(err)
	}
	s.number()
	c, err := newCluster(s, allocator.Decide)
	if err != nil {
		t.Fatal(err)
	}
	before := [][]int32{{0, 1, 2}}
	c.nodes[0].State, c.nodes[0].alive = allocator.Failed, false
	c.change(0, func(g *group) { g.replicas, g.leader = []int32{3, 1, 2}, -1 })
	if bound := c.bound(before); bound != 1 {
		t.Fatalf("one replica had to be moved, and the bound is %d", bound)
	}
}
