package apply

import (
	"fmt"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/desc"
)

// The commands of a merge (meta/desc/merge.go has the steps, docs/life-of-a-split.md the story). As in a split, keys stay where
// they are and whose they are changes: Merge widens the left one's descriptor and deletes the right one's own state beside it, in
// the one batch of this Apply. What the right one was is in the command, for this range's log may rest on nothing else; that its
// keys are here, all of them and durably, is what whoever proposes it has made sure of, and the shell checks.

// freeze has the range change in nothing from here on.
func (p *pass) freeze(c *kvpb.Freeze) (done, error) {
	if c.GetExpectedGeneration() != p.desc.Generation {
		return refused(p.stale())
	}
	next, err := desc.Freeze(c.GetLeft(), p.desc)
	if err != nil {
		return refused(fmt.Errorf("%s cannot be frozen: %w", p.id, err))
	}
	p.desc = next
	return done{response: &kvpb.FreezeResponse{Right: &kvpb.FrozenRange{
		Descriptor_: next, AppliedIndex: p.applied.index + 1,
		Revision: int64(p.counters.Revision), Compacted: int64(p.counters.Compacted),
	}}}, nil
}

// thaw has a frozen range go on.
func (p *pass) thaw(c *kvpb.Thaw) (done, error) {
	if c.GetExpectedGeneration() != p.desc.Generation {
		return refused(p.stale())
	}
	next, err := desc.Thaw(p.desc, c.GetLeft())
	if err != nil {
		return refused(fmt.Errorf("%s does not thaw: %w", p.id, err))
	}
	p.desc = next
	return done{response: &kvpb.ThawResponse{Descriptor_: next}}, nil
}

// merge takes the right neighbour over.
func (p *pass) merge(c *kvpb.Merge) (done, error) {
	if c.GetExpectedGeneration() != p.desc.Generation && !mutant.Is(mutant.MergeAnyGeneration) {
		return refused(p.stale())
	}
	right := c.GetRight().GetDescriptor_()
	next, err := desc.Merge(p.desc, right)
	if mutant.Is(mutant.MergeAnyGeneration) && err != nil && desc.Neighbours(p.desc, right) {
		next, err = desc.Clone(p.desc), nil
		next.End, next.Absorbing, next.Generation = right.End, right.RangeId, max(p.desc.Generation, right.Generation)+1
	}
	if err != nil {
		return refused(fmt.Errorf("%s takes nothing over: %w", p.id, err))
	}
	if err := p.data.Close(); err != nil { // what another loop has applied of the right range since it was opened is to be seen
		return done{}, err
	}
	if err := p.mergeLeases(base.RangeID(right.RangeId)); err != nil {
		return done{}, err
	}
	own := keys.RangeLocalSpan(base.RangeID(right.RangeId))
	if err := p.batch.DeleteRange(own.Start, own.End); err != nil {
		return done{}, err
	}
	p.desc = next
	if !mutant.Is(mutant.MergeForgetsRevision) {
		p.counters.Revision = max(p.counters.Revision, base.Revision(c.Right.Revision))
	}
	p.counters.Compacted = max(p.counters.Compacted, base.Revision(c.Right.Compacted))
	p.forget() // it knows nothing of the right one's keys and leases
	p.out.Merges = append(p.out.Merges, c.Right)
	return done{response: &kvpb.MergeResponse{Descriptor_: next}}, nil
}

// giveUpMerge has no Merge that was planned before take effect.
func (p *pass) giveUpMerge(c *kvpb.GiveUpMerge) (done, error) {
	next, err := p.advance(c.GetExpectedGeneration(), desc.GiveUp)
	if err != nil {
		return refused(err)
	}
	return done{response: &kvpb.GiveUpMergeResponse{Descriptor_: next}}, nil
}

// absorbed ends what merge began.
func (p *pass) absorbed(c *kvpb.Absorbed) (done, error) {
	next, err := p.advance(c.GetExpectedGeneration(), desc.Absorbed)
	if err != nil {
		return refused(err)
	}
	return done{response: &kvpb.AbsorbedResponse{Descriptor_: next}}, nil
}

// advance takes a step that needs nothing but the descriptor.
func (p *pass) advance(expected uint64, step func(*metapb.RangeDescriptor) (*metapb.RangeDescriptor, error)) (*metapb.RangeDescriptor, error) {
	if expected != p.desc.Generation {
		return nil, p.stale()
	}
	next, err := step(p.desc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.id, err)
	}
	p.desc = next
	return next, nil
}

func (p *pass) stale() error { return &base.StaleGeneration{Range: p.id, Current: p.desc} }
