package serve

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
)

// memberService is etcd's Cluster service: members are the cluster's nodes, whether or not they hold a replica of
// the keyspace that etcd's clients see. Membership is changed by starting nodes, not through this service.
type memberService struct {
	pb.UnimplementedClusterServer
	cfg *Config
}

// MemberList lists the nodes: as `sys` has them now when linearizable, otherwise as this node knows them.
func (s *memberService) MemberList(ctx context.Context, req *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	nodes := s.cfg.Backend.Members()
	if req.Linearizable {
		var err error
		if nodes, err = join.ReadNodes(ctx, s.cfg.Backend); err != nil {
			return nil, err
		}
	}
	resp := &pb.MemberListResponse{Header: s.cfg.fillHeader(base.KeyspaceDefault, nil)}
	for _, n := range nodes {
		switch n.State {
		case metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED:
		default:
			resp.Members = append(resp.Members, toMember(n))
		}
	}
	return resp, nil
}

// toMember says where a node is. A node serves clients whatever replicas it holds, so none is a learner to them,
// whom their clients would pass by. One that was let in and has not started to serve has, as in etcd, no name and
// no client URLs yet.
func toMember(n *metapb.NodeRecord) *pb.Member {
	url := "http://" + n.Address
	m := &pb.Member{ID: n.NodeId, PeerURLs: []string{url}}
	if n.State != metapb.NodeState_NODE_STATE_JOINING {
		m.Name = nodeName(n.NodeId)
		m.ClientURLs = []string{url}
	}
	return m
}

func nodeName(id uint64) string { return fmt.Sprintf("n%d", id) }
