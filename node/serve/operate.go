package serve

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/operate"
)

// What operators ask for. Most of it every node can do; what only a node can that has a replica of some range is passed on to one.

// Operator is what these handlers need of a node beside its Backend.
type Operator interface {
	// Operate is what does it; an error before the node is part of a cluster.
	Operate() (*operate.Manager, error)
	// Transfer hands the leadership of a range that this node leads to a voter on another, and returns when that one leads.
	Transfer(ctx context.Context, id base.RangeID, to base.NodeID) error
}

func (s *clusterService) operate() (*operate.Manager, error) {
	if s.cfg.Operator == nil {
		return nil, join.ErrNotInitialised
	}
	return s.cfg.Operator.Operate()
}

// status asks all nodes, for whoever must know how all of them are.
func (s *clusterService) status(ctx context.Context) *clusterpb.StatusResponse {
	return s.cfg.collect(ctx, true)
}

// StartOperation begins one.
func (s *clusterService) StartOperation(ctx context.Context, req *clusterpb.StartOperationRequest) (*clusterpb.StartOperationResponse, error) {
	m, err := s.operate()
	if err != nil {
		return nil, err
	}
	op, steps, err := m.Begin(ctx, req.Operation, req.DryRun, s.status)
	return &clusterpb.StartOperationResponse{Operation: op, Steps: steps}, err
}

// ListOperations lists those that go on, or all, or one.
func (s *clusterService) ListOperations(ctx context.Context, req *clusterpb.ListOperationsRequest) (*clusterpb.ListOperationsResponse, error) {
	m, err := s.operate()
	if err != nil {
		return nil, err
	}
	if req.OpId != 0 {
		op, err := m.Operation(ctx, req.OpId)
		return &clusterpb.ListOperationsResponse{Operations: []*metapb.Operation{op}}, err
	}
	ops, err := m.List(ctx, req.Ended)
	return &clusterpb.ListOperationsResponse{Operations: ops}, err
}

// ChangeOperation cancels, pauses or resumes one.
func (s *clusterService) ChangeOperation(ctx context.Context, req *clusterpb.ChangeOperationRequest) (*clusterpb.ChangeOperationResponse, error) {
	m, err := s.operate()
	if err != nil {
		return nil, err
	}
	op, err := m.Change(ctx, req.OpId, req.Change, req.DryRun)
	return &clusterpb.ChangeOperationResponse{Operation: op}, err
}

// WatchOperation sends one whenever it has changed. It is told of changes where a replica of `sys` is.
func (s *clusterService) WatchOperation(req *clusterpb.WatchOperationRequest, out grpc.ServerStreamingServer[clusterpb.WatchOperationResponse]) error {
	m, err := s.operate()
	if err != nil {
		return err
	}
	if s.holds(base.KeyspaceSys) {
		return m.Watch(out.Context(), req.OpId, func(op *metapb.Operation) error {
			return out.Send(&clusterpb.WatchOperationResponse{Operation: op})
		})
	}
	return s.pass(out.Context(), base.KeyspaceSys, nil, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		in, err := cl.WatchOperation(ctx, req)
		if err != nil {
			return err
		}
		for {
			resp, err := in.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = out.Send(resp)
			}
			if err != nil {
				return err
			}
		}
	})
}

// ChangeNode changes a node's record by hand.
func (s *clusterService) ChangeNode(ctx context.Context, req *clusterpb.ChangeNodeRequest) (*clusterpb.ChangeNodeResponse, error) {
	m, err := s.operate()
	if err != nil {
		return nil, err
	}
	rec, err := m.ChangeNode(ctx, req, s.status)
	return &clusterpb.ChangeNodeResponse{Record: rec}, err
}

// GetPolicy returns a policy.
func (s *clusterService) GetPolicy(ctx context.Context, req *clusterpb.GetPolicyRequest) (*clusterpb.GetPolicyResponse, error) {
	m, err := s.operate()
	if err != nil {
		return nil, err
	}
	stored, effective, err := m.Policy(ctx, req.Keyspace)
	return &clusterpb.GetPolicyResponse{Stored: stored, Effective: effective}, err
}

// SetPolicy replaces one.
func (s *clusterService) SetPolicy(ctx context.Context, req *clusterpb.SetPolicyRequest) (*clusterpb.SetPolicyResponse, error) {
	m, err := s.operate()
	if err != nil {
		return nil, err
	}
	p, warnings, err := m.SetPolicy(ctx, req.Keyspace, req.Policy, req.DryRun, s.status)
	return &clusterpb.SetPolicyResponse{Policy: p, Warnings: warnings}, err
}

// SafeToStop says whether nodes can be stopped at once.
func (s *clusterService) SafeToStop(ctx context.Context, req *clusterpb.SafeToStopRequest) (*clusterpb.SafeToStopResponse, error) {
	m, err := s.operate()
	if err != nil {
		return nil, err
	}
	return m.SafeToStop(ctx, req.NodeIds, time.Duration(min(req.HoldMicros, maxHoldMicros))*time.Microsecond, s.status)
}

// maxHoldMicros keeps the arithmetic of times in bounds; what is too long for a hold is refused below it.
const maxHoldMicros = uint64(365 * 24 * time.Hour / time.Microsecond)

// ExplainRange says what would be decided for a range.
func (s *clusterService) ExplainRange(ctx context.Context, req *clusterpb.ExplainRangeRequest) (*clusterpb.ExplainRangeResponse, error) {
	m, err := s.operate()
	if err != nil {
		return nil, err
	}
	e, by, err := m.Explain(ctx, base.RangeID(req.RangeId))
	return &clusterpb.ExplainRangeResponse{Explanation: e, Decider: uint64(by)}, err
}

// TransferRange hands a range's leadership over. Only its leader's node can.
func (s *clusterService) TransferRange(ctx context.Context, req *clusterpb.TransferRangeRequest) (*clusterpb.TransferRangeResponse, error) {
	m, err := s.operate()
	if err != nil {
		return nil, err
	}
	d, err := m.MayTransfer(ctx, base.RangeID(req.RangeId), base.NodeID(req.ToNode))
	if err != nil {
		return nil, err
	}
	own := s.cfg.Backend.Identity().NodeID
	ks := base.KeyspaceID(d.KeyspaceId)
	w := s.cfg.Backend.Where(ks, d.Start)
	resp := &clusterpb.TransferRangeResponse{FromNode: uint64(w.Leader), ToNode: req.ToNode}
	switch {
	case w.Leader == own && (req.DryRun || own == base.NodeID(req.ToNode)):
		return resp, nil
	case w.Leader == own:
		return resp, s.cfg.Operator.Transfer(ctx, base.RangeID(req.RangeId), base.NodeID(req.ToNode))
	}
	err = s.pass(ctx, ks, d.Start, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		resp, err = cl.TransferRange(ctx, req)
		return err
	})
	return resp, err
}

// holds says whether a replica of the first range of a keyspace is here.
func (s *clusterService) holds(ks base.KeyspaceID) bool {
	own := uint64(s.cfg.Backend.Identity().NodeID)
	return slices.ContainsFunc(s.cfg.Backend.Where(ks, nil).Range.GetReplicas(), func(r *metapb.Replica) bool { return r.NodeId == own })
}

// hopsHeader counts how often a request was passed on. Two hops are enough: to a node that has a replica, and to the leader that it knows.
const (
	hopsHeader = "cairn-hops"
	maxHops    = 3
)

// pass has a node that has a replica of the range of a key answer instead: the leader, if one is known here, and else those in turn
// that can be reached. Its answer is passed back as it is.
func (s *clusterService) pass(ctx context.Context, ks base.KeyspaceID, key []byte, f func(context.Context, clusterpb.ClusterClient) error) error {
	hops := 0
	if h := metadata.ValueFromIncomingContext(ctx, hopsHeader); len(h) > 0 {
		hops, _ = strconv.Atoi(h[0]) // it is a node's; what is not a number begins anew, and the next node counts on
	}
	w := s.cfg.Backend.Where(ks, key)
	last := error(&base.NotLeader{Range: base.RangeID(w.Range.GetRangeId())})
	if hops >= maxHops {
		return last
	}
	ctx = metadata.AppendToOutgoingContext(ctx, hopsHeader, strconv.Itoa(hops+1))
	own := s.cfg.Backend.Identity().NodeID
	nodes := []base.NodeID{w.Leader}
	if w.Leader == 0 {
		nodes = nil
		for _, r := range w.Range.GetReplicas() {
			nodes = append(nodes, base.NodeID(r.NodeId))
		}
	}
	members := s.cfg.Backend.Members()
	for _, n := range nodes {
		i := slices.IndexFunc(members, func(r *metapb.NodeRecord) bool { return base.NodeID(r.NodeId) == n })
		if n == own || i < 0 {
			continue
		}
		conn, err := s.cfg.Dial(members[i].Address)
		if err != nil {
			last = err
			continue
		}
		err = f(ctx, clusterpb.NewClusterClient(conn))
		_ = conn.Close()
		if !unreached(err) {
			return err
		}
		last = err
	}
	return last
}
