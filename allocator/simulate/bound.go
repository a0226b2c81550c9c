package simulate

import (
	"math"
	"slices"
)

// The lower bound of moves. Given where replicas were, what the nodes and the policies are now, and how balanced the cluster has
// become, no planner whatsoever could have got from there to a state as good as this one with fewer replicas moved:
//
//   - a range needs as many new replicas as it has fewer than now on nodes where they may stay;
//   - a range that lacks replicas in a place where a constraint wants so many of them needs these moved;
//   - a node that held more, in number or bytes, than the fullest one does now had to give replicas away, at least as many as the
//     largest of them make up the difference; each of those is a new replica elsewhere, unless its range has fewer now;
//   - a node that held fewer than the emptiest one does now had to get the difference.
//
// "As good as this one" is measured and not demanded: what a planner leaves undone is not in its bound, and shows as what it is,
// imbalance or ranges with too few replicas.

// boundState is what the parts of the bound share.
type boundState struct {
	before [][]int32
	stay   [][]bool // by keyspace and node: whether a replica may stay there
	had    []int    // by node: replicas that were there
	count  []int    // and of those, the ones that may stay
	bytes  []int64
}

func (c *cluster) bound(before [][]int32) int {
	b := &boundState{before: before, had: make([]int, len(c.nodes)), count: make([]int, len(c.nodes)), bytes: make([]int64, len(c.nodes))}
	for k := range c.keyspaces {
		stay := make([]bool, len(c.nodes))
		for i := range c.nodes {
			n := &c.nodes[i]
			lost := !n.alive && c.now-n.died >= c.s.Suspect+c.keyspaces[k].Placement.FailedAfter
			stay[i] = !n.gone() && !lost && allowed(&n.Node, c.keyspaces[k].Placement.Constraints)
		}
		b.stay = append(b.stay, stay)
	}
	missing, misplaced, spare := 0, 0, 0
	for i, was := range before {
		m, x, s := c.boundOf(b, int32(i), was)
		missing, misplaced, spare = missing+m, misplaced+x, spare+s
	}
	most, least, mostBytes := c.extremes()
	excess, lack := 0, 0
	for i := range c.nodes {
		n := &c.nodes[i]
		if !n.counts() {
			continue
		}
		give := max(0, b.count[i]-int(math.Floor(most*n.weight()+1e-6)))
		if over := b.bytes[i] - int64(mostBytes*n.weight()) - 1; over > 0 {
			give = max(give, c.largest(b, int32(i), over))
		}
		excess += give
		lack += max(0, int(math.Ceil(least*n.weight()-1e-6))-b.had[i])
	}
	return max(missing+max(misplaced, excess-spare), lack)
}

// boundOf is what one range needs: replicas that are missing, others that stand in the wrong place, and how many it has lost.
func (c *cluster) boundOf(b *boundState, i int32, was []int32) (missing, misplaced, spare int) {
	g := &c.groups[i]
	p := &c.keyspaces[g.keyspace].Placement
	stay := b.stay[g.keyspace]
	kept := func(replicas []int32) (n int) {
		for _, r := range replicas {
			n += boolInt(stay[r])
		}
		return n
	}
	good := kept(was)
	for _, r := range was {
		b.had[r]++
		if stay[r] {
			b.count[r]++
			b.bytes[r] += g.bytes
		}
	}
	missing = max(0, min(p.Replicas, kept(g.replicas))-good)
	spare = max(0, good-kept(g.replicas))
	for _, q := range p.Constraints {
		if q.Replicas == 0 || q.Kind != 0 {
			continue
		}
		met := func(replicas []int32) (n int) {
			for _, r := range replicas {
				n += boolInt(stay[r] && meets(&c.nodes[r].Node, q))
			}
			return n
		}
		misplaced = max(misplaced, min(q.Replicas, met(g.replicas))-met(was)-missing)
	}
	return missing, max(0, misplaced), spare
}

// extremes are the largest and smallest number, and the largest bytes, of a node by its weight, as they are now.
func (c *cluster) extremes() (most, least, mostBytes float64) {
	least = math.Inf(1)
	for i := range c.nodes {
		if n := &c.nodes[i]; n.counts() {
			most, least = max(most, float64(n.count)/n.weight()), min(least, float64(n.count)/n.weight())
			mostBytes = max(mostBytes, float64(n.bytes)/n.weight())
		}
	}
	if math.IsInf(least, 1) {
		least = 0
	}
	return most, least, mostBytes
}

// largest counts how many of the largest replicas that a node had make up so many bytes.
func (c *cluster) largest(b *boundState, n int32, over int64) int {
	var sizes []int64
	for i, was := range b.before {
		if slices.Contains(was, n) && b.stay[c.groups[i].keyspace][n] {
			sizes = append(sizes, c.groups[i].bytes)
		}
	}
	slices.Sort(sizes)
	give := 0
	for ; over > 0 && give < len(sizes); give++ {
		over -= sizes[len(sizes)-1-give]
	}
	return give
}
