package serve

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
)

// ListNodes lists the records as `sys` has them, or as this node remembers them if `sys` cannot be read, and beside each what the
// leader of `sys` told this node last. What is older than base.HealthAge is not told: it may be of another time altogether.
func (s *clusterService) ListNodes(ctx context.Context, _ *clusterpb.ListNodesRequest) (*clusterpb.ListNodesResponse, error) {
	reading, cancel := context.WithTimeout(ctx, s.cfg.StatusTimeout)
	defer cancel()
	records, err := join.ReadNodes(reading, s.cfg.Backend)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		records = s.cfg.Backend.Members()
	}
	resp := &clusterpb.ListNodesResponse{Remembered: err != nil}
	healths, by, age := s.cfg.Backend.Health()
	byID := make(map[uint64]*metapb.NodeHealth, len(healths))
	if by != 0 && age <= base.HealthAge+healthPace(len(healths)) {
		resp.ToldBy = uint64(by)
		for _, h := range healths {
			byID[h.NodeId] = h
		}
	}
	for _, r := range records {
		resp.Nodes = append(resp.Nodes, &clusterpb.NodeInfo{Record: r, Health: aged(byID[r.NodeId], age)})
	}
	return resp, nil
}

// healthPace is how seldom a node of a large cluster is told of all of it.
func healthPace(nodes int) time.Duration {
	return time.Duration(nodes/base.HeartbeatNodes) * base.HeartbeatInterval
}

// aged is what was told a while ago, as of now.
func aged(h *metapb.NodeHealth, age time.Duration) *metapb.NodeHealth {
	if h == nil {
		return nil
	}
	h = proto.CloneOf(h)
	if h.HeardMicros >= 0 {
		h.HeardMicros += age.Microseconds()
	}
	if h.SuspectedMicros > 0 {
		h.SuspectedMicros += age.Microseconds()
	}
	return h
}
