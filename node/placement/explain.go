package placement

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/placement"
)

// ExplainHere says what would be decided for a range that is listed in an index range which this node leads.
func (p *Placement) ExplainHere(ctx context.Context, index base.RangeID, d *metapb.RangeDescriptor) (*metapb.Explanation, error) {
	r := p.runner(index)
	if r == nil {
		return nil, &base.NotLeader{Range: index, HintNode: p.cfg.Node} // its decider begins in a moment
	}
	var out *metapb.Explanation
	if !r.call(ctx, func(x *placement.Decider) { out = x.Explain(base.RangeID(d.GetRangeId())) }) {
		return nil, &base.NotLeader{Range: index}
	}
	if out == nil {
		return nil, status.Errorf(codes.NotFound, "%s is not listed in %s: it was merged, or dropped, or is not listed yet", base.RangeID(d.GetRangeId()), index)
	}
	return out, nil
}

// Explain says what would be decided for a range now, and why, by whoever decides for it, and which node that is.
func (p *Placement) Explain(ctx context.Context, id base.RangeID) (*metapb.Explanation, base.NodeID, error) {
	d, err := p.find(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	return p.cfg.Dispatch.Explain(ctx, d)
}

// find is a range's descriptor: from its replica here, or from the index.
func (p *Placement) find(ctx context.Context, id base.RangeID) (*metapb.RangeDescriptor, error) {
	if view := p.cfg.Store.View(id); view != nil {
		return view.Descriptor, nil
	}
	if id == base.RangeRoot {
		return p.cfg.Dispatch.Root(ctx)
	}
	ranges, err := p.cfg.Ranges(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range ranges {
		if base.RangeID(r.Descriptor_.GetRangeId()) == id {
			return r.Descriptor_, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "there is no range %d: see cairn range ls", uint64(id))
}

// UnderWay are the decisions on their way of the index ranges that this node leads.
func (p *Placement) UnderWay(ctx context.Context) (out []placement.Entry) {
	for _, r := range p.all() {
		r.call(ctx, func(d *placement.Decider) { out = append(out, d.UnderWay()...) })
	}
	return out
}
