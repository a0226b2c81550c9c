// Package leaseway is what a gateway does, step after step, with a lease of a client that lives in one range, its home, and holds keys in
// others (RFC 6): how it becomes a guest there when a write needs it, and how it is ended in all of them. What is stored of it is changed
// by commands in the logs of these ranges. Each step may be repeated, and whoever leads the home goes on with what was broken off.
//
// Who carries out a step is handed in: node/dispatch does with a goroutine that waits, and the simulator between two of which a node may die.
package leaseway

import (
	"bytes"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/desc"
)

// Carrier carries out one step at a time.
type Carrier interface {
	// Propose carries a command to the range that holds key, and returns its response.
	Propose(key []byte, cmd *kvpb.Command) (proto.Message, error)
	// Ask asks the leader of that range.
	Ask(key []byte, q *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error)
	// Revision is that of the range, at a moment after it was asked for.
	Revision(key []byte) (int64, error)
	// Descriptor is the range's own.
	Descriptor(key []byte) (*metapb.RangeDescriptor, error)
}

// Way is to the leases of a keyspace.
type Way struct {
	Keyspace base.KeyspaceID
	Carrier
}

// Grant makes a lease. An id that is taken is refused as etcd does.
func (w Way) Grant(id, ttl int64) (*kvpb.LeaseGrantResponse, error) {
	msg, err := w.Propose(eval.LeaseHome(id), &kvpb.Command{Body: &kvpb.Command_LeaseGrant{LeaseGrant: &kvpb.LeaseGrant{Id: id, Ttl: ttl}}})
	if err != nil {
		return nil, err
	}
	return msg.(*kvpb.LeaseGrantResponse), nil
}

// Revoke ends a lease and deletes its keys, and returns a revision that is not below that of their deletion.
func (w Way) Revoke(id int64) (revision int64, err error) {
	resp, err := w.revoke(&kvpb.LeaseRevoke{Id: id})
	if err != nil || resp.Ended {
		return resp.GetRevision(), err
	}
	return w.End(resp.Lease)
}

func (w Way) revoke(req *kvpb.LeaseRevoke) (*kvpb.LeaseRevokeResponse, error) {
	msg, err := w.Propose(eval.LeaseHome(req.Id), &kvpb.Command{Body: &kvpb.Command_LeaseRevoke{LeaseRevoke: req}})
	if err != nil {
		return nil, err
	}
	return msg.(*kvpb.LeaseRevokeResponse), nil
}

// End carries on with a lease that is ending. Nothing attaches to it any more; but its home may be cut meanwhile, and the part that it does
// not live in becomes one of its spans. A lease that is gone by now was ended by somebody else.
func (w Way) End(l *kvpb.LeaseRecord) (revision int64, err error) {
	for granted := l.GrantedRevision; ; {
		for _, span := range l.Spans {
			r, err := w.evict(l, span)
			if err != nil {
				return 0, err
			}
			revision = max(revision, r)
		}
		resp, err := w.revoke(&kvpb.LeaseRevoke{Id: l.Id, GrantedRevision: granted, Evicted: l.Spans})
		switch {
		case NotFound(err):
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
func (w Way) evict(l *kvpb.LeaseRecord, span *kvpb.LeaseSpan) (revision int64, err error) {
	for key := span.Start; ; {
		msg, err := w.Propose(key, &kvpb.Command{Body: &kvpb.Command_LeaseEvict{LeaseEvict: &kvpb.LeaseEvict{
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

// Write proposes a client's write. A range knows the leases that live in it and its guests; one that it does not know may live
// elsewhere. It is made a guest then, and the write is tried once more: that it was refused says that nothing happened.
func (w Way) Write(key []byte, cmd *kvpb.Command) (proto.Message, error) {
	msg, err := w.Propose(key, cmd)
	if !w.Keyspace.Splits() || !NotFound(err) {
		return msg, err
	}
	leases := leasesOf(cmd)
	for range base.LeaseAdmitTries {
		there := 0
		for _, id := range leases {
			switch err := w.admit(key, id); {
			case err == nil:
				there++
			case !NotFound(err): // a transaction may go the way that puts nothing with this one
				return nil, err
			}
		}
		if there == 0 {
			return nil, err
		}
		if msg, err = w.Propose(key, cmd); !NotFound(err) {
			return msg, err
		}
	}
	return nil, err
}

// admit makes a lease a guest in the range of a key. The refusal of its home, that there is no such lease, is the client's answer.
func (w Way) admit(key []byte, id int64) error {
	ticket, err := w.Revision(key)
	if err != nil {
		return err
	}
	r, err := w.Descriptor(key)
	if err != nil {
		return err
	}
	if desc.Contains(r, w.Keyspace, eval.LeaseHome(id)) {
		return nil // its home: it knows best
	}
	span := &kvpb.LeaseSpan{Start: r.Start, End: r.End}
	msg, err := w.Propose(eval.LeaseHome(id), &kvpb.Command{Body: &kvpb.Command_LeaseAttach{LeaseAttach: &kvpb.LeaseAttach{Id: id, Span: span}}})
	if err != nil {
		return err
	}
	lease := msg.(*kvpb.LeaseAttachResponse).Lease
	// If it is not admitted, it was evicted since the ticket: the write is refused once more, and with a new ticket its home tells.
	_, err = w.Propose(key, &kvpb.Command{Body: &kvpb.Command_LeaseAdmit{LeaseAdmit: &kvpb.LeaseAdmit{
		Key: key, Id: id, GrantedRevision: lease.GrantedRevision, Ticket: ticket, Span: span,
	}}})
	return err
}

// TimeToLive says how long a lease lasts if nobody keeps it alive; Remaining is -1 if there is no such lease.
func (w Way) TimeToLive(id int64) (*rangepb.LeaseAnswer, error) {
	return w.Ask(eval.LeaseHome(id), &rangepb.LeaseQuestion{TimeToLive: id})
}

// Keys are the keys that a lease holds, in each range as that is when it is asked. They are in order.
func (w Way) Keys(l *kvpb.LeaseRecord) (keys [][]byte, err error) {
	home := eval.LeaseHome(l.Id)
	spans := append([]*kvpb.LeaseSpan{{Start: home, End: append(home[:len(home):len(home)], 0)}}, l.Spans...)
	asked := make(map[string]struct{}) // a range may lie in two of the spans
	for _, span := range spans {
		err := w.eachRange(span.Start, span.End, &rangepb.LeaseQuestion{KeysOf: l.Id}, func(a *rangepb.LeaseAnswer) {
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

// List is all leases of the keyspace, in the order of the ranges and of what each has them in.
func (w Way) List() (ids []int64, revision int64, err error) {
	err = w.eachRange(nil, nil, &rangepb.LeaseQuestion{List: true}, func(a *rangepb.LeaseAnswer) {
		ids, revision = append(ids, a.Leases...), max(revision, a.Revision)
	})
	return ids, revision, err
}

// eachRange asks the leaders of all ranges of a span one after the other, page by page. Where each ended that was asked is told by its
// answer.
func (w Way) eachRange(start, end []byte, q *rangepb.LeaseQuestion, take func(*rangepb.LeaseAnswer)) error {
	for q.Start = start; ; {
		a, err := w.Ask(q.Start, proto.CloneOf(q))
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

// NotFound says whether a command was refused for a lease that is not there.
func NotFound(err error) bool {
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
