package desc

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Check says whether `to` is one legal step from `from`, and returns the Raft conf change that does to Raft's
// configuration what the step does to the descriptor's. The change has no context.
//
// The step is guessed from what differs, taken, and compared: what is not exactly the outcome of a step is refused,
// whatever else differs (span, ids, generation, order).
func Check(from, to *metapb.RangeDescriptor) (*raftpb.ConfChangeV2, error) {
	next, change, err := guess(from, to)
	if err != nil {
		return nil, fmt.Errorf("%s: no legal step: %w", base.RangeID(from.GetRangeId()), err)
	}
	if !Equal(next, to) {
		return nil, fmt.Errorf("%s: no legal step: from %q to %q", base.RangeID(from.GetRangeId()), Format(from), Format(to))
	}
	return change, nil
}

// diff is what differs between the replicas of two descriptors.
type diff struct {
	added, removed    []*metapb.Replica
	promoted, demoted []*metapb.Replica // as they were: a learner that is one no longer, a voter that is one no longer
}

func guess(from, to *metapb.RangeDescriptor) (*metapb.RangeDescriptor, *raftpb.ConfChangeV2, error) {
	if Joint(from) {
		next, err := LeaveJoint(from)
		return next, &raftpb.ConfChangeV2{}, err
	}
	d := compare(from, to)
	switch [4]int{len(d.added), len(d.removed), len(d.promoted), len(d.demoted)} {
	case [4]int{1, 0, 0, 0}:
		next, err := AddLearner(from, base.NodeID(d.added[0].NodeId))
		return next, simple(raftpb.ConfChangeAddLearnerNode, d.added[0].ReplicaId), err
	case [4]int{0, 1, 0, 0}:
		id := d.removed[0].ReplicaId
		step := RemoveVoter
		if d.removed[0].Role == learner {
			step = RemoveLearner
		}
		next, err := step(from, base.ReplicaID(id))
		return next, simple(raftpb.ConfChangeRemoveNode, id), err
	case [4]int{0, 0, 1, 0}:
		id := d.promoted[0].ReplicaId
		next, err := Promote(from, base.ReplicaID(id))
		return next, simple(raftpb.ConfChangeAddNode, id), err
	case [4]int{0, 0, 1, 1}:
		in, out := d.promoted[0].ReplicaId, d.demoted[0].ReplicaId
		next, err := BeginSwap(from, base.ReplicaID(in), base.ReplicaID(out))
		return next, &raftpb.ConfChangeV2{
			// Explicit: Raft must not leave by itself, for leadership may have to move first.
			Transition: raftpb.ConfChangeTransitionJointExplicit.Enum(),
			Changes: []*raftpb.ConfChangeSingle{
				single(raftpb.ConfChangeAddNode, in), single(raftpb.ConfChangeRemoveNode, out),
			},
		}, err
	}
	return nil, nil, errors.New("the replicas differ by none or by more than one step")
}

func compare(from, to *metapb.RangeDescriptor) diff {
	var d diff
	for _, r := range from.GetReplicas() {
		now := Replica(to, base.ReplicaID(r.ReplicaId))
		switch {
		case now == nil:
			d.removed = append(d.removed, r)
		case now.Role != r.Role && r.Role == learner:
			d.promoted = append(d.promoted, r)
		case now.Role != r.Role:
			d.demoted = append(d.demoted, r)
		}
	}
	for _, r := range to.GetReplicas() {
		if Replica(from, base.ReplicaID(r.ReplicaId)) == nil {
			d.added = append(d.added, r)
		}
	}
	return d
}

func simple(t raftpb.ConfChangeType, id uint64) *raftpb.ConfChangeV2 {
	return &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{single(t, id)}}
}

func single(t raftpb.ConfChangeType, id uint64) *raftpb.ConfChangeSingle {
	return &raftpb.ConfChangeSingle{Type: t.Enum(), NodeId: &id}
}
