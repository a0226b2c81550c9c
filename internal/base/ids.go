// Package base is the vocabulary floor: the identifiers, errors, limits and the random source that every
// other package speaks in. It imports the standard library and the generated messages of api.
package base

import (
	"fmt"
	"time"
)

// NodeID names a node for the life of the cluster. It is never used twice; 0 is no node.
type NodeID uint64

// RangeID names a range for the life of the cluster; 0 is no range.
type RangeID uint64

// ReplicaID names one replica of one range, and is that replica's Raft id. It is never used twice in a range.
type ReplicaID uint64

// KeyspaceID names a keyspace; see the constants.
type KeyspaceID uint64

// Incarnation counts the starts of a node's process. It is durable before the process says its first word.
type Incarnation uint64

// Revision is the version of a write in a range, strictly increasing.
type Revision int64

// Generation counts the changes of a range's descriptor.
type Generation uint64

// The keyspaces that every cluster has.
const (
	KeyspaceRoot    KeyspaceID = 1 // indexes meta; one range that never splits
	KeyspaceMeta    KeyspaceID = 2 // indexes every other keyspace's ranges
	KeyspaceSys     KeyspaceID = 3 // nodes, counters, operations
	KeyspaceDefault KeyspaceID = 4 // what etcd's clients see: single, counts revisions as etcd does
)

// FirstFreeID is the lowest id of a keyspace or range that is not one of every cluster's.
const FirstFreeID = 100

// The ranges that bootstrap makes, one for each keyspace that every cluster has.
const (
	RangeRoot    RangeID = 1
	RangeMeta    RangeID = 2
	RangeSys     RangeID = 3
	RangeDefault RangeID = 4
)

// String is the keyspace's name.
func (k KeyspaceID) String() string {
	switch k {
	case KeyspaceRoot:
		return "root"
	case KeyspaceMeta:
		return "meta"
	case KeyspaceSys:
		return "sys"
	case KeyspaceDefault:
		return "default"
	}
	if k.Single() {
		return fmt.Sprintf("ks%ds", uint64(k&^singleKeyspace))
	}
	return fmt.Sprintf("ks%d", uint64(k))
}

// singleKeyspace is set in the id of a keyspace that somebody made as a single one: what a keyspace is must be known wherever a
// command is applied, and never changes.
const singleKeyspace KeyspaceID = 1 << 62

// AsSingle is the id of a single keyspace that is made with the number k.
func (k KeyspaceID) AsSingle() KeyspaceID { return k | singleKeyspace }

// Number is what the keyspace's id was drawn as.
func (k KeyspaceID) Number() uint64 { return uint64(k &^ singleKeyspace) }

// Single says whether the keyspace is one range for ever, whose revisions count 1, 2, 3, … as etcd's do.
func (k KeyspaceID) Single() bool { return k == KeyspaceDefault || k&singleKeyspace != 0 }

// Splits says whether the keyspace may be cut into ranges. `sys` may not: a node's record and the counter of the nodes' ids change
// in one transaction, which must lie in one range.
func (k KeyspaceID) Splits() bool { return k != KeyspaceRoot && k != KeyspaceSys && !k.Single() }

func (n NodeID) String() string    { return fmt.Sprintf("n%d", uint64(n)) }
func (r RangeID) String() string   { return fmt.Sprintf("r%d", uint64(r)) }
func (r ReplicaID) String() string { return fmt.Sprintf("%d", uint64(r)) }

// Instant is a point on a node's own monotonic clock: nanoseconds since an arbitrary start. The core is
// handed instants and never reads a clock; instants of two nodes cannot be compared.
type Instant int64

// Add returns i moved by d.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Never is later than every instant that comes.
const Never Instant = 1<<63 - 1
