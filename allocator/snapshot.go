package allocator

import (
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/invariants"
)

// Snapshot is what is known of nodes, ranges, policy and of what is under way. It is dense, because a decider may hold a million
// ranges: a range is one entry of a flat array, a node a small number (slot), and each node has the list of the ranges it holds. It
// is incremental: a range that was put, or lies on a node that has changed, is looked at by the next Decide, or by one soon after it if
// those are many, and no other.
//
// It is not safe for concurrent use.
type Snapshot struct {
	topology
	nodes   []node
	byID    map[base.NodeID]slot
	entries []entry
	free    []row
	byRange map[base.RangeID]row
	rare    map[row]rare
	under   map[row]underway
	policy  Policy
	rules   []rules // the first is the default
	ruleOf  map[base.KeyspaceID]int32
	news
	effort    effort
	turns     [buckets]int       // where the next pass goes on in each bucket
	pending   [buckets][]row     // ranges for which something is to be done, by the first goal that wants it
	why       [goals][whys]tally // of those, why it was not done
	topoKey   []int32            // what places there are, as of the last pass
	best      [base.MaxReplicas + 1]int64
	spread    map[spreadKey]bool // whether voters on such classes could be further apart, or meet more constraints
	ableNodes int                // nodes that could take a replica, but for what passes soon
	moves     int                // replica moves under way
	doubts    int                // of what is under way, what may or may not come
	balanced  uint32             // moves for balance that were taken up
	version   uint64             // counts changes of what nodes hold
	leveling  [levels]leveling
	rests     uint16  // how often nothing was left to be moved, counted from 1
	lagging   int     // ranges of which a replica is down, or has not caught up
	unrest    bool    // a replica has come somewhere since the last
	hot       int64   // a range with more load than this is hot
	warm      float64 // and a node of weight one with more than this has too much
}

type (
	slot int32 // index of a node
	row  int32 // index of a range
)

const none slot = -1

// What is summed up for each node.
const (
	dimReplicas = iota
	dimBytes
	dimLeaders
	dimLoad // thousandths of a request per second
	dims
)

const loadUnit = 1000

type sums [dims]int64

// node is a slot's node, and what it holds.
type node struct {
	Node
	known    bool // there is a record; else replicas are listed on it, and nobody knows it
	class    int32
	prefixes []int32 // of its class
	held     []row   // ranges that list a replica on it
	touched  bool    // it has changed, and what it holds from place sorted on was not looked at since
	sorted   int32
	sum      sums  // with everything done that is under way
	incoming int64 // bytes on their way to it
	told     int64 // what it held of ranges when it last said how full its disk is
	moves    int   // replicas that come or go
	shedding bool  // its disk is about to be full
	overdue  int   // how many of the thresholds of failure it has been suspect for
	slowLong bool  // it has been slow for longer than the policy allows
	calm     bool  // nothing about it is a reason to look at its ranges
	able     bool  // it could take a replica, but for what passes soon
}

// seat is one replica, and where it stands in its node's list.
type seat struct {
	node slot
	at   int32
	role Role
}

const (
	inUse uint8 = 1 << iota
	isDirty
	isRare
	isUnder
	isMovable // when it was looked at last, nothing was to be said of it but for what balance is
)

// entry is what is kept of a range.
type entry struct {
	id          base.RangeID
	keyspace    base.KeyspaceID
	generation  base.Generation
	bytes, load int64
	rules       int32
	leader      slot
	pendingAt   int32
	balanced    uint32 // the number of the move that it was last moved by for balance; 0: never
	behind      uint16 // bits of seats
	came        uint16 // in which stretch between two rests a replica came to some node last; 0: never since the range was first heard of
	n           uint8
	flags       uint8
	bucket      uint8
	goal        Goal // that the reason below is of
	why         why
	seats       [base.MaxReplicas]seat
}

// rare is what few ranges have.
type rare struct {
	busy         string
	wanted       []slot
	isWanted     bool
	wantedLeader slot
}

// effort is what one pass may look at.
type effort struct {
	sorts  int // ranges that are sorted anew
	visits int // places that are compared for ranges of which nothing comes
}

// underway is a decision that was taken up.
type underway struct {
	decision Decision
	effect   effect
	doubtful bool
}

// effect is what a decision makes of a range.
type effect struct {
	voters        set // where replicas are then
	adds, removes set
	leader        slot
}

// set is a few nodes.
type set struct {
	n  int
	at [base.MaxReplicas]slot
}

func (s *set) slice() []slot { return s.at[:s.n] }

func (s *set) add(n slot) {
	invariants.Check(s.n < len(s.at), "more than %d nodes of one range", len(s.at))
	s.at[s.n] = n
	s.n++
}

func (s *set) has(n slot) bool { return slices.Contains(s.at[:s.n], n) }

func (s set) without(n slot) (r set) {
	for _, m := range s.slice() {
		if m != n {
			r.add(m)
		}
	}
	return r
}

func (s set) with(n slot) set { s.add(n); return s }

// NewSnapshot returns one that knows nothing, with the default policy.
func NewSnapshot() *Snapshot {
	s := &Snapshot{
		rests:    1,
		effort:   effort{sorts: base.PlanSorts, visits: base.PlanVisits},
		topology: newTopology(), byID: map[base.NodeID]slot{}, byRange: map[base.RangeID]row{},
		rare: map[row]rare{}, under: map[row]underway{}, spread: map[spreadKey]bool{},
	}
	s.SetPolicy(DefaultPolicy())
	return s
}

// SetPolicy says what is to be held to from now on. What it leaves out is as in DefaultPolicy. Everything is looked at again.
func (s *Snapshot) SetPolicy(p Policy) {
	p.EnsureDefaults()
	s.policy = p
	s.rules = append(s.rules[:0], rules{Placement: p.Default})
	s.ruleOf = map[base.KeyspaceID]int32{}
	keyspaces := make([]base.KeyspaceID, 0, len(p.Keyspaces))
	for k := range p.Keyspaces {
		keyspaces = append(keyspaces, k)
	}
	slices.Sort(keyspaces)
	for _, k := range keyspaces {
		s.ruleOf[k] = int32(len(s.rules))
		s.rules = append(s.rules, rules{Placement: p.Keyspaces[k]})
	}
	for i := range s.rules {
		s.rules[i].extend(&s.topology)
	}
	for i := range s.entries {
		e := &s.entries[i]
		e.rules = s.ruleOf[e.keyspace] // the default's index is 0
		if e.flags&inUse != 0 {
			s.rules[e.rules].ranges++
		}
	}
	for i := range s.nodes {
		s.refresh(slot(i))
	}
	s.all = true
	s.topoKey = nil
	s.forget()
}

// Policy returns the policy that is held to.
func (s *Snapshot) Policy() Policy { return s.policy }

// SetNode says what is known of a node. Its slices are copied.
func (s *Snapshot) SetNode(n Node) {
	at := s.slotOf(n.ID)
	held := &s.nodes[at]
	n.Locality, n.Attributes = slices.Clone(n.Locality), slices.Clone(n.Attributes)
	if n.Weight <= 0 {
		n.Weight = 1
	}
	if n.LeadWeight <= 0 {
		n.LeadWeight = n.Weight
	}
	class := s.class(n.Locality, n.Attributes)
	moved := !held.known || held.class != class
	before, pooled := held.Node, held.pooled()
	if !held.known || before.DiskUsed != n.DiskUsed || before.DiskBytes != n.DiskBytes {
		held.told = held.sum[dimBytes]
	}
	if moved {
		s.leaveClass(at)
	}
	held.Node, held.known, held.class, held.prefixes = n, true, class, s.classes[class].prefixes
	if moved {
		c := &s.classes[class]
		i, _ := slices.BinarySearch(c.nodes, at)
		c.nodes = slices.Insert(c.nodes, i, at)
	}
	if s.refresh(at) || moved || before.differs(&n) {
		s.touch(at)
		s.version++
	}
	if moved || before.Weight != n.Weight || before.LeadWeight != n.LeadWeight || !pooled && held.pooled() {
		s.forget() // something may go where nothing could
	}
}

// differs says whether a goal may see the node otherwise than before, beside what refresh tells.
func (n *Node) differs(now *Node) bool {
	return n.State != now.State || n.Cordoned != now.Cordoned || n.Draining != now.Draining || (n.Slow == "") != (now.Slow == "") ||
		n.Weight != now.Weight || n.LeadWeight != now.LeadWeight
}

// class is classOf, and has the rules know the class.
func (s *Snapshot) class(locality []Tier, attributes []string) int32 {
	c, fresh := s.classOf(locality, attributes)
	if fresh {
		for i := range s.rules {
			s.rules[i].extend(&s.topology)
		}
	}
	return c
}

// nowhere is the class of a node that nobody knows.
func (s *Snapshot) nowhere() int32 { return s.class(nil, nil) }

// RemoveNode says that there is no record of the node. Replicas that are listed on it are as those of one that has failed.
func (s *Snapshot) RemoveNode(id base.NodeID) {
	at, ok := s.byID[id]
	if !ok || !s.nodes[at].known {
		return
	}
	s.leaveClass(at)
	n := &s.nodes[at]
	n.Node, n.known, n.class, n.prefixes = Node{ID: id, Weight: 1, LeadWeight: 1}, false, s.nowhere(), nil
	s.refresh(at)
	s.touch(at)
	s.forget()
	s.version++
}

func (s *Snapshot) leaveClass(at slot) {
	if n := &s.nodes[at]; n.known {
		c := &s.classes[n.class]
		if n.able {
			c.able--
			s.ableNodes--
			n.able = false
		}
		if i, ok := slices.BinarySearch(c.nodes, at); ok {
			c.nodes = slices.Delete(c.nodes, i, i+1)
		}
	}
}

// Nodes returns the nodes that there are records of, by id.
func (s *Snapshot) Nodes() []Node {
	var r []Node
	for i := range s.nodes {
		if s.nodes[i].known {
			r = append(r, s.nodes[i].Node)
		}
	}
	slices.SortFunc(r, func(a, b Node) int { return sign(int(a.ID) - int(b.ID)) })
	return r
}

// Holding is what a node holds with everything done that is under way.
type Holding struct {
	Replicas, Leaders int
	Bytes             int64
	Load              float64
	Moves             int // replicas that come to it or leave it now
}

// Holding returns what a node holds of the ranges of this snapshot.
func (s *Snapshot) Holding(id base.NodeID) Holding {
	at, ok := s.byID[id]
	if !ok {
		return Holding{}
	}
	n := &s.nodes[at]
	return Holding{
		Replicas: int(n.sum[dimReplicas]), Leaders: int(n.sum[dimLeaders]), Bytes: n.sum[dimBytes],
		Load: float64(n.sum[dimLoad]) / loadUnit, Moves: n.moves,
	}
}

// slotOf finds the node's slot, or makes one.
func (s *Snapshot) slotOf(id base.NodeID) slot {
	if at, ok := s.byID[id]; ok {
		return at
	}
	at := slot(len(s.nodes))
	s.nodes = append(s.nodes, node{Node: Node{ID: id, Weight: 1, LeadWeight: 1}, class: s.nowhere()}) // a class without a locality
	s.byID[id] = at
	s.refresh(at)
	return at
}

// refresh derives what a node's state comes to, and says whether its ranges are to be looked at.
func (s *Snapshot) refresh(at slot) bool {
	n := &s.nodes[at]
	overdue := 0
	if n.State == Suspect {
		for i := range s.rules {
			if n.Suspected >= s.rules[i].FailedAfter {
				overdue++
			}
		}
	}
	able := n.known && n.State == Active && !n.Cordoned && !n.Draining && n.Slow == "" && !n.toldFull()
	calm := n.known && n.State == Active && !n.Draining && n.Slow == ""
	long := n.Slow != "" && n.SlowFor >= s.policy.SlowAfter
	changed := overdue != n.overdue || able != n.able || calm != n.calm || long != n.slowLong || n.sheds() != n.shedding
	if able != n.able {
		by := 1
		if !able {
			by = -1
		}
		s.classes[n.class].able += by
		s.ableNodes += by
	}
	n.overdue, n.able, n.calm, n.slowLong, n.shedding = overdue, able, calm, long, n.sheds()
	return changed
}

// diskFull is the share of a disk above which nothing comes to it: compactions and snapshots need room beside what is stored.
const diskFull = 0.95

// full says whether the node's disk would be full with so much more.
func (n *node) full(more int64) bool {
	return n.DiskBytes > 0 && float64(max(n.DiskUsed+n.incoming, n.used())+more) > diskFull*float64(n.DiskBytes)
}

// toldFull is full by what the node said last, alone.
func (n *node) toldFull() bool {
	return n.DiskBytes > 0 && float64(n.DiskUsed) > diskFull*float64(n.DiskBytes)
}

// alive says whether what the node holds counts as there.
func (n *node) alive() bool {
	return n.known && (n.State == Active || n.State == Leaving || n.State == Joining)
}

// lost says whether what the node holds of such a placement is to be replaced.
func (n *node) lost(failedAfter time.Duration) bool {
	return !n.known || n.State == Failed || n.State == Left || n.State == Suspect && n.Suspected >= failedAfter
}

// Len is how many ranges there are.
func (s *Snapshot) Len() int { return len(s.byRange) }

// places takes note of what places there are. If there are new ones, every range may have a better one.
func (s *Snapshot) places() {
	key := make([]int32, len(s.classes))
	most, classes, constrained := 0, 0, false
	for i := range s.rules {
		most = max(most, s.rules[i].Replicas)
		constrained = constrained || len(s.rules[i].Constraints) > 0
	}
	for i := range s.classes {
		key[i] = int32(2 * min(s.classes[i].able, base.MaxReplicas))
		if key[i] > 0 {
			classes++
		}
		if len(s.classes[i].nodes) > 0 {
			key[i]++
		}
	}
	if slices.Equal(key, s.topoKey) {
		return
	}
	// One node more of a class matters to a range if it has a replica on all others of it; which it has not, where classes are many
	// enough for its replicas to be one on each, unless a constraint holds them there.
	matters := int32(1)
	if constrained || classes < most || s.ableNodes <= smallCluster {
		matters = int32(most)
	}
	for i := range key {
		was := int32(0)
		if i < len(s.topoKey) {
			was = s.topoKey[i]
		}
		if key[i]/2 > was/2 && was/2 < matters {
			s.rows.next, s.rows.end = 0, row(len(s.entries))
		}
	}
	s.topoKey = key
	for n := range s.best {
		s.best[n] = s.least(n)
	}
	clear(s.spread)
}

// smallCluster is a number of nodes up to which every range is looked at whenever a place is new.
const smallCluster = 32
