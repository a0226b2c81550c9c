package apply

import (
	"fmt"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/desc"
)

// split cuts the range in two. The keys stay where they are; what changes is whose they are: the left part's descriptor
// shrinks, and the right part's replicated state is written beside it, in the one batch of this Apply. So whatever is in the
// log behind the split, and whoever reads after it, finds one of the two to hold a key, and never both or none.
//
// The right part begins as a bootstrapped range does, with the left part's replicas and counters: its revisions go on from
// those of its keys. Its Raft state is the shell's to write into the same batch, for it rests on what the store knows of its
// replica already (Result.Splits).
func (p *pass) split(c *kvpb.Split) (done, error) {
	if c.GetExpectedGeneration() != p.desc.Generation {
		return refused(p.stale())
	}
	if ks := base.KeyspaceID(p.desc.KeyspaceId); !ks.Splits() {
		return refused(fmt.Errorf("%s is one range for ever, and is not split", ks))
	}
	left, right, err := desc.Split(p.desc, c.GetKey(), base.RangeID(c.GetRightRangeId()))
	if err != nil {
		return refused(fmt.Errorf("%s cannot be split: %w", p.id, err))
	}
	right.Sticky = c.GetSticky()
	if err := p.splitLeases(left, right); err != nil {
		return done{}, err
	}
	r := Replica{id: base.RangeID(right.RangeId), desc: right, counters: p.counters, grants: p.grants}
	r.applied = position{InitialIndex, InitialTerm}
	if mutant.Is(mutant.SplitForgetsRevision) {
		r.counters = eval.FirstCounters()
	}
	if err := r.writeChanged(p.batch, &Replica{}); err != nil {
		return done{}, err
	}
	p.desc = left
	p.forget() // what it remembers of the right part's keys and leases is that range's to know
	p.out.Splits = append(p.out.Splits, right)
	return done{response: &kvpb.SplitResponse{Left: left, Right: right}}, nil
}

// Split makes the command that cuts a range at a key, for the leader to propose.
func Split(d *metapb.RangeDescriptor, key []byte, right base.RangeID) (*kvpb.Command, error) {
	if _, _, err := desc.Split(d, key, right); err != nil {
		return nil, err
	}
	return &kvpb.Command{Body: &kvpb.Command_Split{Split: &kvpb.Split{
		ExpectedGeneration: d.Generation, Key: key, RightRangeId: uint64(right),
	}}}, nil
}
