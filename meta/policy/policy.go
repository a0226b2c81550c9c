// Package policy is how a cluster is looked after: what somebody set, what stands where nobody did, and how both are written by people.
//
// A record is stored for the cluster (keyspace 0) and for each keyspace that somebody gave one. A zero is "the default": of a keyspace
// what the cluster's record says, of the cluster what the planner does of itself (allocator.DefaultPolicy). So what nobody set follows a new version's
// defaults.
package policy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/placement"
)

// Cluster is the cluster's record with every default filled in. stored may be nil.
func Cluster(stored *metapb.PolicyRecord) *metapb.PolicyRecord {
	p := whole(stored, 0)
	full := placement.Policies([]*metapb.PolicyRecord{p})
	c := p.Cluster
	p.Placement.Replicas = uint32(full.Default.Replicas)
	c.FailedAfterMillis = millis(full.Default.FailedAfter)
	c.FailedAfterOwnMillis = millis(full.Keyspaces[base.KeyspaceMeta].FailedAfter)
	c.FailedSharePermille, c.FailedTier = uint32(math.Round(full.FailedShare*1000)), full.FailedTier
	c.MovesPerNode, c.Moves = uint32(full.MovesPerNode), uint32(full.Moves)
	c.ImbalancePermille = uint32(math.Round(full.Imbalance * 1000))
	c.SnapshotBytesPerSecond = cmp.Or(c.SnapshotBytesPerSecond, base.SnapshotBytesPerSecond)
	c.PauseLatencyPermille = cmp.Or(c.PauseLatencyPermille, base.PolicyPauseLatencyPermille)
	return p
}

// Keyspace is a keyspace's record with what it leaves open filled in. Both may be nil.
func Keyspace(ks base.KeyspaceID, stored, cluster *metapb.PolicyRecord) *metapb.PolicyRecord {
	p := whole(stored, ks)
	full := placement.Policies([]*metapb.PolicyRecord{p, whole(cluster, 0)}).Keyspaces[ks]
	p.Placement.Replicas, p.Placement.Constraints, p.Placement.Leaders = uint32(full.Replicas), constraintsOut(full.Constraints), constraintsOut(full.Leaders)
	return p
}

// whole is a copy of a record that has all parts, whatever is missing in it.
func whole(stored *metapb.PolicyRecord, ks base.KeyspaceID) *metapb.PolicyRecord {
	p := &metapb.PolicyRecord{}
	if stored != nil {
		p = proto.CloneOf(stored)
	}
	p.KeyspaceId = uint64(ks)
	placementOf(p)
	if ks == 0 {
		clusterOf(p)
	}
	return p
}

func millis(d time.Duration) uint64 { return uint64(d.Milliseconds()) }

// Of finds a keyspace's record among all; nil: it has none.
func Of(all []*metapb.PolicyRecord, ks base.KeyspaceID) *metapb.PolicyRecord {
	if i := slices.IndexFunc(all, func(p *metapb.PolicyRecord) bool { return p.KeyspaceId == uint64(ks) }); i >= 0 {
		return all[i]
	}
	return nil
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
