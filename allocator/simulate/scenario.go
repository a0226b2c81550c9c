package simulate

import (
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// Scenario is a cluster and what becomes of it. Parse makes it; what a live cluster is can be put into it with Load.
type Scenario struct {
	Name string
	Seed uint64

	For     time.Duration // 0: until all is at rest after the last event
	Step    time.Duration // of the model
	Ask     time.Duration // between two questions to a planner
	Sample  time.Duration
	Suspect time.Duration // from a node's death until it is suspect
	CatchUp time.Duration // from a node's return until its replicas have caught up
	Window  time.Duration // of ping-pong

	Deciders int
	Rate     int64 // bytes that a node sends, and receives, a second
	Slots    int   // replicas that a node receives at once
	Limit    int   // decisions that one question may bring

	Policy    allocator.Policy
	Nodes     []Node
	Keyspaces []Keyspace
	Events    []Event
	Expects   []Expect

	// Ranges are those of a live cluster, beside what Keyspaces make.
	Ranges []allocator.Range

	policySet []setting // what the text says of the policy: it holds for a live cluster too
}

// Node is a node of the scenario. Its id is its place, counted from 1, unless it is a live cluster's.
type Node struct {
	ID         base.NodeID
	Locality   []allocator.Tier
	Attributes []string
	Disk       int64
	Weight     float64 // 0: 1
	State      allocator.NodeState
	Cordoned   bool
	Draining   bool
}

// Keyspace is a number of ranges that are alike.
type Keyspace struct {
	Name   string
	ID     base.KeyspaceID
	Ranges int
	Size   Distribution
	Load   Distribution
	Noise  float64 // by how much of itself the load that is reported wanders
	On     []base.NodeID
	// Placement is the policy's; Placed says that the scenario has said anything of it.
	Placement allocator.Placement
	line      int
}

// EventKind is what happens.
type EventKind uint8

// The kinds of events.
const (
	EventAdd EventKind = iota
	EventNodes
	EventRolling
	EventHot
	EventLoad
	EventKeyspace
	EventPolicy
)

// NodeVerb is what happens to nodes.
type NodeVerb string

// The verbs, as they are written.
const (
	VerbFail         NodeVerb = "fail"
	VerbRecover      NodeVerb = "recover"
	VerbDrain        NodeVerb = "drain"
	VerbUndrain      NodeVerb = "undrain"
	VerbCordon       NodeVerb = "cordon"
	VerbUncordon     NodeVerb = "uncordon"
	VerbDecommission NodeVerb = "decommission"
	VerbRecommission NodeVerb = "recommission"
	VerbSlow         NodeVerb = "slow"
	VerbWell         NodeVerb = "well"
)

// Event is something that happens at a time.
type Event struct {
	At   time.Duration
	Then bool   // when all is at rest after what was before; At is not set
	Text string // as it was written, without its time
	Kind EventKind

	Add      []Node     // EventAdd
	Verb     NodeVerb   // EventNodes
	Who      []Selector // EventNodes, EventRolling; none: all
	Down     time.Duration
	Keyspace string
	Every    time.Duration
	For      time.Duration
	Share    float64 // of its keyspace's load that a hot spot has on top
	Factor   float64
	Set      []setting // EventKeyspace, EventPolicy
	line     int
}

// Selector names nodes: one by its id, or all with a tier of the locality.
type Selector struct {
	ID   base.NodeID // 0: by the tier
	Tier allocator.Tier
}

func (s Selector) selects(n *Node) bool {
	if s.ID != 0 {
		return n.ID == s.ID
	}
	return hasTier(n, s.Tier.Key, s.Tier.Value)
}

func hasTier(n *Node, key, value string) bool {
	for _, t := range n.Locality {
		if t.Key == key && t.Value == value {
			return true
		}
	}
	return false
}

// setting is one key=value, with where it stands.
type setting struct{ key, value string }

// Expect is what must hold.
type Expect struct {
	At     time.Duration // negative: in the end
	Then   bool          // before the event of this number, or in the end if there is none
	Before int
	Text   string
	Scope  string // worst, total, or empty
	Metric string
	Arg    string
	Op     string
	Value  float64 // durations in seconds
	Bound  bool    // the value is so many times the lower bound
	line   int
}
