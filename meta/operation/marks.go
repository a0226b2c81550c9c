package operation

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
)

// Cancel ends an operation and takes back what it made of its nodes. One that was cancelled already stays as it is.
func Cancel(op *metapb.Operation, nodes []*metapb.NodeRecord, nowMicros int64) (Change, error) {
	switch {
	case op.State == cancelled:
		return Change{}, nil
	case !Active(op):
		return Change{}, ended(op)
	}
	c, err := unmark(op, nodes, nowMicros, false)
	if err != nil {
		return Change{}, err
	}
	outcome := "cancelled"
	if op.Total > 0 {
		outcome = fmt.Sprintf("cancelled with %d of %d left", op.Left, op.Total)
	}
	if out := left(op, nodes); len(out) > 0 {
		outcome += "; " + Names(out) + " had left already, for good"
	}
	c.Op = changed(op, nowMicros, func(op *metapb.Operation) {
		op.State, op.Outcome, op.Waiting, op.EstimateMicros = cancelled, outcome, "", 0
	})
	return c, nil
}

// Pause stops what an operation moves until it is resumed. Its nodes still take nothing new: only what they have stays with them.
func Pause(op *metapb.Operation, nodes []*metapb.NodeRecord, nowMicros int64) (Change, error) {
	switch {
	case !Active(op):
		return Change{}, ended(op)
	case op.Kind == hold:
		return Change{}, &base.Refused{For: base.RefusedState, Reason: "a hold moves nothing: there is nothing to pause",
			Instead: fmt.Sprintf("end it with cairn op cancel %d", op.OpId)}
	case op.State == paused:
		return Change{}, nil
	}
	c, err := unmark(op, nodes, nowMicros, true)
	if err != nil {
		return Change{}, err
	}
	c.Op = changed(op, nowMicros, func(op *metapb.Operation) {
		op.State, op.Waiting, op.EstimateMicros = paused, pausedWhy(op), 0
	})
	return c, nil
}

func pausedWhy(op *metapb.Operation) string {
	return fmt.Sprintf("waiting because somebody paused it: go on with cairn op resume %d", op.OpId)
}

// Resume has an operation that was paused go on.
func Resume(op *metapb.Operation, nodes []*metapb.NodeRecord, nowMicros int64) (Change, error) {
	switch {
	case !Active(op):
		return Change{}, ended(op)
	case op.State == running:
		return Change{}, nil
	}
	var still []uint64 // those that have left have nothing more to do
	for _, id := range op.Nodes {
		if r := byID(nodes).find(id); r != nil && !gone(r) {
			still = append(still, id)
		}
	}
	going := proto.CloneOf(op)
	going.Nodes = still
	marked, err := mark(going, &Known{NowMicros: nowMicros, Nodes: nodes})
	if err != nil {
		return Change{}, err
	}
	return Change{Nodes: marked, Op: changed(op, nowMicros, func(op *metapb.Operation) { op.State, op.Waiting = running, "" })}, nil
}

// unmark takes the marks back that the operation made; half leaves the nodes cordoned.
func unmark(op *metapb.Operation, nodes []*metapb.NodeRecord, nowMicros int64, half bool) (c Change, err error) {
	reason := fmt.Sprintf("operation %d was cancelled", op.OpId)
	if half {
		reason = fmt.Sprintf("operation %d is paused", op.OpId)
	}
	for _, id := range op.Nodes {
		old := byID(nodes).find(id)
		if old == nil || gone(old) {
			continue
		}
		var undoes []liveness.Event
		switch {
		case op.Kind == decommission:
			undoes = append(undoes, liveness.Recommission)
		case op.Kind == drain && !slices.Contains(op.WereDraining, id):
			undoes = append(undoes, liveness.Undrain)
		}
		switch {
		case op.Kind != drain && op.Kind != decommission:
		case half:
			undoes = append(undoes, liveness.Cordon)
		case !slices.Contains(op.WereCordoned, id):
			undoes = append(undoes, liveness.Uncordon)
		}
		next, err := undo(old, undoes, reason, nowMicros)
		if err != nil {
			return Change{}, err
		}
		if !proto.Equal(old, next) {
			c.Nodes = append(c.Nodes, next)
		}
	}
	return c, nil
}

// Released is the change of an operation one of whose nodes is no longer marked, for somebody took that back by hand: it goes on
// with the others, or is cancelled if there are none.
func Released(op *metapb.Operation, node uint64, nowMicros int64) *metapb.Operation {
	return changed(op, nowMicros, func(op *metapb.Operation) {
		op.Nodes = slices.DeleteFunc(op.Nodes, func(id uint64) bool { return id == node })
		if len(op.Nodes) == 0 {
			op.Nodes = []uint64{node}
			op.State, op.Waiting, op.EstimateMicros = cancelled, "", 0
			op.Outcome = fmt.Sprintf("cancelled: somebody took it back for %s by hand", base.NodeID(node))
		}
	})
}

// left are the operation's nodes that have gone for good.
func left(op *metapb.Operation, nodes []*metapb.NodeRecord) (out []uint64) {
	for _, id := range op.Nodes {
		if r := byID(nodes).find(id); r != nil && gone(r) {
			out = append(out, id)
		}
	}
	return out
}

func ended(op *metapb.Operation) error {
	return &base.Refused{For: base.RefusedState, Reason: fmt.Sprintf("operation %d has ended: %s", op.OpId, State(op.State)), Instead: "begin another"}
}

// ChangeNode is what somebody makes of a node's record by hand.
func ChangeNode(r *metapb.NodeRecord, change clusterpb.NodeChange, nowMicros int64) (*metapb.NodeRecord, error) {
	event, ok := map[clusterpb.NodeChange]liveness.Event{
		clusterpb.NodeChange_NODE_CHANGE_CORDON: liveness.Cordon, clusterpb.NodeChange_NODE_CHANGE_UNCORDON: liveness.Uncordon,
		clusterpb.NodeChange_NODE_CHANGE_RECOMMISSION: liveness.Recommission, clusterpb.NodeChange_NODE_CHANGE_REMOVE: liveness.Removed,
	}[change]
	if !ok {
		return nil, malformed("this version does not know what is to be done with the node", "cordon, uncordon, recommission or remove it")
	}
	out, err := apply(r, event, "somebody said so", nowMicros)
	var refused *base.Refused
	if event == liveness.Removed && errors.As(err, &refused) && !gone(r) {
		refused.Instead = fmt.Sprintf("empty it with cairn node decommission %s; or, if it is dead, wait until it is suspect", base.NodeID(r.NodeId))
	}
	return out, err
}

// Undone says whether an operation's mark is no longer on a node of its.
func Undone(op *metapb.Operation, r *metapb.NodeRecord) bool {
	if op.State != running || !slices.Contains(op.Nodes, r.NodeId) {
		return false
	}
	switch op.Kind {
	case drain:
		return !r.Draining && !gone(r)
	case decommission:
		return r.State != metapb.NodeState_NODE_STATE_LEAVING && !gone(r)
	}
	return false
}
