package dispatch

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// Report asks a node what has changed of the ranges that it leads.
func (d *Dispatcher) Report(ctx context.Context, node base.NodeID, req *rangepb.ReportRequest) (*rangepb.Report, error) {
	if node == d.cfg.Node {
		return d.reportHere(req)
	}
	out := &rangepb.Report{}
	if err := d.askPlain(ctx, node, rangepb.RequestKind_REQUEST_KIND_REPORT, req, out); err != nil {
		return nil, err
	}
	return out, nil
}

func (d *Dispatcher) reportRaw(raw []byte) (proto.Message, error) {
	req := &rangepb.ReportRequest{}
	if err := proto.Unmarshal(raw, req); err != nil {
		return nil, unreadable(err)
	}
	return d.reportHere(req)
}

func (d *Dispatcher) reportHere(req *rangepb.ReportRequest) (*rangepb.Report, error) {
	if d.cfg.Placement == nil {
		return nil, errPlacesNothing
	}
	return d.cfg.Placement.Report(req), nil
}
