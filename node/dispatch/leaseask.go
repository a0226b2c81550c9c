package dispatch

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
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

// TimeToLive says how long a lease lasts if nobody keeps it alive; Remaining is -1 if there is no such lease.
func (d *Dispatcher) TimeToLive(ctx context.Context, ks base.KeyspaceID, id int64) (*rangepb.LeaseAnswer, error) {
	return d.askLease(ctx, ks, eval.LeaseHome(id), func(*metapb.RangeDescriptor) *rangepb.LeaseQuestion {
		return &rangepb.LeaseQuestion{TimeToLive: id}
	})
}

// LeaseKeys are the keys that a lease holds, in each range as that is when it is asked. They are in order.
func (d *Dispatcher) LeaseKeys(ctx context.Context, ks base.KeyspaceID, l *kvpb.LeaseRecord) (keys [][]byte, err error) {
	home := eval.LeaseHome(l.Id)
	spans := append([]*kvpb.LeaseSpan{{Start: home, End: append(home[:len(home):len(home)], 0)}}, l.Spans...)
	asked := make(map[string]struct{}) // a range may lie in two of the spans
	for _, span := range spans {
		err := d.eachRange(ctx, ks, span.Start, span.End, &rangepb.LeaseQuestion{KeysOf: l.Id}, func(a *rangepb.LeaseAnswer) {
			for _, key := range a.Keys {
				if _, twice := asked[string(key)]; !twice {
					asked[string(key)] = struct{}{}
					keys = append(keys, key)
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return keys, nil
}

// Leases are all leases of a keyspace, in the order of the ranges and of what each has them in.
func (d *Dispatcher) Leases(ctx context.Context, ks base.KeyspaceID) (ids []int64, revision int64, err error) {
	err = d.eachRange(ctx, ks, nil, nil, &rangepb.LeaseQuestion{List: true}, func(a *rangepb.LeaseAnswer) {
		ids, revision = append(ids, a.Leases...), max(revision, a.Revision)
	})
	return ids, revision, err
}

// eachRange asks the leaders of all ranges of a span one after the other, page by page. Where each ended that was asked is told by its
// answer.
func (d *Dispatcher) eachRange(ctx context.Context, ks base.KeyspaceID, start, end []byte, q *rangepb.LeaseQuestion, take func(*rangepb.LeaseAnswer)) error {
	for q.Start, q.From = start, nil; ; {
		a, err := d.askLease(ctx, ks, q.Start, func(*metapb.RangeDescriptor) *rangepb.LeaseQuestion { return q })
		if err != nil {
			return err
		}
		take(a)
		if q.From = a.Next; len(a.Next) > 0 {
			continue
		}
		if q.Start = a.End; len(a.End) == 0 || len(end) > 0 && bytes.Compare(a.End, end) >= 0 {
			return nil
		}
	}
}
