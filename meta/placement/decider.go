// Package placement decides for the ranges that one index range lists, and sees each decision through.
//
// Where a range is to be is the planner's to say (allocator). A Decider knows what the planner needs, keeps a ledger of the
// decisions that are on their way, and says what is to be sent: a reservation to each node that is to take a replica, then a
// directive to the range's leader, both renewed until the range's descriptor shows that it is done, or the decision was given up and
// the leader follows it no more. It sends nothing itself and has no clock: it is handed what is known and what was answered, and told
// the time. It runs on the leader of the index range (node/placement); it remembers nothing that cannot be derived again, so that it
// may be lost at any time: a new one begins empty.
//
// Two Deciders may believe to decide for a range at once. A directive names the generation that was decided on, and the range's
// leader follows it only from there (change.Follower); a reservation names its decider, and the node counts them all (Reservations).
package placement

import (
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// Config is who decides.
type Config struct {
	Node base.NodeID
	// Life grows with each Decider that this node makes, over all its incarnations: directives and reservations of an older one
	// give way. incarnation<<16 | count does; it must be below 1<<40.
	Life uint64
	// Seed is for draws among places that are as good as each other.
	Seed uint64
	// Index is the keyspace that the index range is of, root or meta: nodes are asked for reports of what it may list.
	Index base.KeyspaceID
	// First says that nobody has decided for these ranges before, whose directives might still be followed: once every node has said
	// what it leads there is nothing to wait for. A new cluster has its replicas at once.
	First bool
}

// Action is something to be sent. One of Reserve, Direct and Report is set.
type Action struct {
	// Node is whom it goes to. Direct: the node that is believed to lead; 0: not known, and any replica's node can be asked.
	Node  base.NodeID
	Range base.RangeID // of Reserve and Direct
	Seq   uint64       // of the decision
	// Descriptor is the range as the decider knows it: where a directive can be sent.
	Descriptor *metapb.RangeDescriptor

	Reserve *rangepb.Reserve       // answered through Reserved; one with Release is not answered
	Direct  *rangepb.Directive     // answered through Directed
	Report  *rangepb.ReportRequest // answered through Reported
}

// EventKind is what became of a decision.
type EventKind uint8

// The kinds.
const (
	Decided   EventKind = iota // it was made
	Directed                   // the range's leader follows it
	Done                       // the descriptor shows it
	GivenUp                    // What says why
	Withdrawn                  // it was given up and nobody follows it any more: What says by whose word
	Held                       // something of a goal should be done, and has waited for long, or waits because many nodes fail: What says why
	Freed                      // what Held said no longer holds
)

func (k EventKind) String() string {
	return [...]string{"decided", "directed", "done", "given up", "withdrawn", "held", "freed"}[k]
}

// Event is for the log: each says what was decided, and why.
type Event struct {
	Kind       EventKind
	Range      base.RangeID // of Held: one of them, if it is only one
	Seq        uint64
	Generation base.Generation // that was decided on
	Goal       allocator.Goal
	What       string // what is to be done, or why it was given up or is held
	Reason     string
	Scores     []allocator.Score // of Decided
	Took       time.Duration     // of Done, GivenUp and Withdrawn
}

// Entry is a decision on its way.
type Entry struct {
	Range      base.RangeID
	Keyspace   base.KeyspaceID
	Seq        uint64
	Decision   allocator.Decision
	Since      base.Instant
	Reserved   []base.NodeID // that have granted a replica
	Directed   bool          // the range's leader follows it
	Doing      string        // the step that was taken last
	Waiting    string        // what the next one waits for
	Sent, Size uint64        // of a snapshot under way, in bytes
	Operation  uint64        // that it is for; 0: none
}

// Decider decides for the ranges of one index range. It is not safe for concurrent use.
type Decider struct {
	cfg    Config
	rand   *base.Rand
	snap   *allocator.Snapshot
	nodes  map[base.NodeID]*node
	ranges map[base.RangeID]*known
	ledger map[base.RangeID]*entry
	pauses map[base.RangeID]pause // ranges that are left alone for a while
	rises  []rise                 // in order

	policies []*metapb.PolicyRecord
	policy   allocator.Policy
	strained strain
	norm     norm
	wanted   map[base.RangeID]*metapb.Operation // relocations that go on
	stopping map[base.NodeID]uint64             // nodes that somebody is about to stop, and by which operation

	now      base.Instant // that it was told last
	seq      uint64
	told     bool         // of the nodes
	started  bool         // it was stepped
	decided  bool         // it has planned
	due      bool         // something has come that Step is to see
	planned  base.Instant // when it is to plan next
	last     base.Instant // when it did
	rests    base.Instant // since when nothing is decided and nothing under way; 0: something is
	withheld []allocator.Withheld
	held     map[allocator.Goal]waiting
	queue    []Action // to be returned by Step
	events   []Event
}

// New makes a Decider that knows nothing. It decides nothing before it was told the nodes, and base.DecideGrace has passed since
// its first Step.
func New(cfg Config) *Decider {
	d := &Decider{
		cfg: cfg, rand: base.NewRand(cfg.Seed), snap: allocator.NewSnapshot(), seq: cfg.Life << seqBits,
		nodes: make(map[base.NodeID]*node), ranges: make(map[base.RangeID]*known), ledger: make(map[base.RangeID]*entry),
		pauses: make(map[base.RangeID]pause), wanted: make(map[base.RangeID]*metapb.Operation), stopping: make(map[base.NodeID]uint64),
		held: make(map[allocator.Goal]waiting),
	}
	d.SetPolicies(nil)
	return d
}

// seqBits leaves a Decider sixteen million decisions: months of them.
const seqBits = 24
