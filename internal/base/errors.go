package base

import (
	"errors"
	"fmt"
	"time"

	"github.com/cairndb/cairn/api/metapb"
)

// The errors of a request that reached a node and was not answered with a result. Each carries what the
// caller needs next; node/serve holds the one table from them to gRPC's status.

// NotLeader: this replica cannot serve the request, and nothing of it happened. Try Hint next, if there is one.
type NotLeader struct {
	Range       RangeID
	HintNode    NodeID // 0: not known
	HintReplica ReplicaID
}

func (e *NotLeader) Error() string {
	if e.HintNode == 0 {
		return fmt.Sprintf("%s: not the leader, and no leader is known", e.Range)
	}
	return fmt.Sprintf("%s: not the leader; try %s", e.Range, e.HintNode)
}

// RangeMoved: the request was sent to a range that does not hold its keys, or to a node that has no replica
// of it (Absent). Nothing happened. Descriptors are what the refuser knows.
type RangeMoved struct {
	Range       RangeID
	Descriptors []*metapb.RangeDescriptor
	Absent      bool
}

func (e *RangeMoved) Error() string {
	return fmt.Sprintf("%s: the keys are not here; %d descriptors enclosed", e.Range, len(e.Descriptors))
}

// SeveralRanges: a request that must lie in one range touches keys of more. Nothing happened. Descriptors are the range of its
// first key, and what is known of those behind it.
type SeveralRanges struct{ Descriptors []*metapb.RangeDescriptor }

func (e *SeveralRanges) Error() string {
	s := "the request touches keys of more than one range, and must lie in one"
	for i, d := range e.Descriptors {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		s += fmt.Sprintf("%s%s [%q, %q)", sep, RangeID(d.GetRangeId()), d.GetStart(), d.GetEnd())
	}
	return s
}

// NoKeyspace: there is no keyspace of that name. Nothing happened.
type NoKeyspace struct{ Name string }

func (e *NoKeyspace) Error() string {
	return fmt.Sprintf("there is no keyspace %s: see cairn keyspace ls, or make it with cairn keyspace create %[1]s", e.Name)
}

// KeyspaceDropped: the keyspace was dropped since the caller learnt its id, which is used for no other. Nothing happened.
type KeyspaceDropped struct{ Keyspace KeyspaceID }

func (e *KeyspaceDropped) Error() string { return "the keyspace was dropped: see cairn keyspace ls" }

// StaleGeneration: the descriptor has changed since the caller read it. Nothing happened.
type StaleGeneration struct {
	Range   RangeID
	Current *metapb.RangeDescriptor
}

func (e *StaleGeneration) Error() string {
	return fmt.Sprintf("%s: the descriptor changed, it is now at generation %d", e.Range, e.Current.GetGeneration())
}

// Ambiguous: the request may or may not have been carried out, and may still be.
type Ambiguous struct{ Cause error }

func (e *Ambiguous) Error() string { return fmt.Sprintf("the outcome is not known: %v", e.Cause) }
func (e *Ambiguous) Unwrap() error { return e.Cause }

// Fenced: this node may not serve, for the cluster has given it up or has not taken note of it yet. Nothing happened.
type Fenced struct{ Reason string }

func (e *Fenced) Error() string { return e.Reason }

// Throttled: a bound was reached and nothing happened; try again after RetryAfter.
type Throttled struct {
	What       string
	RetryAfter time.Duration
}

func (e *Throttled) Error() string {
	return fmt.Sprintf("%s: too much at once; retry after %s", e.What, e.RetryAfter)
}

// Corruption: stored bytes are not what was written. The store stops, and keeps the evidence.
type Corruption struct {
	Where string
	Cause error
}

func (e *Corruption) Error() string { return fmt.Sprintf("corrupt: %s: %v", e.Where, e.Cause) }
func (e *Corruption) Unwrap() error { return e.Cause }

// ErrStopped answers what reaches a part of a node that is being stopped.
var ErrStopped = errors.New("the node is stopping")

// RefusedFor is what is wrong with something that somebody asked for.
type RefusedFor uint8

// What can be wrong.
const (
	RefusedMalformed RefusedFor = iota // it cannot be meant as it stands
	RefusedUnknown                     // it names what does not exist
	RefusedState                       // it cannot be now
	RefusedChanged                     // what it rests on has changed since: look again
)

// Refused: what an operator asked for is not done, and nothing of it was begun. Instead is what would be possible.
type Refused struct {
	For             RefusedFor
	Reason, Instead string
}

func (e *Refused) Error() string {
	if e.Instead == "" {
		return e.Reason
	}
	return e.Reason + ": " + e.Instead
}
