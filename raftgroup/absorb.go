package raftgroup

import (
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// A range that another takes over ends on each node in the batch that applies the merge: its descriptor is gone from the store
// then, its keys are the other's, and its tombstone says that no replica of it will ever be here again. This file ends what a
// loop still has of it. What Raft kept of it goes with an Append, as that of every replica that ends does; a node that stops in
// between finds a replica below its tombstone, and does it when it starts.

// DeadForEver is a tombstone below which all replica ids lie: that of a range that was taken over, or whose keyspace was dropped.
const DeadForEver = base.ReplicaID(1) << 62

// tellEnded tells a sender whose range is no more. It may be one that waits for its first snapshot, and knows nobody else to ask.
func (l *Loop) tellEnded(m *Message, tombstone base.ReplicaID) {
	if tombstone != DeadForEver {
		return
	}
	l.eff.Messages = append(l.eff.Messages, Message{
		Range: m.Range, FromNode: l.cfg.Node, ToNode: m.FromNode, FromReplica: m.ToReplica, ToReplica: m.FromReplica, TooOld: tombstone,
	})
}

// absorbed ends the replica of a range that was taken over, by the descriptor that it had.
func (l *Loop) absorbed(id base.RangeID, d *metapb.RangeDescriptor, tombstone base.ReplicaID) {
	const why = "taken over by its left neighbour"
	if g := l.groups[id]; g != nil {
		// What was committed before the freeze is applied here, and told; nothing behind it has had an effect. So whoever waits may ask
		// the left one.
		l.eff.Failed = g.proposals.refuse(&base.RangeMoved{Range: id, Absent: true}, l.eff.Failed)
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
