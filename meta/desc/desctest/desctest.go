// Package desctest writes descriptors as text for tests: the text that desc.Format prints is read back by Parse.
package desctest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

var line = regexp.MustCompile(`^r(\d+) (\w+) \[(.*), (.*)\) gen (\d+):((?: \d+@n\d+(?:\(\w+\))?)*) next (\d+)(?: frozen for r(\d+) gen (\d+) at (.*?))?(?: absorbing r(\d+))?$`)

// Parse reads what desc.Format prints.
func Parse(s string) (*metapb.RangeDescriptor, error) {
	m := line.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return nil, fmt.Errorf("%q is not a descriptor", s)
	}
	d := &metapb.RangeDescriptor{RangeId: number(m[1]), Generation: number(m[5]), NextReplicaId: number(m[7]), Absorbing: number(m[11])}
	for ks := base.KeyspaceRoot; ks <= base.KeyspaceDefault; ks++ {
		if ks.String() == m[2] {
			d.KeyspaceId = uint64(ks)
		}
	}
	if d.KeyspaceId == 0 {
		d.KeyspaceId = number(strings.TrimPrefix(m[2], "ks"))
	}
	if m[8] != "" {
		d.Frozen = &metapb.Frozen{IntoRangeId: number(m[8]), IntoGeneration: number(m[9])}
		if m[10] != "-∞" {
			d.Frozen.IntoStart = []byte(m[10])
		}
	}
	if m[3] != "-∞" {
		d.Start = []byte(m[3])
	}
	if m[4] != "+∞" {
		d.End = []byte(m[4])
	}
	for _, f := range strings.Fields(m[6]) {
		id, rest, _ := strings.Cut(f, "@n")
		node, role, _ := strings.Cut(strings.TrimSuffix(rest, ")"), "(")
		r := &metapb.Replica{ReplicaId: number(id), NodeId: number(node), Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}
		if role != "" {
			v, ok := metapb.ReplicaRole_value["REPLICA_ROLE_"+strings.ToUpper(role)]
			if !ok {
				return nil, fmt.Errorf("%q is not a role", role)
			}
			r.Role = metapb.ReplicaRole(v)
		}
		d.Replicas = append(d.Replicas, r)
	}
	return d, nil
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64) // digits, by the expression; what is too long becomes the largest
	return n
}

// First is a range of one voter on node 1, as bootstrap makes it.
func First(id base.RangeID, ks base.KeyspaceID) *metapb.RangeDescriptor {
	return &metapb.RangeDescriptor{
		RangeId: uint64(id), KeyspaceId: uint64(ks), Generation: 1, NextReplicaId: 2,
		Replicas: []*metapb.Replica{{ReplicaId: 1, NodeId: 1, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}},
	}
}

// Steps lists every legal step from d, with new replicas on nodes 1 to n.
func Steps(d *metapb.RangeDescriptor, n int) []*metapb.RangeDescriptor {
	var out []*metapb.RangeDescriptor
	add := func(next *metapb.RangeDescriptor, err error) {
		if err == nil {
			out = append(out, next)
		}
	}
	add(desc.LeaveJoint(d))
	for node := 1; node <= n; node++ {
		add(desc.AddLearner(d, base.NodeID(node)))
	}
	for _, r := range d.Replicas {
		id := base.ReplicaID(r.ReplicaId)
		add(desc.Promote(d, id))
		add(desc.RemoveLearner(d, id))
		add(desc.RemoveVoter(d, id))
		for _, o := range d.Replicas {
			add(desc.BeginSwap(d, id, base.ReplicaID(o.ReplicaId)))
		}
	}
	return out
}

// Reachable draws a descriptor that legal steps lead to from First, on nodes 1 to n.
func Reachable(t *rapid.T, n int) *metapb.RangeDescriptor {
	d := First(base.RangeDefault, base.KeyspaceDefault)
	for range rapid.IntRange(0, 30).Draw(t, "steps") {
		d = rapid.SampledFrom(Steps(d, n)).Draw(t, "step")
	}
	return d
}
