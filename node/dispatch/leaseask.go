package dispatch

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// How long a lease lasts is known to the leader of its home alone (RFC 6). It is asked, and answers from memory: no entry of a log is
// made. A question may be asked twice, so that an answer that was lost is no more than that.

// Leases answers what only the leader of a range knows of clients' leases.
type Leases interface {
	// Answer answers a question to a range. The error is a *base.NotLeader if this node cannot say: it does not lead the range under
	// a lease; and a *base.RangeMoved if what was asked for is not the range's.
	Answer(context.Context, base.RangeID, *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error)
}

var errKnowsNoLeases = status.Error(codes.Unimplemented, "this node answers nothing of leases")

// askLease asks the leader of the range that holds key. The question is made for the range as it is known when it is asked.
func (d *Dispatcher) askLease(ctx context.Context, ks base.KeyspaceID, key []byte, question func(*metapb.RangeDescriptor) *rangepb.LeaseQuestion) (out *rangepb.LeaseAnswer, err error) {
	err = d.retry(ctx, ks, key, func(asked *metapb.RangeDescriptor, node base.NodeID) error {
		q := question(asked)
		q.KeyspaceId = uint64(ks)
		id := base.RangeID(asked.RangeId)
		if node == d.cfg.Node {
			out, err = d.leaseHere(ctx, id, q)
			return err
		}
		body, err := proto.Marshal(q)
		if err != nil {
			return err
		}
		out = &rangepb.LeaseAnswer{}
		err = d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_LEASE, body, out)
		var amb *base.Ambiguous
		if errors.As(err, &amb) && ctx.Err() == nil {
			return &base.NotLeader{Range: id} // it may have another leader by now
		}
		return err
	})
	return out, err
}

// leaseRaw answers another node.
func (d *Dispatcher) leaseRaw(id base.RangeID, raw []byte) (proto.Message, error) {
	q := &rangepb.LeaseQuestion{}
	if err := proto.Unmarshal(raw, q); err != nil {
		return nil, unreadable(err)
	}
	return d.leaseHere(d.ctx, id, q)
}

func (d *Dispatcher) leaseHere(ctx context.Context, id base.RangeID, q *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error) {
	if d.cfg.Leases == nil {
		return nil, errKnowsNoLeases
	}
	if err := d.leads(id); err != nil {
		return nil, err
	}
	return d.cfg.Leases.Answer(ctx, id, q)
}
