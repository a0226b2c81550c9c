package sim

import "time"

// PlanVersion is the version of Plan's JSON. A file of another version is refused by name: what it would mean now is not
// what failed then.
const PlanVersion = 1

// Plan is everything that a run is made from. Draw makes one from a seed; a failing one is shrunk and kept as a file that
// a test replays. What a plan does not say is drawn from Seed, each purpose from a stream of its own, so that leaving a
// fault out changes as little else as can be.
type Plan struct {
	Version  int
	Seed     uint64
	Nodes    int           // all of them; the first three hold the ranges at the beginning
	Ranges   int           // that clients use, each a keyspace of its own
	Clients  int           // of each range
	Length   time.Duration // of the phase under faults, in simulated time
	Ops      int           // at most, of all clients together
	Think    time.Duration // mean pause of a client between two operations
	Pebble   bool          // the engine of the product on a file system in memory, instead of the ordered map
	Workload []string      // one name for each range

	ColdAfter time.Duration // how long nothing must happen to a replica before it goes cold; 0: the product's own

	// Alone: the clients' ranges begin with one replica each, as in a new cluster; faults that move them give them three.
	Alone bool `json:",omitempty"`

	// Allocator: replicas are placed by the product's deciders. Spare of the nodes, the last ones, are no members at the beginning.
	Allocator bool `json:",omitempty"`
	Spare     int  `json:",omitempty"`

	LogKeep int // entries that a log keeps: small ones make snapshots frequent

	Network NetworkPlan
	Disk    DiskPlan
	Clock   []ClockPlan // of each node
	Faults  []Fault     // in order of At
}

// NetworkPlan is how links behave when nothing is wrong with them beyond what is said here, all the time.
type NetworkPlan struct {
	Delay  time.Duration // the least, one way
	Jitter time.Duration // mean of the exponential part on top of it
	// In a million frames. Duplicates and reordering befall Raft's frames alone: the control class runs over streams.
	Loss, Duplicate, Reorder int
}

// DiskPlan is how long a sync takes.
type DiskPlan struct {
	Sync   time.Duration // the least
	Jitter time.Duration // mean of the exponential part on top of it
	Apply  time.Duration // from a commit to its evaluation, mean
}

// ClockPlan is a node's clock against true time.
type ClockPlan struct {
	Offset time.Duration
	Drift  int // parts in a million, positive: it runs fast
}

// FaultKind names a fault. See the table in faults.go for the class (F01 … F16) that each belongs to.
type FaultKind string

// Fault is one thing that goes wrong at At and is well again after For (0: it is of a moment, or lasts until the heal).
type Fault struct {
	Kind  FaultKind
	At    time.Duration
	For   time.Duration
	Node  int   // 0 … Nodes-1; what it befalls, or Leader
	Peers []int // for those between nodes: the other side
	Range int   // for those that look for a range's leader or change its replicas: an index below Ranges
	// Amount is in the fault's own unit: percent of unsynced writes lost, milliseconds of a clock's step, frames in a
	// million. See its row.
	Amount int64
}

// Leader as a Fault's Node means the node that leads its Range when it happens.
const Leader = -1
