package dispatch

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// Heartbeat tells the leader of `sys`, wherever it is, how this node is, and returns what it answers and which node that was. It
// changes nothing there that a second one would change again.
func (d *Dispatcher) Heartbeat(ctx context.Context, h *metapb.Heartbeat) (answer *metapb.HeartbeatAnswer, by base.NodeID, err error) {
	body, err := proto.Marshal(h)
	if err != nil {
		return nil, 0, err
	}
	err = d.retry(ctx, base.KeyspaceSys, nil, func(desc *metapb.RangeDescriptor, node base.NodeID) error {
		by = node
		if node == d.cfg.Node {
			m, err := d.heartbeatHere(body)
			if err == nil {
				answer = m.(*metapb.HeartbeatAnswer)
			}
			return err
		}
		answer = &metapb.HeartbeatAnswer{}
		id := base.RangeID(desc.RangeId)
		return d.retriable(ctx, id, d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_HEARTBEAT, body, answer))
	})
	if err != nil {
		return nil, 0, err
	}
	return answer, by, nil
}

// heartbeatHere takes a heartbeat on the leader of `sys`, and on no other node.
func (d *Dispatcher) heartbeatHere(raw []byte) (proto.Message, error) {
	st, ok := d.cfg.Store.State(base.RangeSys)
	if !ok || st.LeaderNode != d.cfg.Node {
		return nil, &base.NotLeader{Range: base.RangeSys, HintNode: st.LeaderNode, HintReplica: st.Leader}
	}
	if d.cfg.Heartbeat == nil {
		return nil, status.Error(codes.Unimplemented, "this node keeps no table of the nodes")
	}
	h := &metapb.Heartbeat{}
	if err := proto.Unmarshal(raw, h); err != nil {
		return nil, status.Error(codes.InvalidArgument, "the heartbeat cannot be read: "+err.Error())
	}
	if h.NodeId == 0 {
		return nil, status.Error(codes.InvalidArgument, "a heartbeat is some node's")
	}
	return d.cfg.Heartbeat(h)
}
