package dispatch

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// Placement is a node's part in placing replicas, as it answers those that decide. What it answers is what it knows at this moment:
// none of it waits for anything but the explanation.
type Placement interface {
	// Direct takes a directive for a range that this node leads.
	Direct(base.RangeID, *rangepb.Directive) *rangepb.DirectiveAnswer
	// Reserve answers whether this node takes a replica.
	Reserve(*rangepb.Reserve) *rangepb.Reservation
	// Report says what has changed of the ranges that this node leads.
	Report(*rangepb.ReportRequest) *rangepb.Report
	// Explain says what would be decided for a range that is listed in an index range which this node leads.
	Explain(ctx context.Context, index base.RangeID, d *metapb.RangeDescriptor) (*metapb.Explanation, error)
}

var errPlacesNothing = status.Error(codes.FailedPrecondition, "this node takes no part in placing replicas")

// askPlain asks a node for what needs no replica of any range there. It has no effect that asking twice would double, so that an
// answer that did not come is no more than that.
func (d *Dispatcher) askPlain(ctx context.Context, node base.NodeID, kind rangepb.RequestKind, req, out proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	return d.ask(ctx, node, 0, kind, body, out)
}

// servePlain answers a question that needs no replica; false if it is none.
func (d *Dispatcher) servePlain(q *rangepb.Request, done func(proto.Message, error)) bool {
	switch q.Kind {
	case rangepb.RequestKind_REQUEST_KIND_RESERVE:
		done(d.reserveRaw(q.Body))
	case rangepb.RequestKind_REQUEST_KIND_REPORT:
		d.goServe(done, func() (proto.Message, error) { return d.reportRaw(q.Body) })
	default:
		return false
	}
	return true
}

// leads refuses what only the leader of a range can answer.
func (d *Dispatcher) leads(id base.RangeID) error {
	if st, ok := d.cfg.Store.State(id); !ok || st.LeaderNode != d.cfg.Node {
		return &base.NotLeader{Range: id, HintNode: st.LeaderNode, HintReplica: st.Leader}
	}
	return nil
}

func unreadable(err error) error {
	return status.Error(codes.InvalidArgument, "the request cannot be read: "+err.Error())
}
