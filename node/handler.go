package node

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/transportpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/watch"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

// handler leads what arrives from other nodes, and what the store reports, to the member's parts.
type handler struct {
	n *Node
	m *member
}

// HandleFrame implements transport.Handler. A malformed frame is logged and dropped: its sender is another version,
// or not a node.
func (h handler) HandleFrame(from base.NodeID, class transport.Class, frame []byte) {
	var err error
	switch class {
	case transport.Raft:
		err = h.m.store.HandleRaft(from, frame)
	case transport.Support:
		err = h.m.store.HandleSupport(from, frame)
	case transport.Control:
		err = h.m.dispatch.HandleControl(from, frame)
	}
	if err != nil {
		h.n.cfg.Logger.Warn("a frame was dropped", "from", from, "error", err)
	}
}

// HandleBulk implements transport.Handler.
func (h handler) HandleBulk(ctx context.Context, from base.NodeID, s transport.BulkStream) error {
	return h.m.store.HandleSnapshot(ctx, from, s)
}

// PeerAddress implements transport.Handler.
func (h handler) PeerAddress(node base.NodeID, inc base.Incarnation, address string) {
	h.n.book.heard(node, inc, address)
}

// PeerDown implements transport.Handler.
func (h handler) PeerDown(node base.NodeID, reason error) {
	h.n.cfg.Logger.Info("a node cannot be reached", "node", node, "reason", reason)
	h.m.store.Unreachable(node)
	h.m.dispatch.PeerDown(node, reason)
	h.m.reconciler.Wake()
}

// PeerUp implements transport.Handler.
func (h handler) PeerUp(node base.NodeID) {
	h.n.cfg.Logger.Info("a node is reached", "node", node)
	h.m.reconciler.WakeAll()
}

// changed is told by the store of a new role, leader or descriptor.
func (h handler) changed(c raftgroup.StateChange) {
	h.n.cfg.Logger.Debug("replica changed", "range", c.Range, "replica", c.Replica, "role", c.Role, "term", c.Term,
		"leader", c.LeaderNode, "reason", c.Reason)
	if c.Range == base.RangeDefault {
		h.n.leaders.changed(c.LeaderNode)
	}
	h.m.dispatch.Changed(c)
	h.m.reconciler.Changed(c)
	h.m.placement.Changed(c)
	h.m.lessor.Changed(c)
	if c.Range == base.RangeSys {
		h.m.monitor.Changed()
		h.m.operate.Applied()
	}
}

// cold is told by the store of a replica that nobody has used for long: the node forgets where it is, too, unless it is one
// by which others are found.
func (h handler) cold(d *metapb.RangeDescriptor) {
	if base.KeyspaceID(d.GetKeyspaceId()) >= base.KeyspaceDefault {
		h.m.dispatch.Forget(d)
	}
}

// applied is told by the store that something was applied in a range.
func (h handler) applied(id base.RangeID) {
	h.m.reconciler.Written(id)
	h.m.lessor.Applied(id)
	if id == base.RangeSys {
		h.m.reconciler.NodesChanged()
		h.m.placement.SysChanged()
		h.m.monitor.Changed()
		h.m.operate.Applied()
	}
}

// leases is told by the store what has become of leases of clients.
func (h handler) leases(id base.RangeID, changes []apply.LeaseChange, moved bool) {
	h.m.lessor.Leases(id, changes, moved)
}

// indexed is told by the store that the index in a range has changed.
func (h handler) indexed(id base.RangeID, news []apply.Indexed) { h.m.placement.Indexed(id, news) }

// events is told by the store what was applied in a range that is watched here, gone that its replica has ended.
func (h handler) events(a watch.Applied) { h.m.watches.Applied(a) }
func (h handler) gone(id base.RangeID)   { h.m.watches.Gone(id) }

// lateTransport stands in the server for the transport's service, which must be registered before the server runs
// and exists only once the node is a member.
type lateTransport struct {
	transportpb.UnimplementedTransportServer
	impl atomic.Pointer[transportpb.TransportServer]
}

// RegisterService implements grpc.ServiceRegistrar for the one service that is put in later.
func (l *lateTransport) RegisterService(_ *grpc.ServiceDesc, impl any) {
	srv := impl.(transportpb.TransportServer)
	l.impl.Store(&srv)
}

// Frames implements transportpb.TransportServer.
func (l *lateTransport) Frames(s grpc.ClientStreamingServer[transportpb.Frame, transportpb.FramesDone]) error {
	if srv := l.impl.Load(); srv != nil {
		return (*srv).Frames(s)
	}
	return status.Error(codes.Unavailable, join.ErrNotInitialised.Error())
}

// Bulk implements transportpb.TransportServer.
func (l *lateTransport) Bulk(s grpc.BidiStreamingServer[transportpb.BulkMessage, transportpb.BulkMessage]) error {
	if srv := l.impl.Load(); srv != nil {
		return (*srv).Bulk(s)
	}
	return status.Error(codes.Unavailable, join.ErrNotInitialised.Error())
}
