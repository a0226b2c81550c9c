package serve

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
)

// EtcdVersion is the version of etcd whose API this is. Clients gate features on it: Kubernetes asks for at least
// 3.5.13 before it trusts a watch's progress. It says nothing about Cairn's own version.
const EtcdVersion = "3.6.0"

// maintenanceService is etcd's Maintenance service, as far as Cairn can answer it truthfully.
type maintenanceService struct {
	pb.UnimplementedMaintenanceServer
	cfg     *Config
	streams *sync.WaitGroup // handlers that may outlive their streams for a moment
}

// Status is this node's view of the first range of the request's keyspace: of a single keyspace's only one.
func (s *maintenanceService) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	ks, err := s.cfg.keyspace(ctx)
	if err != nil {
		return nil, err
	}
	id := base.RangeDefault
	if ks != base.KeyspaceDefault {
		id = base.RangeID(s.cfg.Backend.Where(ks, nil).Range.GetRangeId())
	}
	replicas, err := s.cfg.Backend.LocalReplicas(ctx)
	if err != nil {
		return nil, err
	}
	total, inUse := s.cfg.Backend.StoreStats()
	resp := &pb.StatusResponse{Header: s.cfg.fillHeader(ks, nil), Version: EtcdVersion, StorageVersion: EtcdVersion,
		DbSize: total, DbSizeInUse: inUse}
	own := find(replicas, id)
	if own == nil {
		// A node without a replica of that range serves its clients all the same. Others know the leader.
		entry := findRange(s.cfg.collect(ctx, true), id)
		resp.Leader, resp.RaftTerm = entry.GetLeaderNode(), entry.GetTerm()
		resp.Header.RaftTerm = resp.RaftTerm
	} else {
		resp.Leader = nodeOf(own.Descriptor_, leaderOf(own))
		resp.RaftIndex, resp.RaftTerm, resp.RaftAppliedIndex = own.Commit, own.Term, own.Applied
		resp.IsLearner = roleOf(own.Descriptor_, own.ReplicaId) == metapb.ReplicaRole_REPLICA_ROLE_LEARNER
		resp.Header.Revision = own.Revision
	}
	resp.DbSizeQuota, resp.DowngradeInfo = s.cfg.Backend.Quota(), &pb.DowngradeInfo{}
	for _, a := range s.cfg.Backend.Alarms() {
		resp.Errors = append(resp.Errors, a.String())
	}
	if resp.Leader == 0 {
		resp.Errors = append(resp.Errors, rpctypes.ErrNoLeader.Error())
	}
	return resp, nil
}

// MoveLeader hands the leadership of a single keyspace's range to another member. As in etcd, only its leader does.
func (s *maintenanceService) MoveLeader(ctx context.Context, req *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	ks, err := s.cfg.keyspace(ctx)
	if err != nil {
		return nil, err
	}
	if ks.Splits() {
		return nil, status.Error(codes.FailedPrecondition,
			"etcdserver: the keyspace is sharded, and each of its ranges has a leader of its own: see cairn range transfer")
	}
	if s.cfg.Operator == nil {
		return nil, join.ErrNotInitialised
	}
	own, w := s.cfg.Backend.Identity().NodeID, s.cfg.Backend.Where(ks, nil)
	if w.Leader != own {
		return nil, rpctypes.ErrGRPCNotLeader
	}
	if !slices.ContainsFunc(w.Range.GetReplicas(), func(r *metapb.Replica) bool {
		return r.NodeId == req.TargetID && r.Role == metapb.ReplicaRole_REPLICA_ROLE_VOTER
	}) {
		return nil, rpctypes.ErrGRPCBadLeaderTransferee
	}
	m, err := s.cfg.Operator.Operate()
	if err != nil {
		return nil, err
	}
	id, to := base.RangeID(w.Range.RangeId), base.NodeID(req.TargetID)
	if _, err := m.MayTransfer(ctx, id, to); err != nil {
		return nil, err // it is drained
	}
	if to != own {
		err = s.cfg.Operator.Transfer(ctx, id, to)
	}
	return &pb.MoveLeaderResponse{Header: s.cfg.fillHeader(ks, nil)}, err
}

// Defragment gives disk space of this node's back. Unlike etcd's it holds nobody up.
func (s *maintenanceService) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	ks, err := s.cfg.keyspace(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Backend.Defragment(ctx, ks); err != nil {
		return nil, err
	}
	return &pb.DefragmentResponse{Header: s.cfg.fillHeader(ks, nil)}, nil
}

// HashKV hashes the request's keyspace at a revision: from this node's replicas, and, where it has none, from those of others.
func (s *maintenanceService) HashKV(ctx context.Context, req *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	ks, err := s.cfg.keyspace(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := s.cfg.Backend.HashKV(ctx, ks, req.Revision)
	if err != nil {
		return nil, err
	}
	resp.Header = s.cfg.fillHeader(ks, resp.Header)
	return resp, nil
}

// Hash is of etcd's file, which differs from member to member: there is none here, and nothing could be done with it.
func (s *maintenanceService) Hash(context.Context, *pb.HashRequest) (*pb.HashResponse, error) {
	return nil, status.Error(codes.Unimplemented, "there is no file to hash here: HashKV compares what members hold")
}

// Alarm lists, raises and takes back alarms, as etcd does.
func (s *maintenanceService) Alarm(ctx context.Context, req *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	alarms, err := s.cfg.Backend.Alarm(ctx, req)
	if err != nil {
		return nil, err
	}
	return &pb.AlarmResponse{Header: s.cfg.fillHeader(base.KeyspaceDefault, nil), Alarms: alarms}, nil
}

// Downgrade prepares etcd's members for an older version of etcd. Cairn's nodes need none of it.
func (s *maintenanceService) Downgrade(context.Context, *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	return nil, status.Error(codes.Unimplemented, "etcdserver: this is a cluster of Cairn, which has no downgrade of etcd's: a store that an older "+
		"version of cairn cannot read is refused by it; see cairn version and cairn snapshot")
}

func find(replicas []*clusterpb.ReplicaStatus, id base.RangeID) *clusterpb.ReplicaStatus {
	for _, r := range replicas {
		if base.RangeID(r.Descriptor_.GetRangeId()) == id {
			return r
		}
	}
	return nil
}

func findRange(ranges *clusterpb.StatusResponse, id base.RangeID) *clusterpb.RangeEntry {
	for _, r := range ranges.Ranges {
		if base.RangeID(r.Descriptor_.GetRangeId()) == id {
			return r
		}
	}
	return nil
}
