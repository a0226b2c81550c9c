package allocator_test

import (
	"fmt"
	"testing"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// cluster is many nodes in three zones, and ranges of different sizes and loads, spread evenly.
type cluster struct {
	snap   *allocator.Snapshot
	nodes  int
	ranges int
	came   map[string]bool // which replicas came, and where to
	twice  int             // of those, the ones that went on
	moves  int
}

func member(i int, state allocator.NodeState) allocator.Node {
	return allocator.Node{ID: base.NodeID(i + 1), State: state, Locality: []allocator.Tier{
		{Key: "zone", Value: fmt.Sprint(i % 3)}, {Key: "rack", Value: fmt.Sprint(i % 30)},
	}}
}

func newCluster(nodes, ranges, perNode int) *cluster {
	c := &cluster{snap: allocator.NewSnapshot(), nodes: nodes, ranges: ranges, came: map[string]bool{}}
	p := allocator.DefaultPolicy()
	p.MovesPerNode, p.Moves, p.FailedTier = perNode, nodes*perNode, ""
	c.snap.SetPolicy(p)
	for i := range nodes {
		c.snap.SetNode(member(i, allocator.Active))
	}
	rand := base.NewRand(1)
	perZone := nodes / 3
	for i := range ranges {
		r := allocator.Range{ID: base.RangeID(base.FirstFreeID + i), Keyspace: base.FirstFreeID, Generation: 1,
			Bytes: 32<<20 + rand.Int63n(32<<20), Load: float64(rand.Int63n(1000))}
		for z := range 3 {
			r.Replicas = append(r.Replicas, allocator.Replica{Node: base.NodeID(z + 3*((i+z*7*(i/perZone))%perZone) + 1)})
		}
		r.Leader = r.Replicas[i%3].Node
		c.snap.Put(r)
	}
	return c
}

// settle carries out all that is decided, and says how often it asked.
func (c *cluster) settle(limit int) (passes int) {
	for ; ; passes++ {
		got, _ := allocator.Decide(c.snap, uint64(passes), limit)
		if len(got) == 0 {
			return passes
		}
		for _, d := range got {
			c.snap.Begin(d)
		}
		for _, d := range got {
			r, _ := c.snap.Range(d.Range)
			c.snap.Put(carriedOut(r, d))
			c.snap.End(d.Range)
			c.moves += len(d.Adds)
			for _, n := range d.Removes {
				if c.came[fmt.Sprint(d.Range, n)] {
					c.twice++
				}
			}
			for _, n := range d.Adds {
				c.came[fmt.Sprint(d.Range, n)] = true
			}
		}
	}
}

// TestFewMoves: what is lost is replaced, and what comes is filled, with as few moves as can be, evenly, and no replica goes twice. The
// zones are alike, so that nothing else stands in the way of the mean. With as many moves at once as there are, and with two.
func TestFewMoves(t *testing.T) {
	for _, perNode := range []int{2, 1000} {
		c := newCluster(90, 9000, perNode)
		c.settle(1000)
		if c.moves != 0 {
			t.Errorf("%d at once: %d moves of what was even", perNode, c.moves)
		}
		lost := 0
		for i := range 3 {
			lost += c.snap.Holding(base.NodeID(i + 1)).Replicas
			c.snap.SetNode(member(i, allocator.Failed))
			c.settle(1000) // one after the other: some ranges are on two of them
		}
		c.verify(t, "three nodes lost", lost, perNode)
		for i := range 9 {
			c.snap.SetNode(member(c.nodes+i, allocator.Active))
		}
		c.nodes += 9
		c.settle(1000)
		c.verify(t, "nine nodes added", 3*c.ranges*9/(c.nodes-3), perNode)
	}
}

func (c *cluster) verify(t *testing.T, what string, bound, perNode int) {
	t.Helper()
	if float64(c.moves) > 1.05*float64(bound) {
		t.Errorf("%s, %d at once: %d moves, and %d would have been enough", what, perNode, c.moves, bound)
	}
	if c.twice > 0 {
		t.Errorf("%s, %d at once: %d replicas were moved twice", what, perNode, c.twice)
	}
	var most, sum [3]float64
	n := 0.0
	for _, x := range c.snap.Nodes() {
		h := c.snap.Holding(x.ID)
		if x.State != allocator.Active {
			if h.Replicas != 0 {
				t.Errorf("%s, %d at once: %s still holds %d", what, perNode, x.ID, h.Replicas)
			}
			continue
		}
		n++
		for i, v := range []float64{float64(h.Replicas), float64(h.Bytes), h.Load} {
			most[i] = max(most[i], v)
			sum[i] += v
		}
	}
	bands := [...]float64{1.02, 1.02, 1.05} // a load that is within the policy's imbalance moves nothing
	for i, d := range []string{"replicas", "bytes", "load"} {
		if r := most[i] * n / sum[i]; r > bands[i] {
			t.Errorf("%s, %d at once: the largest node has %.3f of the mean of %s", what, perNode, r, d)
		}
	}
	c.moves, c.twice = 0, 0
	clear(c.came)
}

// BenchmarkDecide: a first pass over all, one after a node was lost, and one where nothing has changed.
func BenchmarkDecide(b *testing.B) {
	b.Run("full", func(b *testing.B) {
		c := newCluster(300, 60_000, 2)
		for b.Loop() {
			c.snap.SetPolicy(c.snap.Policy()) // everything is to be looked at
			allocator.Decide(c.snap, 1, 1000)
		}
	})
	b.Run("node-lost", func(b *testing.B) {
		c := newCluster(300, 60_000, 2)
		c.settle(1000)
		for b.Loop() {
			c.snap.SetNode(member(0, allocator.Failed))
			allocator.Decide(c.snap, 1, 1000)
			c.snap.SetNode(member(0, allocator.Active))
			allocator.Decide(c.snap, 1, 1000)
		}
	})
	b.Run("idle", func(b *testing.B) {
		c := newCluster(300, 60_000, 2)
		c.settle(1000)
		for b.Loop() {
			allocator.Decide(c.snap, 1, 1000)
		}
	})
}

// TestZoneLost: what a zone held is sorted in passes that look at no more than they may, nothing is evened out before all of it is, and
// what is told and asked twice is decided twice alike.
func TestZoneLost(t *testing.T) {
	const nodes, ranges, leave = 90, base.PlanSorts * 3 / 2, 26 // of the 30 of a zone, each of which holds as much
	var snaps [2]*allocator.Snapshot
	for i := range snaps {
		c := newCluster(nodes, ranges, 2)
		allocator.Decide(c.snap, 0, 1000) // over all
		for n := range leave {
			c.snap.SetNode(member(3*n, allocator.Leaving)) // a zone that is to be emptied is no fault of the network
			for zone := range 3 {                          // empty ones, to which balance has much to give
				c.snap.SetNode(member(nodes+3*n+zone, allocator.Active))
			}
		}
		snaps[i] = c.snap
	}
	if got, want := snaps[0].Unseen(), ranges*leave/30; got != want {
		t.Fatalf("%d ranges are to be looked at, and %d are concerned", got, want)
	}
	for pass := uint64(1); snaps[0].Unseen() > 0; pass++ {
		before := snaps[0].Unseen()
		got, held := allocator.Decide(snaps[0], pass, ranges)
		other, otherHeld := allocator.Decide(snaps[1], pass, ranges)
		if fmt.Sprint(got, held) != fmt.Sprint(other, otherHeld) {
			t.Fatalf("pass %d: the same history and seed, and two decisions", pass)
		}
		left := snaps[0].Unseen()
		if seen := before - left; seen > base.PlanSorts || seen == 0 {
			t.Fatalf("pass %d looked at %d ranges anew", pass, seen)
		}
		for _, d := range got {
			if d.Goal == allocator.GoalBalance && left > 0 {
				t.Fatalf("pass %d: evened out before all is seen: %+v", pass, d)
			}
			for _, s := range snaps {
				s.Begin(d)
			}
		}
	}
}
