package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// contest is how etcd's clients agree on an owner: whoever wants to be it writes a key of its lease under one prefix, and the oldest of
// these keys owns. Locks and elections are this; etcd's own clients do the same by themselves, and both may take part in one contest.
//
// The create revision of the owner's key is its fencing token: who owns later has written later. That is true of the revisions of one
// range only, so that the prefix must lie in one when a key is written: the transaction that writes it reads the prefix too, and is
// refused if it lies in several.
type contest struct {
	kv *kvService
	ks base.KeyspaceID

	prefix []byte
	lease  int64

	key  []byte
	rev  int64 // the key's create revision: the token
	made bool  // by this call
}

var (
	errContestExpired = errors.New("mutex: session is expired") // etcd's words
	errContestCut     = status.Error(codes.FailedPrecondition, "etcdserver: the keys of this lock or election lie in several ranges: give it a name of its own, "+
		"or merge the ranges (cairn range merge)")
)

// contest is the one of a name, in the keyspace of the call.
func (s *contestService) contest(ctx context.Context, name []byte, lease int64) (*contest, error) {
	ks, err := s.cfg.keyspace(ctx)
	if err != nil {
		return nil, err
	}
	prefix := append(name[:len(name):len(name)], '/')
	return &contest{kv: &s.kv, ks: ks, prefix: prefix, lease: lease, key: fmt.Appendf(nil, "%s%x", prefix, lease)}, nil
}

// contestService is what the services of locks and elections have in common.
type contestService struct {
	cfg *Config
	kv  kvService
}

// session is the lease that a call is for. One that names none gets a lease that nobody keeps alive.
func (s *contestService) session(ctx context.Context, lease int64) (int64, error) {
	if lease != 0 {
		return lease, nil
	}
	resp, err := (&leaseService{cfg: s.cfg}).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: base.OrphanLeaseTTL})
	return resp.GetID(), err
}

func (c *contest) created(is pb.Compare_CompareResult, rev int64) *pb.Compare {
	return &pb.Compare{Result: is, Target: pb.Compare_CREATE, Key: c.key, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev}}
}

func opPut(req *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: req}}
}

func opRange(req *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: req}}
}

func opDelete(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
}

// oldest reads the owner's key.
func (c *contest) oldest() *pb.RangeRequest {
	return &pb.RangeRequest{Key: c.prefix, RangeEnd: prefixEnd(c.prefix), Limit: 1, SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND}
}

// enter writes the key, if the lease has none there yet. was is what it had; owns says whether it owns now.
func (c *contest) enter(ctx context.Context, value []byte) (h *pb.ResponseHeader, was *mvccpb.KeyValue, owns bool, err error) {
	resp, err := c.kv.txnWithin(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{c.created(pb.Compare_EQUAL, 0)},
		Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: c.key, Value: value, Lease: c.lease}), opRange(c.oldest())},
		Failure: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: c.key}), opRange(c.oldest())},
	})
	var several *base.SeveralRanges
	if errors.As(err, &several) {
		return nil, nil, false, errContestCut
	}
	if err != nil {
		return nil, nil, false, err
	}
	c.rev, c.made = resp.Header.Revision, resp.Succeeded
	if !resp.Succeeded {
		was = resp.Responses[0].GetResponseRange().Kvs[0]
		c.rev = was.CreateRevision
	}
	owner := resp.Responses[1].GetResponseRange().Kvs
	return resp.Header, was, len(owner) == 0 || owner[0].CreateRevision == c.rev, nil
}

// wait returns when every older key is gone: each waits for the one before it, so that one deletion wakes one.
func (c *contest) wait(ctx context.Context) error {
	for {
		resp, err := c.kv.rangeWithin(ctx, &pb.RangeRequest{
			Key: c.prefix, RangeEnd: prefixEnd(c.prefix), MaxCreateRevision: c.rev - 1, KeysOnly: true,
			Limit: 1, SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_DESCEND,
		})
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		older := ofKey(c.ks, resp.Kvs[0].Key, resp.Header.Revision+1)
		older.NoPut = true
		err = c.kv.cfg.await(ctx, older, func(*watch.Out) (bool, error) { return false, nil })
		if err != nil && !errors.Is(err, rpctypes.ErrGRPCCompacted) { // then it is looked at again
			return err
		}
	}
}

// leave takes the key away that this call has made, whatever became of its client.
func (c *contest) leave(ctx context.Context) {
	if c.made {
		_, _ = c.resign(context.WithoutCancel(ctx)) // what stays goes with the lease
	}
}

// resign deletes the key, if it is the one that was written.
func (c *contest) resign(ctx context.Context) (*pb.TxnResponse, error) {
	return c.kv.txnWithin(ctx, &pb.TxnRequest{Compare: []*pb.Compare{c.created(pb.Compare_EQUAL, c.rev)}, Success: []*pb.RequestOp{opDelete(c.key)}})
}

// held reads the key, which goes when the lease ends: nil if it is gone, or another's than this one's.
func (c *contest) held(ctx context.Context) (*pb.ResponseHeader, error) {
	resp, err := c.kv.rangeWithin(ctx, &pb.RangeRequest{Key: c.key, KeysOnly: true})
	if err != nil {
		return nil, err
	}
	if len(resp.Kvs) == 0 || resp.Kvs[0].CreateRevision != c.rev {
		return nil, errContestExpired
	}
	return resp.Header, nil
}

// prefixEnd is the first key behind all that begin with a contest's prefix, which ends with a slash.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// txnWithin is Txn in the time of one request: who waits for a lock has no time-out, but its steps have.
func (s *kvService) txnWithin(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.RequestTimeout, errServerTimeout)
	defer cancel()
	resp, err := s.Txn(ctx, req)
	return resp, timedOut(ctx, err)
}

func (s *kvService) rangeWithin(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.RequestTimeout, errServerTimeout)
	defer cancel()
	resp, err := s.Range(ctx, req)
	return resp, timedOut(ctx, err)
}
