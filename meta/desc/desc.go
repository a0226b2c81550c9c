// Package desc holds what a range is: its descriptor as a value, and the steps by which a descriptor may change.
//
// Every step is a pure function from one descriptor to the next, with the generation one higher; Split makes two of one. A step changes the
// Raft configuration by at most one voter, or swaps one voter through a joint configuration; so the quorums of two
// descriptors that follow each other always intersect. Check is the other direction: given two descriptors, which
// step, if any, leads from one to the other, and what Raft must be told.
//
// Descriptors are shared and never changed in place: a step returns a new one.
package desc

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Short names of the generated enum; a switch over roles is read often.
const (
	voter    = metapb.ReplicaRole_REPLICA_ROLE_VOTER
	learner  = metapb.ReplicaRole_REPLICA_ROLE_LEARNER
	incoming = metapb.ReplicaRole_REPLICA_ROLE_INCOMING
	outgoing = metapb.ReplicaRole_REPLICA_ROLE_OUTGOING
)

// Validate says everything that is wrong with a descriptor, or nil. What is stored or received is validated before it
// is believed; every step leads from a valid descriptor to a valid one.
func Validate(d *metapb.RangeDescriptor) error {
	if d == nil {
		return errors.New("there is no descriptor")
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if d.RangeId == 0 {
		wrong("the range id is 0")
	}
	if d.KeyspaceId == 0 {
		wrong("the keyspace id is 0")
	}
	if d.Generation == 0 {
		wrong("the generation is 0")
	}
	if len(d.End) > 0 && bytes.Compare(d.Start, d.End) >= 0 {
		wrong("the span [%q, %q) is empty", d.Start, d.End)
	}
	if len(d.Replicas) > base.MaxReplicas {
		wrong("%d replicas are more than %d", len(d.Replicas), base.MaxReplicas)
	}
	errs = append(errs, validateReplicas(d)...)
	errs = append(errs, validateFrozen(d))
	return errors.Join(errs...)
}

func validateReplicas(d *metapb.RangeDescriptor) (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	count := map[metapb.ReplicaRole]int{}
	nodes := map[uint64]bool{}
	last := uint64(0)
	for _, r := range d.Replicas {
		if r == nil {
			wrong("a replica is missing")
			continue
		}
		switch r.Role {
		case voter, learner, incoming, outgoing:
			count[r.Role]++
		default:
			wrong("replica %d has the unknown role %d", r.ReplicaId, r.Role)
		}
		if r.ReplicaId <= last {
			wrong("replica %d comes after %d", r.ReplicaId, last)
		}
		if r.ReplicaId >= d.NextReplicaId {
			wrong("replica %d is not below the next replica id %d", r.ReplicaId, d.NextReplicaId)
		}
		if r.NodeId == 0 || nodes[r.NodeId] {
			wrong("replica %d is on node %d, which is none or has another", r.ReplicaId, r.NodeId)
		}
		last, nodes[r.NodeId] = r.ReplicaId, true
	}
	if count[voter]+count[incoming] == 0 {
		wrong("no replica votes")
	}
	if count[incoming] != count[outgoing] || count[incoming] > 1 {
		wrong("%d voters come in and %d go out; a joint configuration swaps one", count[incoming], count[outgoing])
	}
	return errs
}

// Encode gives a descriptor as it is stored, in its range and in the index: the same bytes on every replica.
func Encode(d *metapb.RangeDescriptor) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(d)
}

// Decode is the inverse of Encode. What is not a valid descriptor is an error.
func Decode(raw []byte) (*metapb.RangeDescriptor, error) {
	d := &metapb.RangeDescriptor{}
	if err := proto.Unmarshal(raw, d); err != nil {
		return nil, err
	}
	if err := Validate(d); err != nil {
		return nil, err
	}
	return d, nil
}

// Equal says whether a and b are the same descriptor.
func Equal(a, b *metapb.RangeDescriptor) bool { return proto.Equal(a, b) }

// Clone returns a descriptor that shares nothing with d.
func Clone(d *metapb.RangeDescriptor) *metapb.RangeDescriptor { return proto.CloneOf(d) }

// Generation is d's generation; a nil descriptor has 0, which no range has.
func Generation(d *metapb.RangeDescriptor) base.Generation { return base.Generation(d.GetGeneration()) }

// Replica returns the replica with this id, nil if there is none.
func Replica(d *metapb.RangeDescriptor, id base.ReplicaID) *metapb.Replica {
	for _, r := range d.GetReplicas() {
		if r.ReplicaId == uint64(id) {
			return r
		}
	}
	return nil
}

// ReplicaOn returns the replica on this node, nil if there is none. A node has at most one.
func ReplicaOn(d *metapb.RangeDescriptor, node base.NodeID) *metapb.Replica {
	for _, r := range d.GetReplicas() {
		if r.NodeId == uint64(node) {
			return r
		}
	}
	return nil
}

// Contains says whether the range holds the key.
func Contains(d *metapb.RangeDescriptor, ks base.KeyspaceID, key []byte) bool {
	return base.KeyspaceID(d.GetKeyspaceId()) == ks && bytes.Compare(d.Start, key) <= 0 && EndAfter(d.End, key)
}

// EndAfter says whether a span that ends at end reaches beyond key. An empty end is the end of the keyspace.
func EndAfter(end, key []byte) bool { return len(end) == 0 || bytes.Compare(key, end) < 0 }

// Overlap says whether a and b hold a key in common.
func Overlap(a, b *metapb.RangeDescriptor) bool {
	return a.GetKeyspaceId() == b.GetKeyspaceId() && EndAfter(a.GetEnd(), b.GetStart()) && EndAfter(b.GetEnd(), a.GetStart())
}

// SameSpan says whether a and b hold the same keys.
func SameSpan(a, b *metapb.RangeDescriptor) bool {
	return a.GetKeyspaceId() == b.GetKeyspaceId() && bytes.Equal(a.GetStart(), b.GetStart()) && bytes.Equal(a.GetEnd(), b.GetEnd())
}

// Joint says whether the configuration is a joint one, which must be left before anything else can change.
func Joint(d *metapb.RangeDescriptor) bool {
	for _, r := range d.GetReplicas() {
		if r.Role == incoming || r.Role == outgoing {
			return true
		}
	}
	return false
}

// Votes says in which halves of the configuration a role votes. Outside of a joint configuration both are the same.
func Votes(role metapb.ReplicaRole) (inNew, inOld bool) {
	return role == voter || role == incoming, role == voter || role == outgoing
}

// Format prints a descriptor on one line: "r4 default [a, b) gen 3: 1@n1 2@n2(incoming) next 5".
func Format(d *metapb.RangeDescriptor) string {
	if d == nil {
		return "no descriptor"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s [%s, %s) gen %d:", base.RangeID(d.RangeId), base.KeyspaceID(d.KeyspaceId),
		bound(d.Start, "-∞"), bound(d.End, "+∞"), d.Generation)
	for _, r := range d.Replicas {
		fmt.Fprintf(&b, " %d@%s", r.GetReplicaId(), base.NodeID(r.GetNodeId()))
		if role := r.GetRole(); role != voter {
			fmt.Fprintf(&b, "(%s)", RoleName(role))
		}
	}
	fmt.Fprintf(&b, " next %d", d.NextReplicaId)
	if f := d.Frozen; f != nil {
		fmt.Fprintf(&b, " frozen for %s gen %d at %s", base.RangeID(f.IntoRangeId), f.IntoGeneration, bound(f.IntoStart, "-∞"))
	}
	if d.Absorbing != 0 {
		fmt.Fprintf(&b, " absorbing %s", base.RangeID(d.Absorbing))
	}
	return b.String()
}

// RoleName is the role's name for people.
func RoleName(role metapb.ReplicaRole) string {
	return strings.ToLower(strings.TrimPrefix(role.String(), "REPLICA_ROLE_"))
}

func bound(key []byte, empty string) string {
	if len(key) == 0 {
		return empty
	}
	quoted := fmt.Sprintf("%q", key)
	return quoted[1 : len(quoted)-1]
}
