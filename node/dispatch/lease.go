package dispatch

import (
	"bytes"
	"context"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/desc"
)

// A client's lease lives in one range, its home (RFC 6). What is stored of it is changed by commands in the home's log. A lease that
// holds keys in other ranges is a guest there: here is how it becomes one, when a write needs it, and how it is ended in all of them.
// Each step may be repeated, and whoever leads the home goes on with what was broken off.

// GrantLease makes a lease. An id that is taken is refused as etcd does.
func (d *Dispatcher) GrantLease(ctx context.Context, ks base.KeyspaceID, id, ttl int64) (*kvpb.LeaseGrantResponse, error) {
	msg, err := d.propose(ctx, ks, eval.LeaseHome(id), &kvpb.Command{Body: &kvpb.Command_LeaseGrant{LeaseGrant: &kvpb.LeaseGrant{Id: id, Ttl: ttl}}})
	if err != nil {
		return nil, err
	}
	return msg.(*kvpb.LeaseGrantResponse), nil
}

// RevokeLease ends a lease and deletes its keys, and returns a revision that is not below that of their deletion.
func (d *Dispatcher) RevokeLease(ctx context.Context, ks base.KeyspaceID, id int64) (revision int64, err error) {
	resp, err := d.revoke(ctx, ks, &kvpb.LeaseRevoke{Id: id})
	if err != nil || resp.Ended {
		return resp.GetRevision(), err
	}
	return d.EndLease(ctx, ks, resp.Lease)
}

func (d *Dispatcher) revoke(ctx context.Context, ks base.KeyspaceID, req *kvpb.LeaseRevoke) (*kvpb.LeaseRevokeResponse, error) {
	msg, err := d.propose(ctx, ks, eval.LeaseHome(req.Id), &kvpb.Command{Body: &kvpb.Command_LeaseRevoke{LeaseRevoke: req}})
	if err != nil {
		return nil, err
	}
	return msg.(*kvpb.LeaseRevokeResponse), nil
}

// EndLease carries on with a lease that is ending. Nothing attaches to it any more; but its home may be cut meanwhile, and the part
// that it does not live in becomes one of its spans. A lease that is gone by now was ended by somebody else.
func (d *Dispatcher) EndLease(ctx context.Context, ks base.KeyspaceID, l *kvpb.LeaseRecord) (revision int64, err error) {
	for granted := l.GrantedRevision; ; {
		for _, span := range l.Spans {
			r, err := d.evict(ctx, ks, l, span)
			if err != nil {
				return 0, err
			}
			revision = max(revision, r)
		}
		resp, err := d.revoke(ctx, ks, &kvpb.LeaseRevoke{Id: l.Id, GrantedRevision: granted, Evicted: l.Spans})
		switch {
		case noLease(err):
			return revision, nil
		case err != nil:
			return 0, err
		}
		if revision = max(revision, resp.Revision); resp.Ended {
			return revision, nil
		}
		l = resp.Lease
	}
}

// evict takes a lease out of every range of a span. Where one ends that was visited is told by itself: it may have been cut since
// it was looked up.
func (d *Dispatcher) evict(ctx context.Context, ks base.KeyspaceID, l *kvpb.LeaseRecord, span *kvpb.LeaseSpan) (revision int64, err error) {
	for key := span.Start; ; {
		msg, err := d.propose(ctx, ks, key, &kvpb.Command{Body: &kvpb.Command_LeaseEvict{LeaseEvict: &kvpb.LeaseEvict{
			Key: key, Id: l.Id, GrantedRevision: l.GrantedRevision,
		}}})
		if err != nil {
			return 0, err
		}
		resp := msg.(*kvpb.LeaseEvictResponse)
		revision, key = max(revision, resp.Revision), resp.Span.GetEnd()
		if len(key) == 0 || len(span.End) > 0 && bytes.Compare(key, span.End) >= 0 {
			return revision, nil
		}
	}
}

// proposeFor is propose of a client's write. A range knows the leases that live in it and its guests; one that it does not know may
// live elsewhere. It is made a guest then, and the write is tried once more: that it was refused says that nothing happened.
func (d *Dispatcher) proposeFor(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error) {
	msg, err := d.propose(ctx, ks, key, cmd)
	if !ks.Splits() || !noLease(err) {
		return msg, err
	}
	leases := leasesOf(cmd)
	for range base.LeaseAdmitTries {
		there := 0
		for _, id := range leases {
			switch err := d.admit(ctx, ks, key, id); {
			case err == nil:
				there++
			case !noLease(err): // a transaction may go the way that puts nothing with this one
				return nil, err
			}
		}
		if there == 0 {
			return nil, err
		}
		if msg, err = d.propose(ctx, ks, key, cmd); !noLease(err) {
			return msg, err
		}
	}
	return nil, err
}

// admit makes a lease a guest in the range of a key. The refusal of its home, that there is no such lease, is the client's answer.
func (d *Dispatcher) admit(ctx context.Context, ks base.KeyspaceID, key []byte, id int64) error {
	ticket, err := d.Range(ctx, ks, &pb.RangeRequest{Key: key, CountOnly: true})
	if err != nil {
		return err
	}
	r, err := d.Descriptor(ctx, ks, key)
	if err != nil {
		return err
	}
	if desc.Contains(r, ks, eval.LeaseHome(id)) {
		return nil // its home: it knows best
	}
	span := &kvpb.LeaseSpan{Start: r.Start, End: r.End}
	msg, err := d.propose(ctx, ks, eval.LeaseHome(id), &kvpb.Command{Body: &kvpb.Command_LeaseAttach{LeaseAttach: &kvpb.LeaseAttach{Id: id, Span: span}}})
	if err != nil {
		return err
	}
	lease := msg.(*kvpb.LeaseAttachResponse).Lease
	// If it is not admitted, it was evicted since the ticket: the write is refused once more, and with a new ticket its home tells.
	_, err = d.propose(ctx, ks, key, &kvpb.Command{Body: &kvpb.Command_LeaseAdmit{LeaseAdmit: &kvpb.LeaseAdmit{
		Key: key, Id: id, GrantedRevision: lease.GrantedRevision, Ticket: ticket.Header.Revision, Span: span,
	}}})
	return err
}

// noLease says whether a command was refused for a lease that is not there.
func noLease(err error) bool {
	return err != nil && status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCLeaseNotFound).Message()
}

// leasesOf are the leases that a write gives keys to.
func leasesOf(cmd *kvpb.Command) (ids []int64) {
	switch body := cmd.Body.(type) {
	case *kvpb.Command_Put:
		req := &pb.PutRequest{}
		if proto.Unmarshal(body.Put, req) == nil {
			ids = addLease(ids, req)
		}
	case *kvpb.Command_Txn:
		req := &pb.TxnRequest{}
		if proto.Unmarshal(body.Txn, req) == nil {
			ids = leasesOfTxn(ids, req)
		}
	}
	return ids
}

func leasesOfTxn(ids []int64, txn *pb.TxnRequest) []int64 {
	for _, ops := range [][]*pb.RequestOp{txn.Success, txn.Failure} {
		for _, op := range ops {
			if nested := op.GetRequestTxn(); nested != nil {
				ids = leasesOfTxn(ids, nested)
			}
			ids = addLease(ids, op.GetRequestPut())
		}
	}
	return ids
}

func addLease(ids []int64, put *pb.PutRequest) []int64 {
	if id := put.GetLease(); id != 0 && !slices.Contains(ids, id) {
		ids = append(ids, id)
	}
	return ids
}
