package operation

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
)

// Known is what an operation is begun upon.
type Known struct {
	NowMicros  int64 // Unix
	Operations []*metapb.Operation
	Nodes      []*metapb.NodeRecord
	// Range is the one that is to be relocated, as it is; nil: there is none of that id.
	Range *metapb.RangeDescriptor
}

// Start says what is to be written to begin an operation, whose id is drawn. If the same was asked for before and goes on, that one is
// returned as it is. An error is a *base.Refused. What would be lost is not looked at here: see node/operate, which has a planner judge it.
func Start(asked *metapb.Operation, id uint64, k *Known) (Change, error) {
	op := &metapb.Operation{
		OpId: id, Generation: 1, Kind: asked.Kind, State: running, Nodes: sorted(asked.Nodes), RangeId: asked.RangeId, Voters: sorted(asked.Voters),
		Leader: asked.Leader, CreatedUnixMicros: k.NowMicros, ChangedUnixMicros: k.NowMicros, UntilUnixMicros: asked.UntilUnixMicros,
	}
	if err := wellFormed(op, len(asked.Voters), k); err != nil {
		return Change{}, err
	}
	for _, other := range k.Operations {
		if !ActiveAt(other, k.NowMicros) {
			continue
		}
		if same(op, other) {
			return Change{Op: other}, nil
		}
		if why := fights(op, other); why != "" {
			return Change{}, &base.Refused{For: base.RefusedState, Reason: why,
				Instead: fmt.Sprintf("wait until it has ended (cairn op watch %d), or end it (cairn op cancel %[1]d)", other.OpId)}
		}
	}
	for _, id := range op.Nodes {
		switch r := byID(k.Nodes).find(id); {
		case r.Draining:
			op.WereDraining = append(op.WereDraining, id)
			fallthrough
		case r.Cordoned:
			op.WereCordoned = append(op.WereCordoned, id)
		}
	}
	nodes, err := mark(op, k)
	if err != nil {
		return Change{}, err
	}
	return Change{Op: op, Nodes: nodes}, nil
}

// wellFormed: it says what its kind needs, and speaks of nodes and ranges that there are.
func wellFormed(op *metapb.Operation, voters int, k *Known) error {
	switch op.Kind {
	case drain, decommission, hold:
		if len(op.Nodes) == 0 {
			return malformed("no node is named", "name one or more: "+byID(k.Nodes).there())
		}
		if len(op.Nodes) > base.OperationNodes {
			return malformed(fmt.Sprintf("%d nodes are too many for one operation", len(op.Nodes)), fmt.Sprintf("name at most %d", base.OperationNodes))
		}
		if op.Kind == hold && op.UntilUnixMicros <= k.NowMicros {
			return malformed("a hold ends at a time to come", "give how long the nodes will be away")
		}
		return exist(op.Nodes, k)
	case relocate:
	default:
		return malformed(fmt.Sprintf("an operation of the kind %d is not known to this version", op.Kind), "upgrade the node that was asked, or ask another")
	}
	switch {
	case k.Range == nil:
		return &base.Refused{For: base.RefusedUnknown, Reason: fmt.Sprintf("there is no range %s", base.RangeID(op.RangeId)), Instead: "see cairn range ls"}
	case len(op.Voters) == 0:
		return malformed("no node is named", "name all nodes that are to hold the range: "+byID(k.Nodes).there())
	case len(op.Voters) != voters:
		return malformed("a node is named twice", "name each node that is to hold the range once")
	case len(op.Voters) > base.MaxVoters:
		return malformed(fmt.Sprintf("%d voters are more than a range can have", len(op.Voters)), fmt.Sprintf("name at most %d nodes", base.MaxVoters))
	case op.Leader != 0 && !slices.Contains(op.Voters, op.Leader):
		return malformed(fmt.Sprintf("%s is to lead and not to hold the range", base.NodeID(op.Leader)), "choose the leader among "+Names(op.Voters))
	}
	if err := exist(op.Voters, k); err != nil {
		return err
	}
	for _, id := range op.Voters {
		holds := slices.ContainsFunc(k.Range.Replicas, func(r *metapb.Replica) bool { return r.NodeId == id })
		if why := takesNothing(byID(k.Nodes).find(id)); why != "" && !holds {
			return &base.Refused{For: base.RefusedState, Reason: fmt.Sprintf("%s takes no new replica: %s", base.NodeID(id), why), Instead: "choose others: " + takers(k)}
		}
	}
	return nil
}

func malformed(reason, instead string) error {
	return &base.Refused{For: base.RefusedMalformed, Reason: reason, Instead: instead}
}

// exist: all of these nodes are in the cluster.
func exist(ids []uint64, k *Known) error {
	for _, id := range ids {
		r := byID(k.Nodes).find(id)
		switch {
		case r == nil:
			return &base.Refused{For: base.RefusedUnknown, Reason: fmt.Sprintf("there is no node %s", base.NodeID(id)), Instead: "there are " + byID(k.Nodes).there()}
		case gone(r):
			return &base.Refused{For: base.RefusedState, Reason: fmt.Sprintf("%s is %s, for good", base.NodeID(id), liveness.StateName(r.State)),
				Instead: "there are " + byID(k.Nodes).there()}
		}
	}
	return nil
}

// takesNothing says why a node is given no new replica; empty: it is.
func takesNothing(r *metapb.NodeRecord) string {
	switch {
	case r.State != metapb.NodeState_NODE_STATE_ACTIVE:
		return "it is " + liveness.StateName(r.State)
	case r.Draining:
		return "it is drained"
	case r.Cordoned:
		return "it is cordoned"
	}
	return ""
}

// takers are the nodes that take new replicas.
func takers(k *Known) string {
	var ids []uint64
	for _, r := range k.Nodes {
		if takesNothing(r) == "" {
			ids = append(ids, r.NodeId)
		}
	}
	if len(ids) == 0 {
		return "there is none now, uncordon one or add one"
	}
	return Names(sorted(ids))
}

// same says whether two operations ask for the same. Two holds never are: each is somebody's own.
func same(a, b *metapb.Operation) bool {
	return a.Kind == b.Kind && a.Kind != hold && slices.Equal(a.Nodes, b.Nodes) && a.RangeId == b.RangeId && slices.Equal(a.Voters, b.Voters) && a.Leader == b.Leader
}

// fights says why an operation cannot be begun while another goes on; empty: it can. What would be undone, or could never end,
// fights. A hold and a drain of the same nodes do not, nor two holds: those are judged together (SafeToStop).
func fights(op, other *metapb.Operation) string {
	is := fmt.Sprintf("operation %d (%s) goes on", other.OpId, Describe(other))
	switch {
	case op.Kind == relocate && other.Kind == relocate:
		if op.RangeId == other.RangeId {
			return is + ", and wants the range elsewhere"
		}
	case op.Kind == relocate:
		if both := overlap(op.Voters, other.Nodes); len(both) > 0 && (other.Kind != drain || slices.Contains(both, op.Leader)) {
			return fmt.Sprintf("%s, and %s is to hold the range", is, Names(both))
		}
	case other.Kind == relocate:
		if both := overlap(op.Nodes, other.Voters); len(both) > 0 && (op.Kind == decommission || op.Kind == drain && slices.Contains(both, other.Leader)) {
			return fmt.Sprintf("%s, and wants the range on %s", is, Names(both))
		}
	case op.Kind == hold || other.Kind == hold:
		if both := overlap(op.Nodes, other.Nodes); len(both) > 0 && (op.Kind == decommission || other.Kind == decommission) {
			return fmt.Sprintf("%s: nothing can be moved away from %s while it is stopped", is, Names(both))
		}
	default:
		if both := overlap(op.Nodes, other.Nodes); len(both) > 0 {
			return fmt.Sprintf("%s, and concerns %s too", is, Names(both))
		}
	}
	return ""
}

// mark is what an operation that begins, or goes on, makes of its nodes' records.
func mark(op *metapb.Operation, k *Known) (out []*metapb.NodeRecord, err error) {
	for _, id := range op.Nodes {
		old := byID(k.Nodes).find(id)
		next := old
		reason := fmt.Sprintf("operation %d: %s", op.OpId, Describe(op))
		switch op.Kind {
		case drain:
			next, err = apply(old, liveness.Drain, reason, k.NowMicros)
		case decommission:
			next, err = apply(old, liveness.Leave, reason, k.NowMicros)
		}
		if err != nil {
			return nil, err
		}
		if !proto.Equal(old, next) {
			out = append(out, next)
		}
	}
	return out, nil
}
