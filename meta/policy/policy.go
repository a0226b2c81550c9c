// Package policy is how a cluster is looked after: what somebody set, what stands where nobody did, and how both are written by people.
//
// A record is stored for the cluster (keyspace 0) and for each keyspace that somebody gave one. A zero is "the default": of a keyspace
// what the cluster's record says, of the cluster what stands in internal/base/limits.go. So what nobody set follows a new version's
// defaults.
package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Cluster is the cluster's record with every default filled in. stored may be nil.
func Cluster(stored *metapb.PolicyRecord) *metapb.PolicyRecord {
	p := &metapb.PolicyRecord{}
	if stored != nil {
		p = proto.CloneOf(stored)
	}
	if p.Placement == nil {
		p.Placement = &metapb.PlacementPolicy{}
	}
	if p.Cluster == nil {
		p.Cluster = &metapb.ClusterPolicy{}
	}
	c := p.Cluster
	p.Placement.Replicas = cmp.Or(p.Placement.Replicas, base.PolicyReplicas)
	c.FailedAfterMillis = cmp.Or(c.FailedAfterMillis, uint64(base.FailedAfter.Milliseconds()))
	c.FailedAfterOwnMillis = cmp.Or(c.FailedAfterOwnMillis, uint64(base.FailedAfterOwn.Milliseconds()))
	c.FailedSharePermille = cmp.Or(c.FailedSharePermille, base.PolicyFailedSharePermille)
	c.MovesPerNode = cmp.Or(c.MovesPerNode, base.PolicyMovesPerNode)
	c.Moves = cmp.Or(c.Moves, base.PolicyMoves)
	c.SnapshotBytesPerSecond = cmp.Or(c.SnapshotBytesPerSecond, base.SnapshotBytesPerSecond)
	c.PauseLatencyPermille = cmp.Or(c.PauseLatencyPermille, base.PolicyPauseLatencyPermille)
	c.ImbalancePermille = cmp.Or(c.ImbalancePermille, base.PolicyImbalancePermille)
	return p
}

// Keyspace is a keyspace's record with what it leaves open filled in from the cluster's. Both may be nil.
func Keyspace(ks base.KeyspaceID, stored, cluster *metapb.PolicyRecord) *metapb.PolicyRecord {
	c := Cluster(cluster)
	p := &metapb.PolicyRecord{KeyspaceId: uint64(ks)}
	if stored != nil {
		p = proto.CloneOf(stored)
	}
	if p.Placement == nil {
		p.Placement = &metapb.PlacementPolicy{}
	}
	p.Placement.Replicas = cmp.Or(p.Placement.Replicas, c.Placement.Replicas)
	if len(p.Placement.Constraints) == 0 {
		p.Placement.Constraints = c.Placement.Constraints
	}
	if len(p.Placement.Leaders) == 0 {
		p.Placement.Leaders = c.Placement.Leaders
	}
	return p
}

// Of finds a keyspace's record among all; nil: it has none.
func Of(all []*metapb.PolicyRecord, ks base.KeyspaceID) *metapb.PolicyRecord {
	if i := slices.IndexFunc(all, func(p *metapb.PolicyRecord) bool { return p.KeyspaceId == uint64(ks) }); i >= 0 {
		return all[i]
	}
	return nil
}

// ForAllocator is what the planner holds to. all are the stored records, in any order.
func ForAllocator(all []*metapb.PolicyRecord) allocator.Policy {
	stored := Of(all, 0)
	full := Cluster(stored)
	c := full.Cluster
	out := allocator.Policy{
		Default: Placement(full.Placement, c.FailedAfterMillis), Keyspaces: make(map[base.KeyspaceID]allocator.Placement),
		MovesPerNode: int(c.MovesPerNode), Moves: int(c.Moves), Imbalance: float64(c.ImbalancePermille) / 1000, NoBalance: c.NoBalance,
		FailedShare: float64(c.FailedSharePermille) / 1000, FailedTier: c.FailedTier,
	}
	for _, p := range all {
		if ks := base.KeyspaceID(p.KeyspaceId); ks != 0 {
			out.Keyspaces[ks] = Placement(Keyspace(ks, p, stored).Placement, c.FailedAfterMillis)
		}
	}
	for ks := base.KeyspaceRoot; ks <= base.KeyspaceSys; ks++ {
		out.Keyspaces[ks] = Placement(Keyspace(ks, Of(all, ks), stored).Placement, c.FailedAfterOwnMillis)
	}
	return out
}

// Placement is a placement as the planner knows it.
func Placement(p *metapb.PlacementPolicy, failedAfterMillis uint64) allocator.Placement {
	return allocator.Placement{
		Replicas: int(p.Replicas), Constraints: constraintsIn(p.Constraints), Leaders: constraintsIn(p.Leaders),
		FailedAfter: time.Duration(failedAfterMillis) * time.Millisecond,
	}
}

func constraintsIn(cs []*metapb.Constraint) []allocator.Constraint {
	var out []allocator.Constraint
	for _, c := range cs {
		out = append(out, allocator.Constraint{Kind: allocator.ConstraintKind(max(c.Kind, 1) - 1), Key: c.Key, Value: c.Value, Replicas: int(c.Replicas)})
	}
	return out
}

func constraintsOut(cs []allocator.Constraint) []*metapb.Constraint {
	var out []*metapb.Constraint
	for _, c := range cs {
		out = append(out, &metapb.Constraint{Kind: metapb.ConstraintKind(c.Kind + 1), Key: c.Key, Value: c.Value, Replicas: uint32(c.Replicas)})
	}
	return out
}

// Check finds what is wrong with a record by itself, whatever nodes there are. The error is a *base.Refused.
func Check(p *metapb.PolicyRecord) error {
	refuse := func(reason, instead string) error {
		return &base.Refused{For: base.RefusedMalformed, Reason: reason, Instead: instead}
	}
	if p.KeyspaceId != 0 && p.Cluster != nil && !proto.Equal(p.Cluster, &metapb.ClusterPolicy{}) {
		return refuse("only placement is a keyspace's own: the rest is the cluster's", "leave out --keyspace for it")
	}
	for _, k := range Keys() {
		if why := k.wrong(p); why != "" {
			return refuse(fmt.Sprintf("%s=%s: %s", k.Name, k.Get(p), why), "see cairn policy set --help")
		}
	}
	pl := p.GetPlacement()
	per := map[string]uint32{}
	for _, c := range pl.GetConstraints() {
		if _, err := allocator.ParseConstraint(constraintsIn([]*metapb.Constraint{c})[0].String()); err != nil {
			return refuse(err.Error(), "")
		}
		text := c.Key + "=" + c.Value
		if c.Kind == metapb.ConstraintKind_CONSTRAINT_KIND_REQUIRED && c.Replicas > 0 {
			per[c.Key] += c.Replicas
			if n := pl.Replicas; n > 0 && c.Key != "" && per[c.Key] > n {
				return refuse(fmt.Sprintf("more than replicas=%d are asked for by the constraints on %s", n, c.Key), "ask for fewer, or set replicas higher")
			}
		}
		for _, o := range pl.Constraints {
			if o.Kind != c.Kind && o.Key+"="+o.Value == text && min(o.Kind, c.Kind) == metapb.ConstraintKind_CONSTRAINT_KIND_REQUIRED && max(o.Kind, c.Kind) == metapb.ConstraintKind_CONSTRAINT_KIND_FORBIDDEN {
				return refuse(allocator.FormatConstraints(constraintsIn([]*metapb.Constraint{o, c}))+": what is required is forbidden too", "leave one of the two out")
			}
		}
	}
	return nil
}
