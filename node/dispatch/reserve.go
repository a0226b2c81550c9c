package dispatch

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// Reserve asks a node to take a replica. It may be repeated: what is reserved already is renewed.
func (d *Dispatcher) Reserve(ctx context.Context, node base.NodeID, req *rangepb.Reserve) (*rangepb.Reservation, error) {
	if node == d.cfg.Node {
		return d.reserveHere(req)
	}
	out := &rangepb.Reservation{}
	if err := d.askPlain(ctx, node, rangepb.RequestKind_REQUEST_KIND_RESERVE, req, out); err != nil {
		return nil, err
	}
	return out, nil
}

func (d *Dispatcher) reserveRaw(raw []byte) (proto.Message, error) {
	req := &rangepb.Reserve{}
	if err := proto.Unmarshal(raw, req); err != nil {
		return nil, unreadable(err)
	}
	return d.reserveHere(req)
}

func (d *Dispatcher) reserveHere(req *rangepb.Reserve) (*rangepb.Reservation, error) {
	if d.cfg.Placement == nil {
		return nil, errPlacesNothing
	}
	return d.cfg.Placement.Reserve(req), nil
}
