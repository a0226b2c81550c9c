package operation

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
)

// World is what is known when it is looked how far an operation is.
type World struct {
	NowMicros int64        // Unix: what records are written with, and holds end by
	Now       base.Instant // of whoever looks
	Nodes     []*metapb.NodeRecord
	// Unknown says why what follows could not be found out; empty: it was.
	Unknown string
	Tally   *Tally                  // DECOMMISSION: of the stored descriptors
	Leads   map[uint64]Leads        // DRAIN: of the operation's nodes
	Bytes   map[uint64]uint64       // DECOMMISSION: on each of its nodes. RELOCATE: of the range, by its id
	Range   *metapb.RangeDescriptor // RELOCATE: as the range says itself; nil: there is none any more
	Leader  uint64                  // of that range; 0: none is known
	// Why is why what is left does not go on, as its deciders say; empty: they were not asked, or say nothing.
	Why string
}

// Leads is what one node says of the ranges that it leads.
type Leads struct {
	Ranges uint64
	Some   []uint64 // of them
	Silent string   // why it could not be asked; empty: it was
}

// Next says what is to be written, now that the world is so: how far the operation is, or its end. pace is kept by the caller, for as
// long as it carries the operation on.
func Next(op *metapb.Operation, w *World, pace *Pace) (Change, error) {
	switch {
	case !Active(op):
		return Change{}, nil
	case op.Kind == hold:
		if op.UntilUnixMicros <= w.NowMicros {
			return end(op, w, done, "its time is over"), nil
		}
		return Change{}, nil
	case op.State == paused:
		return Change{}, nil
	case w.Unknown != "":
		return report(op, w, pace, measure{unknown: w.Unknown}), nil
	}
	switch op.Kind {
	case drain:
		return nextDrain(op, w, pace), nil
	case decommission:
		return nextDecommission(op, w, pace)
	case relocate:
		return nextRelocate(op, w, pace), nil
	}
	return end(op, w, failed, "this version does not know what it is"), nil
}

// measure is how far an operation is.
type measure struct {
	left    uint64 // replicas or leaders
	bytes   uint64
	some    []uint64 // ranges that are left
	what    string   // what is left of them
	unknown string   // why it is not known, or why that is not the end
	// settling: nothing is left, and it is too early to rely on that.
	settling bool
}

// nextDrain: a node that leads nothing, as it says itself, is drained. One that has failed leads nothing: a majority supports it no more.
func nextDrain(op *metapb.Operation, w *World, pace *Pace) Change {
	m := measure{what: "leaders"}
	for _, id := range op.Nodes {
		r := byID(w.Nodes).find(id)
		if r == nil || gone(r) || r.State == metapb.NodeState_NODE_STATE_FAILED {
			continue
		}
		l := w.Leads[id]
		if l.Silent != "" {
			m.unknown = fmt.Sprintf("%s does not say what it leads: %s", base.NodeID(id), l.Silent)
		}
		m.left += l.Ranges
		m.some = append(m.some, l.Some...)
	}
	if m.left == 0 && m.unknown == "" {
		return end(op, w, done, Names(op.Nodes)+" led nothing at the end; drained until cairn node uncordon")
	}
	return report(op, w, pace, m)
}

// nextDecommission: a node on which no stored descriptor lists a replica has left. The descriptors count only if reading them began
// well after the node was marked: what was decided before may still have put a replica there.
func nextDecommission(op *metapb.Operation, w *World, pace *Pace) (Change, error) {
	if w.Tally == nil { // it was looked at, and the next look is soon
		return report(op, w, pace, measure{unknown: "the stored descriptors were not read yet"}), nil
	}
	var out Change
	m := measure{what: "replicas"}
	for _, id := range op.Nodes {
		r := byID(w.Nodes).find(id)
		if r == nil || gone(r) {
			continue
		}
		h, marked := w.Tally.Of(id), pace.Marked(r, w.Now)
		m.left += h.Replicas
		m.bytes += w.Bytes[id]
		m.some = append(m.some, h.Some...)
		switch {
		case h.Replicas > 0:
		case w.Tally.At < marked.Add(base.OperationSettle):
			m.settling = true
		default:
			left, err := apply(r, liveness.Left, fmt.Sprintf("operation %d: it held nothing any more", op.OpId), w.NowMicros)
			if err != nil {
				return Change{}, err
			}
			out.Nodes = append(out.Nodes, left)
		}
	}
	if m.left == 0 && !m.settling {
		out.Op = end(op, w, done, Names(op.Nodes)+" held nothing at the end and left for good: stop it, its store can be deleted").Op
		return out, nil
	}
	if m.settling = m.left == 0; m.settling {
		m.unknown = "nothing is left; it is looked once more in some seconds, for what was decided before the node was marked"
	}
	out.Op = report(op, w, pace, m).Op
	return out, nil
}

func nextRelocate(op *metapb.Operation, w *World, pace *Pace) Change {
	if w.Range == nil {
		return end(op, w, failed, fmt.Sprintf("%s is no more: it was merged into its left neighbour, or dropped", base.RangeID(op.RangeId)))
	}
	for _, id := range op.Voters {
		if r := byID(w.Nodes).find(id); r == nil || gone(r) {
			return end(op, w, failed, fmt.Sprintf("%s is no longer part of the cluster", base.NodeID(id)))
		}
	}
	m := measure{what: "replicas", some: []uint64{op.RangeId}}
	var voters []uint64
	for _, r := range w.Range.Replicas {
		if r.Role == metapb.ReplicaRole_REPLICA_ROLE_VOTER {
			voters = append(voters, r.NodeId)
		}
		if !slices.Contains(op.Voters, r.NodeId) {
			m.left++ // is to go
		}
	}
	for _, id := range op.Voters {
		if !slices.Contains(voters, id) {
			m.left++ // is to come, or to become one
			m.bytes += w.Bytes[op.RangeId]
		}
	}
	if op.Leader != 0 && w.Leader != op.Leader {
		m.left++
		if m.left == 1 {
			m.what = "leaders"
		}
	}
	if m.left == 0 {
		return end(op, w, done, fmt.Sprintf("%s is on %s at generation %d", base.RangeID(op.RangeId), Names(op.Voters), w.Range.Generation))
	}
	return report(op, w, pace, m)
}

// end is the operation's last record.
func end(op *metapb.Operation, w *World, state metapb.OperationState, outcome string) Change {
	return Change{Op: changed(op, w.NowMicros, func(op *metapb.Operation) {
		op.State, op.Outcome, op.Waiting, op.EstimateMicros = state, outcome, "", 0
		if state == done {
			op.Left, op.BytesLeft = 0, 0
		}
	})}
}

// report writes how far the operation is, if that is another than what stands there, and not too often.
func report(op *metapb.Operation, w *World, pace *Pace, m measure) Change {
	known := m.unknown == "" || m.settling
	if known {
		pace.Observe(w.Now, m.left, m.bytes)
	}
	waiting := ""
	switch {
	case m.unknown != "":
		waiting = "waiting because " + m.unknown
	case pace.Stalled(w.Now):
		waiting = "waiting because " + stalled(op, w, m)
	}
	next := changed(op, w.NowMicros, func(op *metapb.Operation) {
		op.Waiting = waiting
		if known {
			op.Left, op.BytesLeft = m.left, m.bytes
			op.Total, op.BytesTotal = max(op.Total, m.left), max(op.BytesTotal, m.bytes)
			op.EstimateMicros = pace.Estimate(w.Now)
		}
	})
	if proto.Equal(progress(next), progress(op)) || op.Total > 0 && next.Left == op.Left && next.Waiting == op.Waiting && !old(op, w) {
		return Change{}
	}
	return Change{Op: next}
}

// old says that a record is old enough to be written again for its estimate alone.
func old(op *metapb.Operation, w *World) bool {
	return w.NowMicros-op.ChangedUnixMicros >= base.OperationEstimateEvery.Microseconds()
}

// progress is a record without what changes with every writing.
func progress(op *metapb.Operation) *metapb.Operation {
	p := proto.CloneOf(op)
	p.Generation, p.ChangedUnixMicros = 0, 0
	return p
}

// stalled says why an operation that did not come on does not: what its deciders say, or what can be seen from here.
func stalled(op *metapb.Operation, w *World, m measure) string {
	rest := fmt.Sprintf("%d %s are left", m.left, m.what)
	if m.left == 1 {
		rest = fmt.Sprintf("1 %s is left", strings.TrimSuffix(m.what, "s"))
	}
	if len(m.some) > 0 {
		rest += fmt.Sprintf(", of %s first", base.RangeID(slices.Min(m.some)))
	}
	switch {
	case w.Why != "":
		return rest + ": " + w.Why
	case op.Kind == decommission && takers(&Known{Nodes: others(op, w.Nodes)}) == takers(&Known{}):
		return rest + ", and no other node takes new replicas: uncordon one, or add one"
	case len(m.some) > 0:
		return rest + fmt.Sprintf(", and nothing was decided about it yet: see cairn range why %s", base.RangeID(slices.Min(m.some)))
	}
	return rest + ", and nothing was decided about them yet"
}

func others(op *metapb.Operation, nodes []*metapb.NodeRecord) []*metapb.NodeRecord {
	return slices.DeleteFunc(slices.Clone(nodes), func(r *metapb.NodeRecord) bool { return slices.Contains(op.Nodes, r.NodeId) })
}
