package apply

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/meta/desc"
	"go.etcd.io/raft/v3/raftpb"
)

// changeReplicas takes one legal step to the descriptor that the command carries. Raft's configuration follows: the
// conf change that carried the command is among Applied.Changes if, and only if, the step was taken. So it must say
// exactly what the step says; else the descriptor and Raft would come to differ, and the step is refused.
func (p *pass) changeReplicas(c *kvpb.ChangeReplicas, change *raftpb.ConfChangeV2) (done, error) {
	twice := mutant.Is(mutant.StepCarriedOutTwice) && proto.Equal(c.GetDescriptor_(), p.desc)
	if c.GetExpectedGeneration() != p.desc.Generation && !mutant.Is(mutant.GenerationSkipped) && !twice {
		return refused(p.stale())
	}
	want, err := desc.Check(p.desc, c.GetDescriptor_())
	if mutant.Is(mutant.GenerationSkipped) || twice {
		want, err = change, nil
	}
	if err != nil {
		return refused(err)
	}
	if !sameChange(want, change) {
		return refused(fmt.Errorf("%s: the conf change %q does not lead to the descriptor", p.id, raftpb.ConfChangesToString(change.Changes)))
	}
	p.desc = c.GetDescriptor_()
	p.out.Applied.Changes = append(p.out.Applied.Changes, change)
	return done{response: &kvpb.ChangeReplicasResponse{Descriptor_: p.desc}}, nil
}

// sameChange compares what Raft reads of a conf change: an unset transition is the default one.
func sameChange(a, b *raftpb.ConfChangeV2) bool {
	if a.GetTransition() != b.GetTransition() || len(a.Changes) != len(b.Changes) {
		return false
	}
	for i := range a.Changes {
		if a.Changes[i].GetType() != b.Changes[i].GetType() || a.Changes[i].GetNodeId() != b.Changes[i].GetNodeId() {
			return false
		}
	}
	return true
}

// Change makes the command and the conf change that lead from one descriptor to the next, for the leader to propose.
func Change(from, to *metapb.RangeDescriptor) (*kvpb.Command, *raftpb.ConfChangeV2, error) {
	change, err := desc.Check(from, to)
	if err != nil {
		return nil, nil, err
	}
	return &kvpb.Command{Body: &kvpb.Command_ChangeReplicas{ChangeReplicas: &kvpb.ChangeReplicas{
		ExpectedGeneration: from.Generation, Descriptor_: to,
	}}}, change, nil
}
