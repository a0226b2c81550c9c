package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/operate"
	"github.com/cairndb/cairn/node/serve"
)

// This file gives node/operate what it needs of the node, and node/serve what it needs of both.

var _ serve.Operator = (*Node)(nil)

// newOperate makes the part of a member that keeps and carries on what people asked for.
func (n *Node) newOperate(m *member, self base.NodeID) (*operate.Manager, error) {
	return operate.New(operate.Config{
		Cluster: m.dispatch, Explain: m.dispatch.Explain, Report: m.dispatch.Report, Keyspaces: m.keyspaces.List, UnixMicros: n.faults.unixMicros, Now: m.store.Now, Logger: n.cfg.Logger,
		Leads:  func() bool { _, leads := m.leadsSys(); return leads },
		Holds:  func() bool { return m.store.Has(base.RangeSys) },
		Health: func(context.Context) []*metapb.NodeHealth { all, _, _ := m.monitor.Health(); return all },
		NodeStatus: func(ctx context.Context, node base.NodeID, ranges bool) (*clusterpb.NodeStatusResponse, error) {
			return n.nodeStatus(ctx, node == self, node, ranges)
		},
	})
}

// nodeStatus asks a node how it is; itself without a detour.
func (n *Node) nodeStatus(ctx context.Context, own bool, node base.NodeID, ranges bool) (*clusterpb.NodeStatusResponse, error) {
	if own {
		out := &clusterpb.NodeStatusResponse{Store: n.StoreMetrics()}
		var err error
		if ranges {
			out.Replicas, err = n.LocalReplicas(ctx)
		}
		return out, err
	}
	address, ok := n.book.Address(node)
	if !ok {
		return nil, fmt.Errorf("no address of %s is known", node)
	}
	conn, err := join.Dial(address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	resp, err := clusterpb.NewClusterClient(conn).NodeStatus(ctx, &clusterpb.NodeStatusRequest{Ranges: ranges})
	switch {
	case err != nil:
		return nil, errors.New(status.Convert(err).Message())
	case base.NodeID(resp.Node.GetNodeId()) != node:
		return nil, fmt.Errorf("%s answers at %s", base.NodeID(resp.Node.GetNodeId()), address)
	}
	return resp, nil
}

// Operate implements serve.Operator.
func (n *Node) Operate() (*operate.Manager, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.operate, nil
}

// Transfer implements serve.Operator: it asks again until the other leads, for Raft may drop a transfer, and ends when ctx does, or when a
// third leads.
func (n *Node) Transfer(ctx context.Context, id base.RangeID, to base.NodeID) error {
	m, err := n.notYet()
	if err != nil {
		return err
	}
	tick := time.NewTicker(base.HandOverPoll)
	defer tick.Stop()
	for {
		st, ok := m.store.State(id)
		switch {
		case ok && st.LeaderNode == to:
			return nil
		case !ok || st.LeaderNode != 0 && st.LeaderNode != n.self():
			return status.Errorf(codes.Aborted, "%s is led by %s now: try again", id, st.LeaderNode)
		}
		if i := slices.IndexFunc(st.Descriptor.GetReplicas(), func(r *metapb.Replica) bool { return base.NodeID(r.NodeId) == to }); i >= 0 {
			m.store.Transfer(id, base.ReplicaID(st.Descriptor.Replicas[i].ReplicaId))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return status.Errorf(codes.Unavailable, "%s did not take the leadership of %s over in time: its replica may be behind, see cairn range why %[2]s", to, id)
		}
	}
}

func (n *Node) self() base.NodeID { return base.NodeID(n.storeIdentity().NodeId) }
