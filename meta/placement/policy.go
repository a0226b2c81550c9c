package placement

import (
	"fmt"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Policies is what is to be held to, with every default filled in, by the policies that are stored. What a keyspace's own policy does
// not say is as the cluster's says; how many replicas Cairn's own keyspaces have, the cluster's does not say.
func Policies(records []*metapb.PolicyRecord) allocator.Policy {
	var cluster *metapb.PolicyRecord
	stored := make(map[base.KeyspaceID]*metapb.PlacementPolicy, len(records))
	for _, r := range records {
		if r.GetKeyspaceId() == 0 {
			cluster = r
		} else {
			stored[base.KeyspaceID(r.KeyspaceId)] = r.Placement
		}
	}
	c := cluster.GetCluster()
	p := allocator.Policy{
		MovesPerNode: int(c.GetMovesPerNode()), Moves: int(c.GetMoves()), Imbalance: float64(c.GetImbalancePermille()) / 1000, NoBalance: c.GetNoBalance(),
		FailedShare: float64(c.GetFailedSharePermille()) / 1000, FailedTier: c.GetFailedTier(), Keyspaces: make(map[base.KeyspaceID]allocator.Placement),
	}
	p.Default.FailedAfter = millis(c.GetFailedAfterMillis())
	place(&p.Default, cluster.GetPlacement())
	for id := base.KeyspaceRoot; id <= base.KeyspaceSys; id++ {
		own := allocator.Placement{FailedAfter: millis(c.GetFailedAfterOwnMillis()), Constraints: p.Default.Constraints, Leaders: p.Default.Leaders}
		p.Keyspaces[id] = own
	}
	for id, m := range stored {
		placement, own := p.Keyspaces[id]
		if !own {
			placement = p.Default
		}
		place(&placement, m)
		p.Keyspaces[id] = placement
	}
	p.EnsureDefaults()
	return p
}

// override sets what somebody has set.
func override[T comparable](to *T, v T) {
	var unset T
	if v != unset {
		*to = v
	}
}

func millis(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }

func place(p *allocator.Placement, m *metapb.PlacementPolicy) {
	override(&p.Replicas, int(m.GetReplicas()))
	if cs := constraints(m.GetConstraints()); cs != nil {
		p.Constraints = cs
	}
	if cs := constraints(m.GetLeaders()); cs != nil {
		p.Leaders = cs
	}
}

func constraints(in []*metapb.Constraint) (out []allocator.Constraint) {
	for _, c := range in {
		kind := map[metapb.ConstraintKind]allocator.ConstraintKind{
			metapb.ConstraintKind_CONSTRAINT_KIND_REQUIRED:  allocator.Required,
			metapb.ConstraintKind_CONSTRAINT_KIND_FORBIDDEN: allocator.Forbidden,
			metapb.ConstraintKind_CONSTRAINT_KIND_PREFERRED: allocator.Preferred,
		}
		if k, ok := kind[c.GetKind()]; ok { // a kind that this version does not know cannot be held to
			out = append(out, allocator.Constraint{Kind: k, Key: c.Key, Value: c.Value, Replicas: int(c.Replicas)})
		}
	}
	return out
}

// strain is when a node has enough to do, so that replicas neither come to it nor leave it.
type strain struct{ permille int64 }

func strainOf(records []*metapb.PolicyRecord) strain {
	s := strain{base.StrainedPutPermille}
	for _, r := range records {
		if r.GetKeyspaceId() == 0 {
			override(&s.permille, int64(r.GetCluster().GetPauseLatencyPermille()))
		}
	}
	return s
}

// Strained says why a node that is as busy as it says has enough to do, by the policies that are stored; empty: it has not.
func Strained(records []*metapb.PolicyRecord, load *metapb.NodeLoad) string {
	return strainOf(records).of(load)
}

// of says why a node is strained, in figures; empty: it is not.
func (s strain) of(load *metapb.NodeLoad) string {
	micros := func(n int64) time.Duration {
		return (time.Duration(n) * time.Microsecond).Round(100 * time.Microsecond)
	}
	put, normal, sync := micros(load.GetPutMicros()), micros(load.GetPutNormalMicros()), micros(load.GetSyncMicros())
	switch {
	case normal > 0 && put > base.StrainedPutLeast && int64(put/time.Microsecond)*1000 > int64(normal/time.Microsecond)*s.permille:
		return fmt.Sprintf("its writes take %s, and %s when nothing moves", put, normal)
	case sync > base.StrainedSync:
		return fmt.Sprintf("a sync of its disk takes %s", sync)
	}
	return ""
}
