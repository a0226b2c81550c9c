package simulate

import (
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// node is a node as it is now. It is known by its place in cluster.nodes.
type node struct {
	Node
	alive bool
	died  time.Duration // if it is not alive
	back  time.Duration // when its replicas have caught up; below now: they have
	slow  string

	count, leaders int
	bytes          int64
	load           float64 // that its leaders serve
	in, out        int     // replicas under way
}

// counts says whether the node is one that the load is to be spread over.
func (n *node) counts() bool {
	return n.alive && n.State != allocator.Leaving && n.State != allocator.Left
}

// gone says whether what the node holds is lost, or is to leave it.
func (n *node) gone() bool {
	return n.State == allocator.Failed || n.State == allocator.Leaving || n.State == allocator.Left
}

func (n *node) weight() float64 {
	if n.Weight > 0 {
		return n.Weight
	}
	return 1
}

// group is a range as it is now. Its replicas are places of nodes; the slice is never changed, but replaced: what holds an older one
// has what was.
type group struct {
	id         base.RangeID
	generation base.Generation
	keyspace   int32
	decider    int32
	leader     int32 // -1: none
	flags      flags
	moving     bool
	replicas   []int32
	bytes      int64
	base, hot  float64 // load of an ordinary moment, and what a hot spot has on top
	load       float64 // now
}

type flags uint8

const (
	breaks      flags = 1 << iota // a constraint
	unavailable                   // no quorum of its replicas lives
	under                         // fewer replicas on live nodes than there should be
)

// Planner is the allocator's Decide, or something around it that measures it.
type Planner func(s *allocator.Snapshot, seed uint64, limit int) ([]allocator.Decision, []allocator.Withheld)

// decider is one planner with what it knows.
type decider struct {
	snapshot *allocator.Snapshot
	withheld []allocator.Withheld
}

type cluster struct {
	s         *Scenario
	planner   Planner
	rand      *base.Rand
	now       time.Duration
	nodes     []node
	place     map[base.NodeID]int32
	keyspaces []Keyspace // as they are now
	policy    allocator.Policy
	groups    []group
	index     map[base.RangeID]int32
	deciders  []decider
	moves     []*move
	running   []process // events that take time

	breaking, unavailable, under int // ranges with the flag

	counters
	phases     []*phase
	samples    []Sample
	every      time.Duration // between two samples
	worst      Worst
	removed    map[spot]time.Duration // when a replica was taken away from where it was
	lastActive time.Duration          // when something was under way, or was begun
	lastNews   time.Duration          // when something happened that planners may have to act on
	lastEvent  time.Duration
	asked      uint64
	scratch    allocator.Range
	result     *Result
}

// spot is a replica's place.
type spot struct{ group, node int32 }

// counters count from the beginning.
type counters struct {
	moved, transfers, refused, pingpong, twice int
	bytesMoved                                 int64
}

// newCluster sets a scenario up: nodes, ranges where they begin, and the planners that know of them.
func newCluster(s *Scenario, planner Planner) (*cluster, error) {
	c := &cluster{s: s, planner: planner, rand: base.NewRand(s.Seed), policy: s.Policy, place: map[base.NodeID]int32{},
		index: map[base.RangeID]int32{}, removed: map[spot]time.Duration{}, keyspaces: slices.Clone(s.Keyspaces), result: &Result{}}
	c.policy.Keyspaces = map[base.KeyspaceID]allocator.Placement{}
	for id, p := range s.Policy.Keyspaces {
		c.policy.Keyspaces[id] = p
	}
	for range s.Deciders {
		c.deciders = append(c.deciders, decider{snapshot: allocator.NewSnapshot()})
	}
	for _, k := range c.keyspaces {
		c.policy.Keyspaces[k.ID] = k.Placement
	}
	c.tellPolicy()
	for i := range s.Nodes {
		c.addNode(&s.Nodes[i])
	}
	for i := range c.keyspaces {
		c.fill(int32(i))
	}
	for i := range s.Ranges {
		if err := c.load(&s.Ranges[i]); err != nil {
			return nil, err
		}
	}
	for g := range c.groups {
		c.groups[g].decider = int32(g * len(c.deciders) / len(c.groups))
		c.tell(int32(g))
	}
	c.judgeAll()
	return c, nil
}

func (c *cluster) addNode(n *Node) int32 {
	i := int32(len(c.nodes))
	c.nodes = append(c.nodes, node{Node: *n, alive: n.State != allocator.Failed && n.State != allocator.Suspect})
	c.nodes[i].State = n.State
	if n.State == allocator.Joining {
		c.nodes[i].State = allocator.Active
	}
	c.place[n.ID] = i
	c.tellNode(i)
	return i
}

// load takes a range of a live cluster. Learners and half-done changes are left out: what is asked is where its voters go.
func (c *cluster) load(r *allocator.Range) error {
	if _, known := c.index[r.ID]; known {
		return fmt.Errorf("r%d is there twice", r.ID)
	}
	k := slices.IndexFunc(c.keyspaces, func(k Keyspace) bool { return k.ID == r.Keyspace })
	if k < 0 {
		return fmt.Errorf("r%d is of keyspace %s, which is not known", r.ID, r.Keyspace)
	}
	g := group{id: r.ID, generation: r.Generation, keyspace: int32(k), leader: -1, bytes: r.Bytes, base: r.Load, load: r.Load}
	for _, p := range r.Replicas {
		i, known := c.place[p.Node]
		if !known {
			return fmt.Errorf("r%d has a replica on n%d, which is not known", r.ID, p.Node)
		}
		if p.Role == allocator.Learner || p.Role == allocator.Outgoing {
			continue
		}
		g.replicas = append(g.replicas, i)
		if p.Node == r.Leader {
			g.leader = i
		}
	}
	if len(g.replicas) == 0 {
		return fmt.Errorf("r%d has no voter", r.ID)
	}
	c.addGroup(g)
	return nil
}

// addGroup enters a range and what it weighs on its nodes.
func (c *cluster) addGroup(g group) int32 {
	i := int32(len(c.groups))
	c.groups = append(c.groups, g)
	c.index[g.id] = i
	c.weigh(i, 1)
	return i
}

// weigh adds a range to what its nodes hold, or takes it off.
func (c *cluster) weigh(i int32, sign int) {
	g := &c.groups[i]
	for _, n := range g.replicas {
		c.nodes[n].count += sign
		c.nodes[n].bytes += int64(sign) * g.bytes
	}
	if g.leader >= 0 {
		c.nodes[g.leader].leaders += sign
		c.nodes[g.leader].load += float64(sign) * g.load
	}
}

// change alters a range, keeps what is counted of it, and tells its planner.
func (c *cluster) change(i int32, f func(g *group)) {
	c.weigh(i, -1)
	f(&c.groups[i])
	c.weigh(i, 1)
	c.judge(i)
	c.tell(i)
}

// tell reports a range to its planner, as its leader would.
func (c *cluster) tell(i int32) {
	g, r := &c.groups[i], &c.scratch
	*r = allocator.Range{ID: g.id, Keyspace: c.keyspaces[g.keyspace].ID, Generation: g.generation, Bytes: g.bytes, Load: g.load,
		Replicas: r.Replicas[:0], Behind: r.Behind[:0]}
	for _, n := range g.replicas {
		r.Replicas = append(r.Replicas, allocator.Replica{Node: c.nodes[n].ID, Role: allocator.Voter})
		if !c.nodes[n].alive || c.nodes[n].back > c.now {
			r.Behind = append(r.Behind, c.nodes[n].ID)
		}
	}
	if g.leader >= 0 {
		r.Leader = c.nodes[g.leader].ID
	}
	c.deciders[g.decider].snapshot.Put(*r)
}

func (c *cluster) tellNode(i int32) {
	n := &c.nodes[i]
	told := allocator.Node{ID: n.ID, Locality: n.Locality, Attributes: n.Attributes, State: n.State, Cordoned: n.Cordoned,
		Draining: n.Draining, Slow: n.slow, Weight: n.weight(), DiskBytes: n.Disk}
	if n.Disk > 0 {
		told.DiskUsed = n.bytes
	}
	if n.State == allocator.Suspect || n.State == allocator.Failed {
		told.Suspected = c.now - n.died - c.s.Suspect
	}
	for d := range c.deciders {
		c.deciders[d].snapshot.SetNode(told)
	}
}

func (c *cluster) tellPolicy() {
	for d := range c.deciders {
		c.deciders[d].snapshot.SetPolicy(c.policy)
	}
}

// on calls f with every range that has a replica on one of the nodes.
func (c *cluster) on(nodes []int32, f func(i int32)) {
	for i := range c.groups {
		if slices.ContainsFunc(c.groups[i].replicas, func(n int32) bool { return slices.Contains(nodes, n) }) {
			f(int32(i))
		}
	}
}

// elect gives a range a leader among its live voters, if there is a quorum of them; wanted leads if it can.
func (c *cluster) elect(i, wanted int32) {
	g := &c.groups[i]
	var live []int32
	for _, n := range g.replicas {
		if c.nodes[n].alive {
			live = append(live, n)
		}
	}
	leader := int32(-1)
	switch {
	case len(live) <= len(g.replicas)/2:
	case slices.Contains(live, wanted):
		leader = wanted
	case slices.Contains(live, g.leader):
		leader = g.leader
	default:
		leader = live[c.rand.Int63n(int64(len(live)))]
	}
	if leader == g.leader {
		return
	}
	c.weigh(i, -1)
	g.leader = leader
	c.weigh(i, 1)
}
