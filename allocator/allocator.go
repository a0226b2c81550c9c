// Package allocator decides where replicas and leaders are to be. It is one planner, and it is pure: what is known of nodes and
// ranges goes in (Snapshot), what is to be done comes out (Decide), each decision with its reason, the places that were compared,
// and the generation of the range that it was made for. Whoever carries it out refuses it if the range has another by then.
//
// It imports internal/base and the standard library alone. The same planner decides in a live cluster (meta/placement), answers
// what-if questions, and is measured over clusters that do not exist.
package allocator

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// Tier is one step of a node's place in the world, outermost first: region=eu, zone=a.
type Tier struct{ Key, Value string }

// NodeState is what a node counts for.
type NodeState uint8

// The states, as in metapb.NodeState. A node that is not Active takes nothing new.
const (
	Joining NodeState = iota
	Active
	Suspect // it may be gone: nothing is moved yet
	Failed  // what it holds is replaced
	Leaving // what it holds is moved away
	Left    // it holds nothing; a replica that is listed there is to be removed
)

// Node is what is known of a node.
type Node struct {
	ID         base.NodeID
	Locality   []Tier
	Attributes []string
	State      NodeState
	Cordoned   bool // it takes nothing new
	Draining   bool // it is to lead nothing
	// Suspected is for how long the node has been suspect; 0: it is not.
	Suspected time.Duration
	// Slow says why the node is held to be slow; empty: it is not.
	Slow string
	// SlowFor is for how long it has been slow.
	SlowFor time.Duration
	// Strained says why the node takes part in no further move now, such as writes that take long; empty: it does.
	Strained string
	// Weight is its share of replicas and of bytes: a node of weight 2 is to hold twice as much as one of 1. 0: 1. LeadWeight is its
	// share of leaders and of the load that they serve, 0: as Weight. What a node can hold is its disk's to say, what it can serve is not.
	Weight, LeadWeight float64
	// DiskBytes is what its disk holds, DiskUsed what of that is taken; 0: not known.
	DiskBytes, DiskUsed int64
}

// Role is what a replica is.
type Role uint8

// The roles, as in metapb.ReplicaRole.
const (
	Voter Role = iota
	Learner
	Incoming
	Outgoing
)

// Replica is one range's copy on one node.
type Replica struct {
	Node base.NodeID
	Role Role
}

// Range is what is known of a range. Its slices are copied by whoever keeps them.
type Range struct {
	ID         base.RangeID
	Keyspace   base.KeyspaceID
	Generation base.Generation
	Replicas   []Replica
	Leader     base.NodeID // 0: not known
	Bytes      int64
	Load       float64 // requests per second that the leader serves
	// Behind are nodes whose replica is down, or has not caught up, as the leader says.
	Behind []base.NodeID
	// Busy says why nothing is to be decided for the range now, such as a merge; empty: something may.
	Busy string
	// Wanted are the nodes that somebody asked for (an operation); nil: the planner's choice. WantedLeader likewise.
	Wanted       []base.NodeID
	WantedLeader base.NodeID
}

// ConstraintKind is what a constraint asks for.
type ConstraintKind uint8

// The kinds.
const (
	Required  ConstraintKind = iota // +
	Forbidden                       // -
	Preferred                       // ~
)

// Constraint says on which nodes replicas, or leaders, are to be. Key is a locality tier's; empty: Value is an attribute.
// Replicas is how many of them it is about; 0: all.
type Constraint struct {
	Kind       ConstraintKind
	Key, Value string
	Replicas   int
}

// Placement is where a keyspace's ranges are to be.
type Placement struct {
	Replicas int // voters
	// AtLeast is how many voters will do where there are too few nodes for Replicas; 0: Replicas.
	AtLeast     int
	Constraints []Constraint
	Leaders     []Constraint // preferences: the first that some voter meets counts
	// FailedAfter is how long a node is suspect before what it holds of this keyspace is replaced.
	FailedAfter time.Duration
}

// Policy is what Decide holds to. Placement of a keyspace that is not in Keyspaces is Default.
type Policy struct {
	Default   Placement
	Keyspaces map[base.KeyspaceID]Placement

	MovesPerNode int     // replicas that come to, or leave, one node at once
	Moves        int     // at once, of this decider
	Imbalance    float64 // how far a node may be from the mean before something is moved for balance: 0.05
	NoBalance    bool
	// FailedShare is the share of nodes that may be suspect or failed at once before nothing is replaced any more; above half of
	// it replacements are slow. FailedTier is a locality tier whose values are looked at in the same way each by itself:
	// a whole zone that is gone at once is a fault of the network until somebody says otherwise, by a tier that no node has.
	FailedShare float64
	FailedTier  string
	// SlowAfter is how long a node is slow before its replicas leave it too, and SlowShare the share of nodes that may be slow for
	// that to happen: if many are, it is not the nodes.
	SlowAfter time.Duration
	SlowShare float64
}

// Goal is what a decision serves. The order is the order in which they are looked at.
type Goal uint8

// The goals.
const (
	GoalNone       Goal = iota
	GoalJoint           // leave a joint configuration that was left behind, finish or undo a learner
	GoalQuorum          // a majority of voters is in danger
	GoalWanted          // somebody asked for it
	GoalReplace         // of a replica on a node that has failed or left
	GoalDrain           // nodes that leave, and leaders of nodes that drain
	GoalFactor          // as many replicas as the policy says
	GoalConstraint      // where the policy says
	GoalDiversity       // far apart from each other
	GoalBalance         // as much on one node as on another
	GoalLeader          // leaders where they are preferred, and as many on one node as on another
	GoalSplit           // hot ranges are cut or shed
)

// Score is one place that was compared, and how good it would be: lower is better.
type Score struct {
	Node base.NodeID
	// Against is why the node cannot be; empty: it could.
	Against string
	Score   float64
	Parts   string // what the score is made of, for people
}

// Decision is one thing to be done with one range.
type Decision struct {
	Range      base.RangeID
	Generation base.Generation // that it was made for
	Goal       Goal
	// Voters is where the range's voters are to be, ascending; nil: where they are. Adds and Removes are the difference.
	Voters        []base.NodeID
	Adds, Removes []base.NodeID
	Leader        base.NodeID // who is to lead; 0: anyone of them
	Bytes         int64       // that a new replica brings to its node
	Reason        string
	Scores        []Score
}

// Withheld is why something that should be done is not.
type Withheld struct {
	Range  base.RangeID // 0: of no one range
	Goal   Goal
	Reason string
	Count  int  // of ranges, if it is of many
	Guard  bool // so many nodes fail together that nothing of the goal is to be begun
}
