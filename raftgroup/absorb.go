package raftgroup

import (
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// A range that another takes over ends on each node in the batch that applies the merge: its descriptor is gone from the store
// then, its keys are the other's, and its tombstone says that no replica of it will ever be here again. This file ends what a
// loop still has of it. What Raft kept of it goes with an Append, as that of every replica that ends does; a node that stops in
// between finds a replica below its tombstone, and does it when it starts.

// absorbed ends the replica of a range that was taken over, by the descriptor that it had.
func (l *Loop) absorbed(id base.RangeID, d *metapb.RangeDescriptor, tombstone base.ReplicaID) {
	const why = "taken over by its left neighbour"
	if g := l.groups[id]; g != nil {
		l.destroy(g, tombstone, why)
		return
	}
	r := l.cold[id]
	if r == nil {
		return
	}
	delete(l.cold, id)
	if r.leading {
		l.leaders--
	}
	l.bury(id, tombstone)
	// Observers know no descriptor of a cold one.
	known := StateChange{Range: id, Replica: r.replica, Term: r.term, Leader: r.lead, LeaderNode: r.fort.node, Descriptor: d, Thawed: true}
	gone := StateChange{Range: id, Replica: r.replica, Destroyed: true, Descriptor: d, Reason: why}
	l.eff.Changes = append(l.eff.Changes, known, gone)
}

// bury deletes what the store has of a replica that is in no group.
func (l *Loop) bury(id base.RangeID, tombstone base.ReplicaID) {
	l.buried[id] = tombstone
	l.eff.Appends = append(l.eff.Appends, Append{Range: id, Destroy: tombstone})
}
