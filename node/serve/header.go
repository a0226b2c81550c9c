package serve

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
)

// fillHeader completes what evaluation left of a header (the revision) with who answers, as etcd does.
func (c *Config) fillHeader(ks base.KeyspaceID, h *pb.ResponseHeader) *pb.ResponseHeader {
	if h == nil {
		h = &pb.ResponseHeader{}
	}
	id := c.Backend.Identity()
	h.ClusterId, h.MemberId = id.ClusterID, uint64(id.NodeID)
	h.RaftTerm = c.Backend.RaftTerm(ks)
	return h
}
