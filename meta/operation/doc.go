// Package operation is what becomes of something that a person asked for: a drain, a decommission, a range that is wanted elsewhere,
// a hold. It is stepped and pure: the stored records and what is known of nodes and ranges go in, and records that are to be
// written come out. Whoever leads `sys` runs it (node/operate), and whoever leads it next goes on from the records alone.
//
// An operation moves nothing itself. It marks nodes, or is there to be read; the planners see the marks and the operations
// (meta/placement). It ends when the stored descriptors say so, or when somebody cancels it.
//
// An operation and the marks that it makes on nodes' records change in one transaction. So no moment has the one without the other,
// and there is nothing to be put right after a failure in the middle.
package operation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
)

// The kinds and states, by shorter names.
const (
	drain        = metapb.OperationKind_OPERATION_KIND_DRAIN
	decommission = metapb.OperationKind_OPERATION_KIND_DECOMMISSION
	relocate     = metapb.OperationKind_OPERATION_KIND_RELOCATE
	hold         = metapb.OperationKind_OPERATION_KIND_HOLD

	running   = metapb.OperationState_OPERATION_STATE_RUNNING
	paused    = metapb.OperationState_OPERATION_STATE_PAUSED
	done      = metapb.OperationState_OPERATION_STATE_DONE
	cancelled = metapb.OperationState_OPERATION_STATE_CANCELLED
	failed    = metapb.OperationState_OPERATION_STATE_FAILED
)

// Change is what is to be written, all of it or nothing.
type Change struct {
	Op    *metapb.Operation    // nil: as it is
	Nodes []*metapb.NodeRecord // that change; those that do not are not in it
}

// Nothing says whether there is nothing to write.
func (c Change) Nothing() bool { return c.Op == nil && len(c.Nodes) == 0 }

// Active says whether an operation has not ended.
func Active(op *metapb.Operation) bool { return op.State == running || op.State == paused }

// ActiveAt is the same for a moment: a hold ends by itself.
func ActiveAt(op *metapb.Operation, nowMicros int64) bool {
	return Active(op) && (op.Kind != hold || op.UntilUnixMicros > nowMicros)
}

// Kind is an operation's, for people.
func Kind(k metapb.OperationKind) string { return lower("OPERATION_KIND_", k.String()) }

// State is an operation's, for people.
func State(s metapb.OperationState) string { return lower("OPERATION_STATE_", s.String()) }

func lower(prefix, name string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

// Describe is what an operation does, in a few words: decommission n3, n4.
func Describe(op *metapb.Operation) string {
	if op.Kind != relocate {
		return Kind(op.Kind) + " " + Names(op.Nodes)
	}
	s := fmt.Sprintf("relocate %s to %s", base.RangeID(op.RangeId), Names(op.Voters))
	if op.Leader != 0 {
		s += fmt.Sprintf(", led by %s", base.NodeID(op.Leader))
	}
	return s
}

// Names lists nodes as people do: n1, n2.
func Names(nodes []uint64) string {
	parts := make([]string, len(nodes))
	for i, n := range nodes {
		parts[i] = base.NodeID(n).String()
	}
	return strings.Join(parts, ", ")
}

// Held are the nodes that somebody may be stopping now: they are given nothing new, and what they hold is not replaced while they
// are away. Their leaders stay where they are: a node that is stopped hands them over itself.
func Held(ops []*metapb.Operation, nowMicros int64) []uint64 {
	var out []uint64
	for _, op := range ops {
		if op.Kind == hold && ActiveAt(op, nowMicros) {
			out = append(out, op.Nodes...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// sorted returns ids ascending, each once.
func sorted(ids []uint64) []uint64 {
	out := slices.Clone(ids)
	slices.Sort(out)
	return slices.Compact(out)
}

// overlap are the ids that two ascending lists have in common.
func overlap(a, b []uint64) (out []uint64) {
	for _, id := range a {
		if _, ok := slices.BinarySearch(b, id); ok {
			out = append(out, id)
		}
	}
	return out
}

// changed returns op as it is to be written: the record after the one that was read.
func changed(op *metapb.Operation, nowMicros int64, f func(*metapb.Operation)) *metapb.Operation {
	next := proto.CloneOf(op)
	f(next)
	next.Generation, next.ChangedUnixMicros = op.Generation+1, max(nowMicros, op.ChangedUnixMicros)
	return next
}

// byID finds records of nodes.
type byID []*metapb.NodeRecord

func (b byID) find(id uint64) *metapb.NodeRecord {
	if i := slices.IndexFunc(b, func(r *metapb.NodeRecord) bool { return r.NodeId == id }); i >= 0 {
		return b[i]
	}
	return nil
}

// there are the nodes that can be spoken of: those that have not gone for good.
func (b byID) there() string {
	var ids []uint64
	for _, r := range b {
		if !gone(r) {
			ids = append(ids, r.NodeId)
		}
	}
	slices.SortFunc(ids, cmp.Compare)
	return Names(ids)
}

func gone(r *metapb.NodeRecord) bool { return liveness.Gone(r.State) }
