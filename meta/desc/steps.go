package desc

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// The steps. Each takes a valid descriptor, leaves it as it is, and returns the next one, or says why that step is not
// legal now. Nothing but LeaveJoint is legal in a joint configuration, and nothing but Thaw in a frozen range (merge.go).

var errJoint = errors.New("the configuration is joint; it must be left first")

// AddLearner adds a replica on a node that has none. It gets the next replica id, which is never handed out again, and
// receives the log without a vote.
func AddLearner(d *metapb.RangeDescriptor, node base.NodeID) (*metapb.RangeDescriptor, error) {
	switch {
	case busy(d) != nil:
		return nil, busy(d)
	case node == 0:
		return nil, errors.New("node 0 is no node")
	case ReplicaOn(d, node) != nil:
		return nil, fmt.Errorf("%s has a replica already", node)
	case len(d.GetReplicas()) >= base.MaxReplicas:
		return nil, fmt.Errorf("the range has %d replicas, and may not have more", len(d.Replicas))
	}
	next := successor(d)
	id := d.NextReplicaId
	for free := id - 1; mutant.Is(mutant.ReplicaIDReused) && free > 0; free-- {
		if Replica(d, base.ReplicaID(free)) == nil {
			id = free
			break
		}
	}
	next.Replicas = append(next.Replicas, &metapb.Replica{ReplicaId: id, NodeId: uint64(node), Role: learner})
	next.NextReplicaId++
	return next, nil
}

// Promote makes a learner a voter, where no voter is to leave.
func Promote(d *metapb.RangeDescriptor, id base.ReplicaID) (*metapb.RangeDescriptor, error) {
	if err := mustBe(d, id, learner); err != nil {
		return nil, err
	}
	next := successor(d)
	Replica(next, id).Role = voter
	return next, nil
}

// BeginSwap enters the joint configuration in which a learner becomes a voter and a voter ceases to be one. Until it is
// left, every decision needs a majority with the one and a majority with the other.
func BeginSwap(d *metapb.RangeDescriptor, in, out base.ReplicaID) (*metapb.RangeDescriptor, error) {
	if err := mustBe(d, in, learner); err != nil {
		return nil, err
	}
	if err := mustBe(d, out, voter); err != nil {
		return nil, err
	}
	next := successor(d)
	Replica(next, in).Role = incoming
	Replica(next, out).Role = outgoing
	return next, nil
}

// LeaveJoint ends a swap: the incoming replica is a voter, the outgoing one is no longer a replica of the range.
func LeaveJoint(d *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	if !Joint(d) {
		return nil, errors.New("the configuration is not joint")
	}
	next := successor(d)
	kept := next.Replicas[:0]
	for _, r := range next.Replicas {
		switch r.Role {
		case outgoing:
			continue
		case incoming:
			r.Role = voter
		}
		kept = append(kept, r)
	}
	next.Replicas = kept
	return next, nil
}

// RemoveLearner removes a replica that does not vote.
func RemoveLearner(d *metapb.RangeDescriptor, id base.ReplicaID) (*metapb.RangeDescriptor, error) {
	return remove(d, id, learner)
}

// RemoveVoter removes a voter for which none comes in. The last voter stays.
func RemoveVoter(d *metapb.RangeDescriptor, id base.ReplicaID) (*metapb.RangeDescriptor, error) {
	if err := mustBe(d, id, voter); err != nil {
		return nil, err
	}
	voters := 0
	for _, r := range d.Replicas {
		if r.Role == voter {
			voters++
		}
	}
	if voters == 1 {
		return nil, fmt.Errorf("replica %d is the last voter", id)
	}
	return remove(d, id, voter)
}

// Split cuts the range in two at a key, which becomes the right part's first. The left part keeps the id; both have the
// same replicas, and a generation that is newer than that of the whole, whose places they take in the index.
func Split(d *metapb.RangeDescriptor, key []byte, id base.RangeID) (left, right *metapb.RangeDescriptor, err error) {
	switch {
	case busy(d) != nil:
		return nil, nil, busy(d)
	case id == 0 || uint64(id) == d.GetRangeId():
		return nil, nil, fmt.Errorf("%s is no id for the right part of %s", id, base.RangeID(d.GetRangeId()))
	case bytes.Compare(key, d.GetStart()) <= 0 || !EndAfter(d.GetEnd(), key):
		return nil, nil, fmt.Errorf("%q does not lie within [%s, %s)", key, bound(d.GetStart(), "-∞"), bound(d.GetEnd(), "+∞"))
	}
	left, right = successor(d), successor(d)
	left.End = bytes.Clone(key)
	right.Start, right.RangeId = bytes.Clone(key), uint64(id)
	return left, right, nil
}

func remove(d *metapb.RangeDescriptor, id base.ReplicaID, role metapb.ReplicaRole) (*metapb.RangeDescriptor, error) {
	if err := mustBe(d, id, role); err != nil {
		return nil, err
	}
	next := successor(d)
	kept := next.Replicas[:0]
	for _, r := range next.Replicas {
		if r.ReplicaId != uint64(id) {
			kept = append(kept, r)
		}
	}
	next.Replicas = kept
	return next, nil
}

// mustBe says why replica id of d cannot take a step that begins in role.
func mustBe(d *metapb.RangeDescriptor, id base.ReplicaID, role metapb.ReplicaRole) error {
	if err := busy(d); err != nil {
		return err
	}
	r := Replica(d, id)
	if r == nil {
		return fmt.Errorf("there is no replica %d", id)
	}
	if r.Role != role {
		return fmt.Errorf("replica %d is a %s, not a %s", id, RoleName(r.Role), RoleName(role))
	}
	return nil
}

func successor(d *metapb.RangeDescriptor) *metapb.RangeDescriptor {
	next := Clone(d)
	next.Generation++
	return next
}
