package change

import (
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// Orphaned says whether a replica, which hears of no leader, was removed from its range, by what the index says of the
// range: a newer descriptor than its own that does not list it. below is then the id below which replicas on its node
// are dead. The index may be behind, so that it does not say otherwise is no proof that the replica is a member.
//
// This is how a replica finds out that was away while it was removed and while all those moved on that it knows; as long
// as it knows one that is still there, or one whose place another took, that one tells it.
func Orphaned(own *metapb.RangeDescriptor, replica base.ReplicaID, node base.NodeID, indexed *metapb.RangeDescriptor) (below base.ReplicaID, ok bool) {
	if indexed.GetRangeId() != own.GetRangeId() || indexed.GetGeneration() <= own.GetGeneration() || desc.Replica(indexed, replica) != nil {
		return 0, false
	}
	if r := desc.ReplicaOn(indexed, node); r != nil {
		return base.ReplicaID(r.ReplicaId), true // another has come in its place, and does not know of it
	}
	return base.ReplicaID(indexed.NextReplicaId), true
}

// Remnant says whether a replica, which hears of no leader, is what is left of a range that its neighbour has taken over: its first
// key is another range's now, which no range's first key becomes in any other way. left is the replica on this node, if there is
// one, of the range for which this one is frozen: as long as that may still come to apply the merge, it needs this one.
func Remnant(own, left, indexed *metapb.RangeDescriptor) bool {
	if indexed == nil || indexed.RangeId == own.GetRangeId() || indexed.Generation <= own.GetGeneration() ||
		!desc.Contains(indexed, base.KeyspaceID(own.KeyspaceId), own.Start) {
		return false
	}
	f := own.GetFrozen()
	return f == nil || left == nil || left.RangeId != f.IntoRangeId || left.Generation > f.IntoGeneration
}
