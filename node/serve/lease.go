package serve

import (
	"context"
	"math/rand/v2"

	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/lessor"
	"github.com/cairndb/cairn/node/dispatch"
)

// Leases is what is done with the leases of clients, and known of them, wherever they live; node/dispatch has it. RFC 6 tells how.
type Leases interface {
	GrantLease(ctx context.Context, ks base.KeyspaceID, id, ttl int64) (*kvpb.LeaseGrantResponse, error)
	RevokeLease(ctx context.Context, ks base.KeyspaceID, id int64) (revision int64, err error)
	KeepAlive(ctx context.Context, ks base.KeyspaceID, ids []int64) ([]dispatch.Kept, error)
	AwaitEnd(ctx context.Context, ks base.KeyspaceID, id int64) (dispatch.Kept, error)
	TimeToLive(ctx context.Context, ks base.KeyspaceID, id int64) (*rangepb.LeaseAnswer, error)
	LeaseKeys(ctx context.Context, ks base.KeyspaceID, l *kvpb.LeaseRecord) ([][]byte, error)
	Leases(ctx context.Context, ks base.KeyspaceID) (ids []int64, revision int64, err error)
}

// leaseService is etcd's Lease service. A lease belongs to the keyspace that it was granted in.
type leaseService struct {
	pb.UnimplementedLeaseServer
	cfg *Config
}

// of is the leases of the request's keyspace.
func (s *leaseService) of(ctx context.Context) (Leases, base.KeyspaceID, error) {
	ks, err := s.cfg.keyspace(ctx)
	if err != nil {
		return nil, 0, err
	}
	l, err := s.cfg.Backend.Leases()
	return l, ks, err
}

func (s *leaseService) header(ks base.KeyspaceID, revision int64) *pb.ResponseHeader {
	return s.cfg.fillHeader(ks, &pb.ResponseHeader{Revision: revision})
}

// LeaseGrant makes a lease. A TTL that is too short to outlive a change of leaders is made longer, as in etcd.
func (s *leaseService) LeaseGrant(ctx context.Context, req *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	ttl, err := lessor.GrantTTL(req.TTL)
	if err != nil {
		return nil, err
	}
	leases, ks, err := s.of(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Backend.Admit(true); err != nil {
		return nil, err // as in etcd, for what was granted is to be stored
	}
	resp, err := grantLease(ctx, leases, ks, req.ID, ttl)
	if err != nil {
		return nil, err
	}
	return &pb.LeaseGrantResponse{Header: s.header(ks, resp.Revision), ID: resp.Lease.Id, TTL: resp.Lease.Ttl}, nil
}

// grantLease grants a lease; id 0: one is chosen.
func grantLease(ctx context.Context, leases Leases, ks base.KeyspaceID, id, ttl int64) (resp *kvpb.LeaseGrantResponse, err error) {
	if id != 0 {
		return leases.GrantLease(ctx, ks, id, ttl)
	}
	for range base.LeaseIDTries {
		resp, err = leases.GrantLease(ctx, ks, 1+rand.Int64N(1<<63-1), ttl) // only positive ones, as etcd
		if status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCLeaseExist).Message() {
			break
		}
	}
	return resp, err
}

// LeaseRevoke ends a lease and deletes its keys.
func (s *leaseService) LeaseRevoke(ctx context.Context, req *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	leases, ks, err := s.of(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Backend.Admit(false); err != nil {
		return nil, err
	}
	revision, err := leases.RevokeLease(ctx, ks, req.ID)
	if err != nil {
		return nil, err
	}
	return &pb.LeaseRevokeResponse{Header: s.header(ks, revision)}, nil
}

// LeaseTimeToLive says how long a lease lasts, and on request which keys it holds. One that is gone has a TTL of -1.
func (s *leaseService) LeaseTimeToLive(ctx context.Context, req *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	leases, ks, err := s.of(ctx)
	if err != nil {
		return nil, err
	}
	a, err := leases.TimeToLive(ctx, ks, req.ID)
	if err != nil {
		return nil, err
	}
	resp := &pb.LeaseTimeToLiveResponse{Header: s.header(ks, a.Revision), ID: req.ID, TTL: -1}
	if a.Lease == nil {
		return resp, nil
	}
	resp.TTL, resp.GrantedTTL = a.RemainingSeconds, a.Lease.Ttl
	if req.Keys {
		resp.Keys, err = leases.LeaseKeys(ctx, ks, a.Lease)
	}
	return resp, err
}

// LeaseLeases lists the leases of the keyspace.
func (s *leaseService) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	leases, ks, err := s.of(ctx)
	if err != nil {
		return nil, err
	}
	ids, revision, err := leases.Leases(ctx, ks)
	if err != nil {
		return nil, err
	}
	resp := &pb.LeaseLeasesResponse{Header: s.header(ks, revision), Leases: make([]*pb.LeaseStatus, len(ids))}
	for i, id := range ids {
		resp.Leases[i] = &pb.LeaseStatus{ID: id}
	}
	return resp, nil
}
