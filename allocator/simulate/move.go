package simulate

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// move is a range's way to other nodes. The replicas that are new are sent by the range's leader; when all are there, the voters
// are changed in one step.
type move struct {
	group  int32
	leader int32 // who is to lead then; -1: anyone
	voters []int32
	adds   []int32
	left   []float64 // bytes, of each of adds
}

// decide begins what a planner has decided. A target that receives too much already refuses; the planner will be asked again.
func (c *cluster) decide(d int32, x *allocator.Decision) error {
	i, known := c.index[x.Range]
	if !known {
		return errors.New("there is no such range")
	}
	g := &c.groups[i]
	switch {
	case g.decider != d:
		return errors.New("the range is another planner's")
	case g.moving:
		return errors.New("something is being done with it already")
	case g.generation != x.Generation:
		return fmt.Errorf("it has generation %d, and not %d", g.generation, x.Generation)
	}
	if x.Voters == nil {
		return c.transfer(i, x)
	}
	m, err := c.check(i, x)
	if err != nil {
		return err
	}
	for _, n := range m.adds {
		if node := &c.nodes[n]; node.in >= c.s.Slots || node.Disk > 0 && node.bytes+g.bytes > node.Disk {
			c.refused++
			return nil
		}
	}
	c.deciders[d].snapshot.Begin(*x)
	g.moving, c.lastActive = true, c.now
	for _, n := range m.adds {
		c.nodes[n].in++
	}
	c.moves = append(c.moves, m)
	return nil
}

// check reads a decision about voters, and whether it agrees with itself and with what is.
func (c *cluster) check(i int32, x *allocator.Decision) (*move, error) {
	g := &c.groups[i]
	m := &move{group: i, leader: -1}
	for k, id := range x.Voters {
		n, known := c.place[id]
		switch {
		case !known:
			return nil, fmt.Errorf("there is no node n%d", id)
		case k > 0 && id <= x.Voters[k-1]:
			return nil, fmt.Errorf("the voters %v are not in order", x.Voters)
		}
		m.voters = append(m.voters, n)
		if slices.Contains(g.replicas, n) {
			continue
		}
		if node := &c.nodes[n]; node.State != allocator.Active || node.Cordoned {
			return nil, fmt.Errorf("n%d is to take a replica, and is %s", id, stateName(node))
		}
		m.adds = append(m.adds, n)
		m.left = append(m.left, float64(g.bytes))
	}
	removes := 0
	for _, n := range g.replicas {
		removes += boolInt(!slices.Contains(m.voters, n))
	}
	if len(m.adds) != len(x.Adds) || removes != len(x.Removes) || len(m.voters) == 0 {
		return nil, fmt.Errorf("voters %v, adds %v and removes %v do not agree", x.Voters, x.Adds, x.Removes)
	}
	if n, known := c.place[x.Leader]; known {
		if !slices.Contains(m.voters, n) {
			return nil, fmt.Errorf("n%d is to lead, and is no voter", x.Leader)
		}
		m.leader = n
	}
	return m, nil
}

func stateName(n *node) string {
	names := map[allocator.NodeState]string{allocator.Joining: "joining", allocator.Suspect: "suspect", allocator.Failed: "failed",
		allocator.Leaving: "leaving", allocator.Left: "gone"}
	if n.Cordoned && n.State == allocator.Active {
		return "cordoned"
	}
	return names[n.State]
}

// transfer hands leadership over; that takes no time that counts.
func (c *cluster) transfer(i int32, x *allocator.Decision) error {
	n, known := c.place[x.Leader]
	g := &c.groups[i]
	if !known || !slices.Contains(g.replicas, n) {
		return fmt.Errorf("n%d is to lead, and is no voter", x.Leader)
	}
	if n == g.leader {
		return fmt.Errorf("n%d is to lead, and does", x.Leader)
	}
	if !c.nodes[n].alive || g.leader < 0 {
		return nil // it was dead a moment ago already, and nobody knew
	}
	c.transfers++
	c.lastActive = c.now
	c.change(i, func(g *group) { g.leader = n })
	return nil
}

// progress sends for one step. What a node sends and receives is shared evenly by what it sends and receives.
func (c *cluster) progress() error {
	for _, m := range c.moves {
		for k := range m.adds {
			if source := c.groups[m.group].leader; source >= 0 && m.left[k] > 0 {
				c.nodes[source].out++
			}
		}
	}
	step := float64(c.s.Rate) * c.s.Step.Seconds()
	for _, m := range c.moves {
		source := c.groups[m.group].leader
		for k, n := range m.adds {
			if source >= 0 && c.nodes[n].alive && m.left[k] > 0 {
				m.left[k] -= step / float64(max(c.nodes[source].out, c.nodes[n].in))
			}
		}
	}
	for i := range c.nodes {
		c.nodes[i].out = 0
	}
	kept := c.moves[:0]
	for _, m := range c.moves {
		switch {
		case c.groups[m.group].leader < 0:
			c.end(m) // no quorum: its directive is not followed, and it is decided anew
		case slices.ContainsFunc(m.left, func(left float64) bool { return left > 0 }):
			kept = append(kept, m)
		default:
			c.arrive(m)
		}
	}
	clear(c.moves[len(kept):])
	if c.moves = kept; len(kept) > 0 {
		c.lastActive = c.now
	}
	return nil
}

// end takes back what is held for a move.
func (c *cluster) end(m *move) {
	g := &c.groups[m.group]
	g.moving, c.lastActive = false, c.now
	for _, n := range m.adds {
		c.nodes[n].in--
	}
	c.deciders[g.decider].snapshot.End(g.id)
}

// abandon ends the moves to a node that is suspect.
func (c *cluster) abandon(n int32) {
	c.moves = slices.DeleteFunc(c.moves, func(m *move) bool {
		to := slices.Contains(m.adds, n)
		if to {
			c.end(m)
		}
		return to
	})
}

// arrive changes the voters.
func (c *cluster) arrive(m *move) {
	c.end(m)
	g := &c.groups[m.group]
	p := c.phases
	for _, n := range m.adds {
		at := spot{m.group, n}
		if was, known := c.removed[at]; known && c.now-was <= c.s.Window {
			c.pingpong++
		}
		if len(p) > 0 {
			p[len(p)-1].placed[at] = true
		}
	}
	for _, n := range g.replicas {
		if slices.Contains(m.voters, n) {
			continue
		}
		at := spot{m.group, n}
		c.removed[at] = c.now
		if len(p) > 0 && p[len(p)-1].placed[at] {
			c.twice++
		}
	}
	c.moved += len(m.adds)
	c.bytesMoved += int64(len(m.adds)) * g.bytes
	was := g.leader
	c.change(m.group, func(g *group) {
		g.replicas = m.voters
		g.generation += base.Generation(len(m.adds) + 1)
		if !slices.Contains(g.replicas, g.leader) {
			g.leader = -1
		}
	})
	if m.leader >= 0 || c.groups[m.group].leader < 0 {
		c.elect(m.group, m.leader)
		c.tell(m.group)
	}
	if g.leader != was && was >= 0 && slices.Contains(m.voters, was) {
		c.transfers++
	}
}

// quiet is how long nothing has been under way.
func (c *cluster) quiet() time.Duration { return c.now - c.lastActive }
