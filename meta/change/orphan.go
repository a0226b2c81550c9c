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
