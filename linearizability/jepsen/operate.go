package jepsen

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
)

// What an operator does, nemeses do the same way: through the cluster's own service, of whichever node answers.

const (
	// failedAfter is the policy of a run's cluster for how long a node is suspect before it is failed: longer than a start of a
	// process takes on a busy machine, and short enough for a stage.
	failedAfter = 8 * time.Second
	// failedShare lets one node of three be replaced: a run's cluster is small, and a share is large there.
	failedShare = 0.67
	// pauseLatency lets moves go on while writes take twenty times what is normal: all nodes share one machine with their clients and
	// with whatever else runs there, and what it is busy with is no sign of too many moves.
	pauseLatency = 20_000
	// operationTime bounds what an operator waits for in one nemesis: replicas of all ranges move to other nodes.
	operationTime = 90 * time.Second
)

// declined is what the cluster said no to; it is not broken.
type declined struct{ why string }

func (e *declined) Error() string { return "refused: " + e.why }

// operator asks node after node until one does it, or refuses.
func (c *Cluster) operator(ctx context.Context, what func(context.Context, clusterpb.ClusterClient) error) (err error) {
	for {
		for i := range c.Nodes {
			err = c.ask(ctx, i, changeTime, what)
			switch status.Code(err) {
			case codes.OK:
				return nil
			case codes.FailedPrecondition, codes.InvalidArgument, codes.NotFound, codes.Unimplemented:
				return &declined{status.Convert(err).Message()}
			}
		}
		if !pause(ctx, nil, askAgain) {
			return err
		}
	}
}

// setPolicy makes the cluster give nodes up as soon as a run needs.
func (c *Cluster) setPolicy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err := c.operator(ctx, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		now, err := cl.GetPolicy(ctx, &clusterpb.GetPolicyRequest{})
		if err != nil {
			return err
		}
		p := now.Stored
		if p.Cluster == nil {
			p.Cluster = &metapb.ClusterPolicy{}
		}
		p.Cluster.FailedAfterMillis, p.Cluster.FailedAfterOwnMillis = uint64(failedAfter.Milliseconds()), uint64(failedAfter.Milliseconds())
		p.Cluster.PauseLatencyPermille = pauseLatency
		p.Cluster.FailedSharePermille, p.Cluster.FailedTier = uint32(1000*failedShare), "none"
		_, err = cl.SetPolicy(ctx, &clusterpb.SetPolicyRequest{Policy: p})
		return err
	})
	if err != nil {
		return fmt.Errorf("the policy of the run could not be set: %w", err)
	}
	return nil
}

// errRemembered: the node could not read the records.
var errRemembered = errors.New("the records could not be read")

// members are the nodes' records, as `sys` has them now.
func (c *Cluster) members(ctx context.Context) (nodes []*clusterpb.NodeInfo, err error) {
	err = c.operator(ctx, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		resp, err := cl.ListNodes(ctx, &clusterpb.ListNodesRequest{})
		if err == nil && resp.Remembered {
			return errRemembered
		}
		nodes = resp.GetNodes()
		return err
	})
	return nodes, err
}

// record is the record of the node that lives at a place of the cluster.
func (c *Cluster) record(ctx context.Context, n *Node) (*metapb.NodeRecord, error) {
	all, err := c.members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.Record.Address == n.ClientAddr && !over(m.Record) {
			return m.Record, nil
		}
	}
	return nil, fmt.Errorf("%s has no record", n.Name)
}

// over says whether a node can never come back under its record.
func over(r *metapb.NodeRecord) bool {
	return r.State == metapb.NodeState_NODE_STATE_LEFT || r.State == metapb.NodeState_NODE_STATE_REPLACED
}

func active(r *metapb.NodeRecord) bool { return r.State == metapb.NodeState_NODE_STATE_ACTIVE }

// await waits until a node's record is as it is to be.
func (c *Cluster) await(ctx context.Context, n *Node, what string, is func(*metapb.NodeRecord) bool) (*metapb.NodeRecord, error) {
	for {
		r, err := c.record(ctx, n)
		if err == nil && is(r) {
			return r, nil
		}
		if !pause(ctx, nil, askAgain) {
			return nil, fmt.Errorf("%s did not come to be %s: %v (%w)", n.Name, what, r, errors.Join(err, ctx.Err()))
		}
	}
}

// begin starts an operation and returns its id.
func (c *Cluster) begin(ctx context.Context, op *metapb.Operation) (id uint64, err error) {
	err = c.operator(ctx, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		resp, err := cl.StartOperation(ctx, &clusterpb.StartOperationRequest{Operation: op})
		id = resp.GetOperation().GetOpId()
		return err
	})
	return id, err
}

// running lists the operations that have not ended.
func (c *Cluster) running(ctx context.Context) (ops []*metapb.Operation, err error) {
	err = c.operator(ctx, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		resp, err := cl.ListOperations(ctx, &clusterpb.ListOperationsRequest{})
		ops = resp.GetOperations()
		return err
	})
	return ops, err
}

// watch follows an operation until enough says so of it, or it has ended. It goes on at another node where one breaks off.
func (c *Cluster) watch(ctx context.Context, id uint64, enough func(*metapb.Operation) bool) (op *metapb.Operation, err error) {
	for {
		for i := range c.Nodes {
			err = c.ask(ctx, i, operationTime, func(ctx context.Context, cl clusterpb.ClusterClient) error {
				in, err := cl.WatchOperation(ctx, &clusterpb.WatchOperationRequest{OpId: id})
				if err != nil {
					return err
				}
				for {
					resp, err := in.Recv()
					if err != nil {
						return err // io.EOF too, for it has ended then
					}
					if op = resp.Operation; enough(op) || ended(op) {
						return nil
					}
				}
			})
			if op != nil && (enough(op) || ended(op)) {
				return op, nil
			}
		}
		if !pause(ctx, nil, askAgain) {
			return op, fmt.Errorf("operation %d: %s: %w", id, opText(op), errors.Join(err, ctx.Err()))
		}
	}
}

func ended(op *metapb.Operation) bool {
	switch op.State {
	case metapb.OperationState_OPERATION_STATE_DONE, metapb.OperationState_OPERATION_STATE_CANCELLED, metapb.OperationState_OPERATION_STATE_FAILED:
		return true
	}
	return false
}

func opText(op *metapb.Operation) string {
	if op == nil {
		return "nobody told anything of it"
	}
	return fmt.Sprintf("%s of %v, range %d to %v: %s, %d of %d left, waiting: %q, outcome: %q", op.Kind, op.Nodes, op.RangeId, op.Voters, op.State,
		op.Left, op.Total, op.Waiting, op.Outcome)
}

// carryOut begins an operation and waits until it is done. A refusal is *declined; what does not end in its time, or badly, is an error.
func (c *Cluster) carryOut(ctx context.Context, op *metapb.Operation) error {
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	id, err := c.begin(ctx, op)
	if err != nil {
		return err
	}
	got, err := c.watch(ctx, id, ended)
	if err == nil && got.State != metapb.OperationState_OPERATION_STATE_DONE {
		err = fmt.Errorf("operation %d ended badly: %s", id, opText(got))
	}
	return err
}

// cancelOp ends an operation, if it has not ended.
func (c *Cluster) cancelOp(ctx context.Context, id uint64) error {
	err := c.operator(ctx, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		_, err := cl.ChangeOperation(ctx, &clusterpb.ChangeOperationRequest{OpId: id, Change: clusterpb.OperationChange_OPERATION_CHANGE_CANCEL})
		return err
	})
	var no *declined
	if errors.As(err, &no) {
		return nil // it has ended
	}
	return err
}

// change changes a node's record by hand.
func (c *Cluster) change(ctx context.Context, node uint64, to clusterpb.NodeChange) error {
	return c.operator(ctx, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		_, err := cl.ChangeNode(ctx, &clusterpb.ChangeNodeRequest{NodeId: node, Change: to})
		return err
	})
}

// stoppable waits until the cluster says that a node can be stopped.
func (c *Cluster) stoppable(ctx context.Context, node uint64) error {
	for {
		var resp *clusterpb.SafeToStopResponse
		err := c.operator(ctx, func(ctx context.Context, cl clusterpb.ClusterClient) (err error) {
			resp, err = cl.SafeToStop(ctx, &clusterpb.SafeToStopRequest{NodeIds: []uint64{node}})
			return err
		})
		if err == nil && resp.Safe {
			return nil
		}
		if !pause(ctx, nil, askAgain) {
			return fmt.Errorf("n%d never could be stopped: %v: %w", node, resp.GetFindings(), errors.Join(err, ctx.Err()))
		}
	}
}

// holding are the ranges that have a replica on a node, as the index says, and no more than some replicas.
func (c *Cluster) holding(ctx context.Context, node uint64, most int) (ids []uint64, err error) {
	all, err := c.tiled(ctx)
	for _, r := range all {
		if len(r.Descriptor_.GetReplicas()) <= most && slices.ContainsFunc(r.Descriptor_.GetReplicas(), func(x *metapb.Replica) bool { return x.NodeId == node }) {
			ids = append(ids, r.Descriptor_.GetRangeId())
		}
	}
	return ids, err
}

// vacated waits until no range has a replica on a node for which another node could have one: those that all others hold, as Cairn's own
// are in a small cluster, keep the place for it.
func (c *Cluster) vacated(ctx context.Context, node uint64) error {
	for {
		left, err := c.holding(ctx, node, len(c.Nodes)-1)
		if err == nil && len(left) == 0 {
			return nil
		}
		if !pause(ctx, nil, askAgain) {
			return fmt.Errorf("ranges %v still have replicas on n%d: %w", left, node, errors.Join(err, ctx.Err()))
		}
	}
}

// acts count what nemeses asked of the cluster and what came of it, by the nemesis' name. They are safe under Cluster.mu.
type acts map[string]*Acts

// Acts are what one nemesis asked the cluster to do.
type Acts struct {
	Done    int    `json:"done"`
	Refused int    `json:"refused"` // though nothing else was going on
	Last    string `json:"last"`    // refusal
}

// did counts an act. What the cluster refused is no failure of the nemesis: *what* says so then, and err is nil.
func (c *Cluster) did(nemesis string, err error) (what string, failed error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.acts == nil {
		c.acts = make(acts)
	}
	a := c.acts[nemesis]
	if a == nil {
		a = &Acts{}
		c.acts[nemesis] = a
	}
	var no *declined
	switch {
	case err == nil:
		a.Done++
		return "", nil
	case errors.As(err, &no):
		if c.alone() { // else another nemesis may be the reason, as a range that is wanted on the node
			a.Refused++
			a.Last = no.why
		}
		return "nothing: " + no.Error(), nil
	}
	return "", err
}

// broke notes that something that must hold under a nemesis did not.
func (c *Cluster) broke(property, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = append(c.broken, Failure{Checker: property, What: fmt.Sprintf(format, args...)})
}

// takeBroken returns what was noted since the last time.
func (c *Cluster) takeBroken() []Failure {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.broken
	c.broken = nil
	return out
}

// alone says whether one nemesis acts, so that what it promises must hold.
func (c *Cluster) alone() bool { return !c.several.Load() }

// zone is the locality of a node.
func zone(i int) string { return fmt.Sprint("z", i%zones+1) }

// zones are as many as a range has replicas by default, so that each can be in one.
const zones = 3
