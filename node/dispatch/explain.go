package dispatch

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
)

// Explain asks whoever decides for a range what it would decide now, and why, and says which node that was: the leader of the index
// range that lists it, or root's for root itself.
func (d *Dispatcher) Explain(ctx context.Context, r *metapb.RangeDescriptor) (*metapb.Explanation, base.NodeID, error) {
	raw, err := proto.Marshal(&rangepb.ExplainRequest{Descriptor_: r})
	if err != nil {
		return nil, 0, err
	}
	index, key := base.KeyspaceRoot, []byte(nil)
	if ks, ok := route.IndexKeyspace(base.KeyspaceID(r.KeyspaceId)); ok {
		index, key = ks, route.DescriptorKey(r)
	}
	var out *metapb.Explanation
	var by base.NodeID
	err = d.retry(ctx, index, key, func(asked *metapb.RangeDescriptor, node base.NodeID) error {
		id := base.RangeID(asked.RangeId)
		by = node
		if node == d.cfg.Node {
			var err error
			out, err = d.explainHere(ctx, id, raw)
			return err
		}
		out = &metapb.Explanation{}
		err := d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_EXPLAIN, raw, out)
		var amb *base.Ambiguous
		if errors.As(err, &amb) && ctx.Err() == nil {
			return &base.NotLeader{Range: id} // it has no effect: ask again, elsewhere
		}
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return out, by, nil
}

// explainUntil is explainHere for another node, as long as that one waits.
func (d *Dispatcher) explainUntil(id base.RangeID, until base.Instant, raw []byte) (proto.Message, error) {
	ctx, cancel := context.WithTimeout(d.ctx, max(time.Millisecond, until.Sub(d.cfg.Store.Now())))
	defer cancel()
	return d.explainHere(ctx, id, raw)
}

func (d *Dispatcher) explainHere(ctx context.Context, id base.RangeID, raw []byte) (*metapb.Explanation, error) {
	req := &rangepb.ExplainRequest{}
	if err := proto.Unmarshal(raw, req); err != nil {
		return nil, unreadable(err)
	}
	if d.cfg.Placement == nil {
		return nil, errPlacesNothing
	}
	if err := d.leads(id); err != nil {
		return nil, err
	}
	return d.cfg.Placement.Explain(ctx, id, req.Descriptor_)
}
