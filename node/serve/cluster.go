package serve

import (
	"context"
	"slices"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// clusterService is Cairn's own service.
type clusterService struct {
	clusterpb.UnimplementedClusterServer
	cfg *Config
}

func (s *clusterService) Identity(context.Context, *clusterpb.IdentityRequest) (*clusterpb.IdentityResponse, error) {
	id := s.cfg.Backend.Identity()
	return &clusterpb.IdentityResponse{ClusterId: id.ClusterID, NodeId: uint64(id.NodeID), StoreUuid: id.StoreUUID,
		Version: id.Version, Address: id.Address, Incarnation: uint64(id.Incarnation)}, nil
}

func (s *clusterService) Init(ctx context.Context, _ *clusterpb.InitRequest) (*clusterpb.InitResponse, error) {
	return s.cfg.Membership.Init(ctx)
}

func (s *clusterService) Consent(ctx context.Context, req *clusterpb.ConsentRequest) (*clusterpb.ConsentResponse, error) {
	return s.cfg.Membership.Consent(ctx, req)
}

func (s *clusterService) Join(ctx context.Context, req *clusterpb.JoinRequest) (*clusterpb.JoinResponse, error) {
	return s.cfg.Membership.Join(ctx, req)
}

func (s *clusterService) Announce(ctx context.Context, req *clusterpb.AnnounceRequest) (*clusterpb.AnnounceResponse, error) {
	return s.cfg.Membership.Announce(ctx, req)
}

// Status asks every node and merges the answers.
func (s *clusterService) Status(ctx context.Context, req *clusterpb.StatusRequest) (*clusterpb.StatusResponse, error) {
	return s.cfg.collect(ctx, req.Ranges), ctx.Err()
}

// Check looks whether the cluster is what it must be.
func (s *clusterService) Check(req *clusterpb.CheckRequest, out grpc.ServerStreamingServer[clusterpb.CheckResponse]) error {
	status := func(ctx context.Context) *clusterpb.StatusResponse { return s.cfg.collect(ctx, true) }
	return s.cfg.Backend.Check(out.Context(), req, status, out.Send)
}

// NodeStatus is this node alone.
func (s *clusterService) NodeStatus(ctx context.Context, req *clusterpb.NodeStatusRequest) (*clusterpb.NodeStatusResponse, error) {
	return s.cfg.nodeStatus(ctx, req.Ranges)
}

func (c *Config) nodeStatus(ctx context.Context, ranges bool) (*clusterpb.NodeStatusResponse, error) {
	resp := &clusterpb.NodeStatusResponse{Node: c.ownRecord(), Store: c.Backend.StoreMetrics(), Supports: c.Backend.Supports()}
	if !ranges {
		return resp, nil
	}
	replicas, err := c.Backend.LocalReplicas(ctx)
	if err != nil {
		return nil, err
	}
	resp.Replicas = replicas
	return resp, nil
}

// ownRecord is this node as its members know it, or as it knows itself until it has been announced to them.
func (c *Config) ownRecord() *metapb.NodeRecord {
	id := c.Backend.Identity()
	members := c.Backend.Members()
	if i := slices.IndexFunc(members, func(n *metapb.NodeRecord) bool {
		return base.NodeID(n.NodeId) == id.NodeID
	}); i >= 0 {
		return members[i]
	}
	return &metapb.NodeRecord{NodeId: uint64(id.NodeID), StoreUuid: id.StoreUUID, Address: id.Address,
		Version: id.Version, Incarnation: uint64(id.Incarnation), State: metapb.NodeState_NODE_STATE_JOINING}
}
