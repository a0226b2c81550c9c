package simulate

import (
	"fmt"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// settleRounds bounds how often the planners are asked before the time begins; each time all that they decide is done at once.
// A planner that looks at a part of a large cluster each time is asked settleIdle times after it found nothing.
const (
	settleRounds = 2000
	settleIdle   = 60
)

// Run carries a scenario out. planner is nil for the allocator itself. It fails if the scenario is wrong, or if the planner decides
// what cannot be.
func Run(s *Scenario, planner Planner) (*Result, error) {
	s.number()
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if planner == nil {
		planner = allocator.Decide
	}
	c, err := newCluster(s, planner)
	if err != nil {
		return nil, err
	}
	if err := c.settle(); err != nil {
		return nil, err
	}
	c.begin("start")
	c.every = s.Sample
	for event, over := 0, false; ; c.now += s.Step {
		c.expectAt()
		for event < len(s.Events) && c.isTime(&s.Events[event]) {
			c.expectBefore(event)
			c.happen(&s.Events[event])
			event++
		}
		c.health()
		c.goOn()
		if err := c.progress(); err != nil {
			return nil, err
		}
		if c.due(s.Ask) {
			if err := c.ask(); err != nil {
				return nil, err
			}
		}
		c.watch()
		if over = c.ended(event == len(s.Events)); over || c.due(c.every) {
			c.sample()
		}
		if over {
			c.expectLast()
			break
		}
	}
	return c.finish(), nil
}

// isTime says whether an event is to come now. One that waits for rest does not wait for ever.
func (c *cluster) isTime(e *Event) bool {
	if e.Then {
		return c.resting() || c.now >= c.lastEvent+base.SimAfter
	}
	return e.At <= c.now
}

// ended says whether the run is over.
func (c *cluster) ended(events bool) bool {
	if c.s.For > 0 {
		return c.now >= c.s.For
	}
	last := c.lastEvent
	for _, x := range c.s.Expects {
		last = max(last, x.At)
	}
	return events && c.now >= last && (c.resting() || c.now >= last+base.SimAfter)
}

// resting says whether nothing is under way and no planner has wanted anything for a while. A node that is dead and not yet failed
// is something that will be acted on.
func (c *cluster) resting() bool {
	for i := range c.nodes {
		if n := &c.nodes[i]; !n.alive && n.State != allocator.Failed && n.State != allocator.Left {
			return false
		}
	}
	return len(c.moves) == 0 && len(c.running) == 0 && c.now-max(c.lastActive, c.lastNews) >= base.SimQuiet
}

// settle asks the planners before the time begins, unless the scenario says where replicas are.
func (c *cluster) settle() error {
	if len(c.s.Ranges) > 0 {
		return nil
	}
	for _, k := range c.keyspaces {
		if len(k.On) > 0 {
			return nil
		}
	}
	idle := 0
	for round := 0; round < settleRounds && idle < settleIdle; round++ {
		before := c.moved + c.transfers
		if err := c.ask(); err != nil {
			return err
		}
		for _, m := range c.moves {
			for i := range m.left {
				m.left[i] = 0
			}
		}
		if err := c.progress(); err != nil {
			return err
		}
		if idle++; c.moved+c.transfers > before {
			idle = 0
		}
	}
	c.counters, c.lastActive = counters{}, 0
	clear(c.removed)
	return nil
}

// ask lets every planner decide, and begins what it decided.
func (c *cluster) ask() error {
	for i := range c.nodes {
		if n := &c.nodes[i]; n.State == allocator.Suspect || n.Disk > 0 && c.due(c.s.Sample) {
			c.tellNode(int32(i)) // for how long it is suspect, or what of its disk is taken
		}
	}
	for d := range c.deciders {
		c.asked++
		snap := c.deciders[d].snapshot
		unseen := snap.Unseen()
		decisions, withheld := c.planner(snap, c.s.Seed+c.asked, c.s.Limit)
		c.deciders[d].withheld = withheld
		if left := snap.Unseen(); left > 0 && left < unseen {
			c.lastActive = c.now // a pass looks at a part of what is new
		}
		for i := range decisions {
			if err := c.decide(int32(d), &decisions[i]); err != nil {
				return fmt.Errorf("at %s: the planner decided what cannot be: r%d: %w (%s)", c.now, decisions[i].Range, err, decisions[i].Reason)
			}
		}
	}
	return nil
}

// health lets dead nodes become suspect, and then failed, as the leader of `sys` would.
func (c *cluster) health() {
	for i := range c.nodes {
		n := &c.nodes[i]
		dead := c.now - n.died
		switch {
		case n.alive && n.back > c.now-c.s.Step && n.back <= c.now && n.back > 0:
			c.on([]int32{int32(i)}, c.tell) // it has caught up
		case n.alive || dead < c.s.Suspect:
		case n.State == allocator.Active:
			n.State = allocator.Suspect
			c.tellNode(int32(i))
			c.abandon(int32(i))
		case n.State == allocator.Suspect && dead >= c.s.Suspect+c.policy.Default.FailedAfter:
			n.State, c.lastNews = allocator.Failed, c.now
			c.tellNode(int32(i))
		}
		if n.State == allocator.Leaving && n.count == 0 && n.in == 0 {
			n.State = allocator.Left
			c.tellNode(int32(i))
		}
	}
}
