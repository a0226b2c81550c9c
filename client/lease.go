package client

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Lease is what was granted: the keys that are put with it go when it ends.
type Lease struct {
	ID  int64
	TTL time.Duration // it ends so long after it was last kept alive, or later
}

// LeaseState is what is known of a lease.
type LeaseState struct {
	Lease
	Left time.Duration // until it ends, if nobody keeps it alive
	Keys []string
}

// Grant makes a lease in the keyspace. It lives at least as long as asked for, in whole seconds, and at least two. One whose grant is Ambiguous ends
// by itself.
func (k KV) Grant(ctx context.Context, ttl time.Duration) (Lease, error) {
	var resp *pb.LeaseGrantResponse
	req := &pb.LeaseGrantRequest{TTL: int64((ttl + time.Second - 1) / time.Second)}
	err := k.c.do(ctx, k.call(nil, writes, func(ctx context.Context, cc *grpc.ClientConn, opts ...grpc.CallOption) (err error) {
		resp, err = pb.NewLeaseClient(cc).LeaseGrant(ctx, req, opts...)
		return err
	}))
	if err != nil {
		return Lease{}, err
	}
	return Lease{ID: resp.ID, TTL: time.Duration(resp.TTL) * time.Second}, nil
}

// Revoke ends a lease, and deletes its keys. ErrLeaseNotFound: there is none of that id, any more or at all. What was Ambiguous may be
// asked for again.
func (k KV) Revoke(ctx context.Context, id int64) error {
	req := &pb.LeaseRevokeRequest{ID: id}
	return k.c.do(ctx, k.call(leaseHome(id), writes, func(ctx context.Context, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
		_, err := pb.NewLeaseClient(cc).LeaseRevoke(ctx, req, opts...)
		return err
	}))
}

// TimeToLive tells of a lease, with its keys if they are asked for. ErrLeaseNotFound: there is none.
func (k KV) TimeToLive(ctx context.Context, id int64, keys bool) (*LeaseState, error) {
	var resp *pb.LeaseTimeToLiveResponse
	req := &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys}
	err := k.c.do(ctx, k.call(leaseHome(id), reads, func(ctx context.Context, cc *grpc.ClientConn, opts ...grpc.CallOption) (err error) {
		resp, err = pb.NewLeaseClient(cc).LeaseTimeToLive(ctx, req, opts...)
		return err
	}))
	if err != nil {
		return nil, err
	}
	if resp.TTL < 0 { // how etcd says it
		return nil, ErrLeaseNotFound
	}
	s := &LeaseState{Lease: Lease{ID: id, TTL: time.Duration(resp.GrantedTTL) * time.Second}, Left: time.Duration(resp.TTL) * time.Second}
	for _, key := range resp.Keys {
		s.Keys = append(s.Keys, string(key))
	}
	return s, nil
}

// Leases lists the ids of the keyspace's leases.
func (k KV) Leases(ctx context.Context) (ids []int64, err error) {
	var resp *pb.LeaseLeasesResponse
	err = k.c.do(ctx, k.call(nil, reads, func(ctx context.Context, cc *grpc.ClientConn, opts ...grpc.CallOption) (err error) {
		resp, err = pb.NewLeaseClient(cc).LeaseLeases(ctx, &pb.LeaseLeasesRequest{}, opts...)
		return err
	}))
	for _, l := range resp.GetLeases() {
		ids = append(ids, l.ID)
	}
	return ids, err
}

// PutLeased writes a key that goes when the lease ends. ErrLeaseNotFound: it has ended, and nothing was written.
func (k KV) PutLeased(ctx context.Context, key string, value []byte, lease int64) (revision int64, err error) {
	r, err := k.Txn(ctx, Txn{Then: Do(PutLeasedOp(key, value, lease))})
	if err != nil {
		return 0, err
	}
	return r.Revision, nil
}

// PutLeasedOp writes a key that goes when the lease ends.
func PutLeasedOp(key string, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value, Lease: lease}}}
}

// leaseHome is the key by which the range is found that a lease lives in.
func leaseHome(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// again repeats what may be done twice, until its outcome is known or ctx ends.
func again(ctx context.Context, f func() error) error {
	for {
		err := f()
		var ambiguous *Ambiguous
		if !errors.As(err, &ambiguous) || ctx.Err() != nil {
			return err
		}
	}
}
