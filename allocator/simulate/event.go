package simulate

import (
	"slices"
	"time"

	"github.com/cairndb/cairn/allocator"
)

// happen carries an event out, or begins it if it takes time.
func (c *cluster) happen(e *Event) {
	c.begin(e.Text)
	c.lastEvent, c.lastNews = c.now, c.now
	switch e.Kind {
	case EventAdd:
		for i := range e.Add {
			c.addNode(&e.Add[i])
		}
	case EventNodes:
		c.verb(e.Verb, c.chosen(e.Who))
	case EventRolling:
		c.running = append(c.running, &rolling{nodes: c.chosen(e.Who), down: e.Down})
	case EventHot:
		h := &hotSpot{keyspace: c.keyspace(e.Keyspace), every: e.Every, share: e.Share, next: c.now, group: -1, until: -1}
		if e.For > 0 {
			h.until = c.now + e.For
		}
		c.running = append(c.running, h)
	case EventLoad:
		k := c.keyspace(e.Keyspace)
		for i := range c.groups {
			if c.groups[i].keyspace == k {
				c.change(int32(i), func(g *group) { g.base *= e.Factor; g.load *= e.Factor })
			}
		}
	case EventKeyspace:
		k := &c.keyspaces[c.keyspace(e.Keyspace)]
		for _, kv := range e.Set {
			_ = applyPlacement(&k.Placement, kv) // the parser has tried it
		}
		c.policy.Keyspaces[k.ID] = k.Placement
		c.tellPolicy()
		c.judgeAll()
	case EventPolicy:
		_ = applyPolicy(&c.policy, e.Set) // likewise
		c.tellPolicy()
	}
}

func (c *cluster) keyspace(name string) int32 {
	return int32(slices.IndexFunc(c.keyspaces, func(k Keyspace) bool { return k.Name == name }))
}

// chosen are the nodes that selectors name; without any, all that are in use.
func (c *cluster) chosen(who []Selector) (out []int32) {
	for i := range c.nodes {
		n := &c.nodes[i]
		if len(who) == 0 && n.counts() || slices.ContainsFunc(who, func(w Selector) bool { return w.selects(&n.Node) }) {
			out = append(out, int32(i))
		}
	}
	return out
}

func (c *cluster) verb(verb NodeVerb, nodes []int32) {
	for _, i := range nodes {
		n := &c.nodes[i]
		switch verb {
		case VerbFail:
			n.alive, n.died = false, c.now
		case VerbRecover:
			n.alive, n.back = true, c.now+c.s.CatchUp
			if n.State == allocator.Suspect || n.State == allocator.Failed {
				n.State = allocator.Active
			}
		case VerbDrain:
			n.Draining, n.Cordoned = true, true
		case VerbUndrain:
			n.Draining, n.Cordoned = false, false
		case VerbCordon:
			n.Cordoned = true
		case VerbUncordon:
			n.Cordoned = false
		case VerbDecommission:
			n.State = allocator.Leaving
		case VerbRecommission:
			n.State = allocator.Active
		case VerbSlow:
			n.slow = "its disk takes long"
		case VerbWell:
			n.slow = ""
		}
		c.tellNode(i)
	}
	if verb == VerbFail || verb == VerbRecover {
		c.on(nodes, func(i int32) {
			c.elect(i, -1)
			c.judge(i)
			c.tell(i)
		})
	}
}

// process is an event that takes time; step says whether it is over.
type process interface {
	step(c *cluster) (over bool)
}

func (c *cluster) goOn() {
	c.running = slices.DeleteFunc(c.running, func(p process) bool {
		c.lastActive = c.now
		return p.step(c)
	})
	for k := range c.keyspaces {
		if noise := c.keyspaces[k].Noise; noise > 0 && c.due(c.s.Sample) {
			c.wander(int32(k), noise)
		}
	}
}

// wander lets the loads of a keyspace's ranges differ from what they ordinarily are.
func (c *cluster) wander(k int32, noise float64) {
	for i := range c.groups {
		if c.groups[i].keyspace == k {
			factor := 1 + noise*(2*unit(c.rand)-1)
			c.change(int32(i), func(g *group) { g.load = (g.base + g.hot) * factor })
		}
	}
}

// rolling restarts one node after the other: it is drained, stopped, started again, and the next one waits until it has caught up.
type rolling struct {
	nodes []int32
	down  time.Duration
	state int
	since time.Duration
}

// drainWait is how long a node that is to be stopped may take to hand its leaders over.
const drainWait = time.Minute

func (r *rolling) step(c *cluster) bool {
	if len(r.nodes) == 0 {
		return true
	}
	n := &c.nodes[r.nodes[0]]
	next := func() { r.state, r.since = r.state+1, c.now }
	switch r.state {
	case 0:
		c.verb(VerbDrain, r.nodes[:1])
		next()
	case 1:
		if n.leaders == 0 || c.now-r.since >= drainWait {
			c.verb(VerbFail, r.nodes[:1])
			next()
		}
	case 2:
		if c.now-r.since >= r.down {
			c.verb(VerbRecover, r.nodes[:1])
			c.verb(VerbUndrain, r.nodes[:1])
			next()
		}
	case 3:
		if c.now > n.back {
			r.nodes, r.state = r.nodes[1:], 0
		}
	}
	return len(r.nodes) == 0
}

// hotSpot makes one range hot for a while, then another.
type hotSpot struct {
	keyspace           int32
	every, next, until time.Duration
	share              float64
	group              int32
}

func (h *hotSpot) step(c *cluster) bool {
	over := h.until >= 0 && c.now >= h.until
	if c.now < h.next && !over {
		return false
	}
	if h.group >= 0 {
		c.change(h.group, func(g *group) { g.load, g.hot = g.base, 0 })
	}
	if over {
		return true
	}
	var of []int32
	total := 0.0
	for i := range c.groups {
		if c.groups[i].keyspace == h.keyspace {
			of = append(of, int32(i))
			total += c.groups[i].base
		}
	}
	if len(of) == 0 {
		return true
	}
	h.group, h.next = of[c.rand.Int63n(int64(len(of)))], c.now+h.every
	c.change(h.group, func(g *group) { g.hot = h.share * total; g.load = g.base + g.hot })
	return false
}
