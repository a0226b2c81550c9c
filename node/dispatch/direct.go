package dispatch

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// Direct tells the leader of a range where its replicas are wanted, and is answered how far that is, and by which node. It may be
// repeated: a directive that is there already is renewed.
func (d *Dispatcher) Direct(ctx context.Context, r *metapb.RangeDescriptor, to *rangepb.Directive) (out *rangepb.DirectiveAnswer, by base.NodeID, err error) {
	raw, err := proto.Marshal(to)
	if err != nil {
		return nil, 0, err
	}
	d.Learn(r) // it is what the index says now
	err = d.retry(ctx, base.KeyspaceID(r.KeyspaceId), r.Start, func(asked *metapb.RangeDescriptor, node base.NodeID) error {
		id := base.RangeID(asked.RangeId)
		by = node
		if asked.RangeId != r.RangeId { // what it was decided for is part of another range by now
			out = &rangepb.DirectiveAnswer{Refused: "the range is part of " + id.String() + " by now", Descriptor_: asked}
			return nil
		}
		if node == d.cfg.Node {
			var err error
			out, err = d.directHere(id, raw)
			return err
		}
		out = &rangepb.DirectiveAnswer{}
		err := d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_DIRECT, raw, out)
		var amb *base.Ambiguous
		if errors.As(err, &amb) && ctx.Err() == nil {
			return &base.NotLeader{Range: id} // said twice it is said once: it may have another leader by now
		}
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return out, by, nil
}

func (d *Dispatcher) directHere(id base.RangeID, raw []byte) (*rangepb.DirectiveAnswer, error) {
	to := &rangepb.Directive{}
	if err := proto.Unmarshal(raw, to); err != nil {
		return nil, unreadable(err)
	}
	if d.cfg.Placement == nil {
		return nil, errPlacesNothing
	}
	if err := d.leads(id); err != nil {
		return nil, err
	}
	return d.cfg.Placement.Direct(id, to), nil
}
