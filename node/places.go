package node

import (
	"context"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/dispatch"
	"github.com/cairndb/cairn/node/placement"
)

// newPlacement makes the node's part in placing replicas, which it runs from the day that it is a member.
func (n *Node) newPlacement(m *member, self base.NodeID) *placement.Placement {
	return placement.New(placement.Config{
		Node: self, Store: m.store, Dispatch: m.dispatch, Nodes: n.book.all, UnixMicros: n.faults.unixMicros, Logger: n.cfg.Logger,
		Health: func() []*metapb.NodeHealth {
			nodes, _, _ := m.monitor.Health()
			return nodes
		},
		Unfit: func() string {
			if err := m.fence.Check(); err != nil {
				return err.Error()
			}
			return ""
		},
		Load:   func() *metapb.NodeLoad { return m.monitor.Load() },
		Ranges: func(ctx context.Context) ([]*clusterpb.IndexedRange, error) { return m.keyspaces.Ranges(ctx, "") },
	})
}

// places is what the node answers those that place replicas.
type places struct{ m *member }

var _ dispatch.Placement = places{}

// Direct implements dispatch.Placement.
func (p places) Direct(id base.RangeID, d *rangepb.Directive) *rangepb.DirectiveAnswer {
	return p.m.reconciler.Direct(id, d)
}

// Reserve implements dispatch.Placement.
func (p places) Reserve(r *rangepb.Reserve) *rangepb.Reservation { return p.m.placement.Reserve(r) }

// Report implements dispatch.Placement.
func (p places) Report(r *rangepb.ReportRequest) *rangepb.Report { return p.m.placement.Report(r) }

// Explain implements dispatch.Placement.
func (p places) Explain(ctx context.Context, index base.RangeID, d *metapb.RangeDescriptor) (*metapb.Explanation, error) {
	return p.m.placement.ExplainHere(ctx, index, d)
}

// leases answers questions about leases of clients once the node's lessor is there (dispatch.Leases).
type leases struct{ m *member }

// Answer implements dispatch.Leases.
func (l leases) Answer(ctx context.Context, id base.RangeID, q *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error) {
	return l.m.lessor.AnswerWithin(ctx, id, q)
}
