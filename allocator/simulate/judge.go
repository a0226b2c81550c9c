package simulate

import (
	"github.com/cairndb/cairn/allocator"
)

// What a range breaks is read from its replicas and its policy here, apart from the planner: a mistake of the planner's own reading
// of a constraint would show.

// meets says whether a node is one that the constraint speaks of.
func meets(n *Node, q allocator.Constraint) bool {
	if q.Key != "" {
		return hasTier(n, q.Key, q.Value)
	}
	for _, a := range n.Attributes {
		if a == q.Value {
			return true
		}
	}
	return false
}

// allowed says whether a node may hold any replica: it keeps what must hold of all of them.
func allowed(n *Node, constraints []allocator.Constraint) bool {
	for _, q := range constraints {
		switch {
		case q.Kind == allocator.Forbidden && q.Replicas == 0 && meets(n, q),
			q.Kind == allocator.Required && q.Replicas == 0 && !meets(n, q):
			return false
		}
	}
	return true
}

// broken counts the replicas that stand where they must not, or are missing where they must be.
func (c *cluster) broken(replicas []int32, p *allocator.Placement) (n int) {
	for _, q := range p.Constraints {
		met := 0
		for _, r := range replicas {
			if meets(&c.nodes[r].Node, q) {
				met++
			}
		}
		about := q.Replicas
		if about == 0 {
			about = len(replicas)
		}
		switch q.Kind {
		case allocator.Required:
			n += max(0, about-met)
		case allocator.Forbidden: // so many are to be elsewhere
			n += max(0, met-max(0, len(replicas)-about))
		}
	}
	return n
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// judge sets a range's flags, and counts them.
func (c *cluster) judge(i int32) {
	g := &c.groups[i]
	p := &c.keyspaces[g.keyspace].Placement
	live := 0
	for _, n := range g.replicas {
		if c.nodes[n].alive {
			live++
		}
	}
	var f flags
	if c.broken(g.replicas, p) > 0 {
		f |= breaks
	}
	if live <= len(g.replicas)/2 {
		f |= unavailable
	}
	if live < c.wanted(p) {
		f |= under
	}
	count := func(bit flags, n *int) { *n += boolInt(f&bit != 0) - boolInt(g.flags&bit != 0) }
	count(breaks, &c.breaking)
	count(unavailable, &c.unavailable)
	count(under, &c.under)
	g.flags = f
}

// wanted is how many replicas there should be, with the nodes that there are.
func (c *cluster) wanted(p *allocator.Placement) int {
	if p.AtLeast == 0 {
		return p.Replicas
	}
	nodes := 0
	for i := range c.nodes {
		nodes += boolInt(c.nodes[i].counts())
	}
	if nodes >= p.Replicas {
		return p.Replicas
	}
	return p.AtLeast
}

func (c *cluster) judgeAll() {
	for i := range c.groups {
		c.judge(int32(i))
	}
}

// undiverse counts ranges whose replicas are in fewer places of a tier than they could be in.
func (c *cluster) undiverse(key string) (n int) {
	values := make([]string, len(c.nodes))
	for i := range c.nodes {
		for _, t := range c.nodes[i].Locality {
			if t.Key == key {
				values[i] = t.Value
			}
		}
	}
	possible := make([]int, len(c.keyspaces))
	for k := range c.keyspaces {
		set := map[string]bool{}
		for _, i := range c.eligible(c.keyspaces[k].Placement, (*node).counts) {
			set[values[i]] = true
		}
		possible[k] = min(len(set), c.keyspaces[k].Placement.Replicas)
	}
	for i := range c.groups {
		set := map[string]bool{}
		for _, r := range c.groups[i].replicas {
			set[values[r]] = true
		}
		n += boolInt(len(set) < possible[c.groups[i].keyspace])
	}
	return n
}
