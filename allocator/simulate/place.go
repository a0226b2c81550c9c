package simulate

import (
	"slices"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// Where ranges begin is not the planner's work: each replica is given to the node that has least, of those that keep the constraints
// and are far from the others. What the planner would still change is settled before the time begins.

// looks bounds the nodes that are compared for one replica: in a large cluster a drawn part of them does as well.
const looks = 48

// fill makes a keyspace's ranges.
func (c *cluster) fill(k int32) {
	ks := &c.keyspaces[k]
	if ks.Ranges == 0 {
		return
	}
	size, load := ks.Size.draw(ks.Ranges, c.rand), ks.Load.draw(ks.Ranges, c.rand)
	open := c.eligible(ks.Placement, func(n *node) bool { return n.counts() && !n.Cordoned })
	for i := range ks.Ranges {
		g := group{id: base.RangeID(base.FirstFreeID + len(c.groups)), generation: 1, keyspace: k, leader: -1, bytes: int64(size[i]),
			base: load[i], load: load[i]}
		if len(ks.On) > 0 {
			for _, id := range ks.On {
				g.replicas = append(g.replicas, c.place[id])
			}
			g.leader = g.replicas[0]
		} else {
			g.replicas = c.choose(open, &ks.Placement)
			g.leader = c.lead(g.replicas, &ks.Placement)
		}
		c.addGroup(g)
	}
}

// eligible are the nodes that may hold a replica by what must hold of all of them; if that is no node, all.
func (c *cluster) eligible(p allocator.Placement, f func(*node) bool) (out []int32) {
	for i := range c.nodes {
		if f(&c.nodes[i]) && allowed(&c.nodes[i].Node, p.Constraints) {
			out = append(out, int32(i))
		}
	}
	if len(out) > 0 {
		return out
	}
	for i := range c.nodes {
		out = append(out, int32(i))
	}
	return out
}

func (c *cluster) choose(open []int32, p *allocator.Placement) (out []int32) {
	for len(out) < min(p.Replicas, len(open)) {
		best, bestScore := int32(-1), 0.0
		for range min(looks, len(open)) {
			n := open[0]
			if len(open) <= looks {
				open = append(open[1:], n) // each once, in turn
			} else {
				n = open[c.rand.Int63n(int64(len(open)))]
			}
			if slices.Contains(out, n) {
				continue
			}
			if score := c.badness(out, n, p); best < 0 || score < bestScore {
				best, bestScore = n, score
			}
		}
		if best >= 0 {
			out = append(out, best)
		}
	}
	slices.Sort(out)
	return out
}

// badness compares nodes for one more replica: what a constraint still lacks counts most, then tiers that are taken, then what the
// node has already.
func (c *cluster) badness(have []int32, i int32, p *allocator.Placement) float64 {
	n := &c.nodes[i]
	score := float64(n.count) / n.weight() / float64(len(c.groups)+1)
	for depth, t := range n.Locality {
		for _, other := range have {
			if hasTier(&c.nodes[other].Node, t.Key, t.Value) {
				score += 100 / float64(int(1)<<depth)
			}
		}
	}
	for _, q := range p.Constraints {
		met := 0
		for _, other := range have {
			if meets(&c.nodes[other].Node, q) {
				met++
			}
		}
		switch {
		case q.Kind == allocator.Required && q.Replicas > met && meets(&n.Node, q):
			score -= 10_000
		case q.Kind == allocator.Preferred && meets(&n.Node, q) && (q.Replicas == 0 || q.Replicas > met):
			score -= 1_000
		}
	}
	return score
}

// lead chooses the leader: by preference, then the node that serves least.
func (c *cluster) lead(replicas []int32, p *allocator.Placement) int32 {
	for _, q := range p.Leaders {
		var good []int32
		for _, n := range replicas {
			if meets(&c.nodes[n].Node, q) {
				good = append(good, n)
			}
		}
		if len(good) > 0 {
			replicas = good
			break
		}
	}
	return slices.MinFunc(replicas, func(a, b int32) int {
		x, y := c.nodes[a].load/c.nodes[a].weight(), c.nodes[b].load/c.nodes[b].weight()
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return c.nodes[a].leaders - c.nodes[b].leaders
	})
}
