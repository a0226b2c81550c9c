package jepsen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Nodes that come and go as operators have them do it: with operations, which the cluster carries out.

// joinOne has the spare node join. Its heal decommissions it, so that the cluster is as it was.
func joinOne(ctx context.Context, c *Cluster, _ *base.Rand) (string, func(context.Context) error, error) {
	n := c.spare
	if err := n.start(); err != nil {
		return "", nil, err
	}
	heal := func(ctx context.Context) error {
		what, err := c.leave(ctx, "join-one", n)
		for err == nil && what != "" {
			// Somebody may want a range there (moves): that is ended, as the refusal says.
			if !pause(ctx, nil, askAgain) {
				err = fmt.Errorf("%s could not leave again: %s", n.Name, what)
				break
			}
			if err = c.endMoves(ctx); err == nil {
				what, err = c.leave(ctx, "join-one", n)
			}
		}
		return errors.Join(err, c.forget(n))
	}
	r, err := c.await(ctx, n, "active", active)
	if err != nil {
		return n.Name + " did not join", heal, err
	}
	holds := c.filled(ctx, r.NodeId)
	return fmt.Sprintf("%s joined, as n%d, and was given replicas of %d ranges", n.Name, r.NodeId, holds), heal, nil
}

// fillTime is how long a node that has joined is waited for to be given something: where few ranges are, nothing may be better there.
const fillTime = 10 * time.Second

// filled waits for a while until a node holds something, and returns how many ranges.
func (c *Cluster) filled(ctx context.Context, node uint64) int {
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	for {
		ids, err := c.holding(ctx, node, len(c.Nodes)+1)
		if err == nil && len(ids) > 0 || !pause(ctx, nil, askAgain) {
			return len(ids)
		}
	}
}

// decommission empties a node. The heal starts a new one in its place.
func decommission(name string, choose victims) beginning {
	return func(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
		chosen, err := choose(ctx, c, r)
		if err != nil {
			return "", nil, err
		}
		n := c.Nodes[chosen[0]]
		what, err := c.leave(ctx, name, n)
		if err != nil || what != "" {
			return what, nil, err
		}
		return "decommissioned " + n.Name, func(ctx context.Context) error { return c.rejoin(ctx, n) }, nil
	}
}

// leave decommissions a node and ends its process. what is not empty if the cluster refused.
func (c *Cluster) leave(ctx context.Context, nemesis string, n *Node) (what string, err error) {
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	r, err := c.record(ctx, n)
	if err != nil {
		return "", err
	}
	n.excuse(true) // a node that hears that it has left ends
	err = c.carryOut(ctx, &metapb.Operation{Kind: metapb.OperationKind_OPERATION_KIND_DECOMMISSION, Nodes: []uint64{r.NodeId}})
	if what, err = c.did(nemesis, err); err != nil || what != "" {
		if what != "" {
			n.blame() // it stays
		}
		return what, err
	}
	n.retire()
	holding, err := c.holding(ctx, r.NodeId, len(c.Nodes)+1)
	if err == nil && len(holding) > 0 {
		c.broke("left means empty", "n%d was decommissioned, and ranges %v have replicas on it", r.NodeId, holding)
	}
	return "", errors.Join(err, n.end(syscall.SIGTERM))
}

// rejoin starts a new node where one has left for good.
func (c *Cluster) rejoin(ctx context.Context, n *Node) error {
	if err := c.forget(n); err != nil {
		return err
	}
	if err := n.start(); err != nil {
		return err
	}
	_, err := c.await(ctx, n, "active", active)
	return err
}

// forget removes the store of a node whose process has ended, or is ended now.
func (c *Cluster) forget(n *Node) error {
	if err := n.end(syscall.SIGKILL); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.retired = false
	return os.RemoveAll(n.Dir)
}

// blame takes an excuse back: what was to come does not.
func (n *Node) blame() {
	n.mu.Lock()
	n.excused = false
	n.mu.Unlock()
}

// retire has a node's store start no more: it has left, and nobody lets it in again.
func (n *Node) retire() {
	n.mu.Lock()
	n.retired, n.excused = true, true
	n.mu.Unlock()
}

// recommission begins to decommission a node and takes that back as soon as something has moved.
func recommission(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
	n := c.Nodes[drawNodes(c, r, 1)[0]]
	rec, err := c.record(ctx, n)
	if err != nil {
		return "", nil, err
	}
	id, err := c.begin(ctx, &metapb.Operation{Kind: metapb.OperationKind_OPERATION_KIND_DECOMMISSION, Nodes: []uint64{rec.NodeId}})
	if what, err := c.did("recommission", err); err != nil || what != "" {
		return what, nil, err
	}
	n.excuse(true)
	moved := func(op *metapb.Operation) bool { return op.Total > 0 && op.Left < op.Total }
	some, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	op, err := c.watch(some, id, moved)
	if err != nil {
		return "", nil, err
	}
	if err := c.change(ctx, rec.NodeId, clusterpb.NodeChange_NODE_CHANGE_RECOMMISSION); err != nil {
		var no *declined
		if !errors.As(err, &no) {
			return "", nil, err
		}
		// It was too late: the node has left.
		n.retire()
		return n.Name + " had left before it could be taken back", func(ctx context.Context) error { return c.rejoin(ctx, n) }, nil
	}
	n.blame()
	heal := func(ctx context.Context) error {
		_, err := c.await(ctx, n, "active", func(r *metapb.NodeRecord) bool { return active(r) && r.NodeId == rec.NodeId })
		if e := c.change(ctx, rec.NodeId, clusterpb.NodeChange_NODE_CHANGE_UNCORDON); err == nil {
			err = e
		}
		return err
	}
	return fmt.Sprintf("took %s back with %d of %d replicas left on it", n.Name, op.Left, op.Total), heal, nil
}

// drainOne takes the leaders from a node and stops it. The heal starts it and lets it take part again.
func drainOne(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
	n := c.Nodes[drawNodes(c, r, 1)[0]]
	rec, what, err := c.drain(ctx, "drain-one", n)
	if err != nil || what != "" {
		return what, nil, err
	}
	heal := func(ctx context.Context) error { return c.back(ctx, n, rec) }
	return "drained and stopped " + n.Name, heal, n.stop()
}

// drain takes the leaders from a node. what is not empty if the cluster refused.
func (c *Cluster) drain(ctx context.Context, nemesis string, n *Node) (rec *metapb.NodeRecord, what string, err error) {
	if rec, err = c.record(ctx, n); err != nil {
		return nil, "", err
	}
	err = c.carryOut(ctx, &metapb.Operation{Kind: metapb.OperationKind_OPERATION_KIND_DRAIN, Nodes: []uint64{rec.NodeId}})
	if what, err = c.did(nemesis, err); err != nil || what != "" {
		return nil, what, err
	}
	for _, i := range without(len(c.Nodes), []int{n.Index}) { // what others say: it leads nothing
		st, err := c.status(ctx, i)
		if err != nil {
			continue
		}
		for _, r := range st.Ranges {
			if r.LeaderNode == rec.NodeId {
				c.broke("drained means leads nothing", "n%d was drained, and leads range %d", rec.NodeId, r.Descriptor_.GetRangeId())
			}
		}
		break
	}
	return rec, "", nil
}

// back starts a node that was drained and lets it take part again.
func (c *Cluster) back(ctx context.Context, n *Node, was *metapb.NodeRecord) error {
	if err := n.start(); err != nil {
		return err
	}
	_, err := c.await(ctx, n, "active again", func(r *metapb.NodeRecord) bool {
		return active(r) && r.NodeId == was.NodeId && r.Incarnation > was.Incarnation
	})
	return errors.Join(err, c.change(ctx, was.NodeId, clusterpb.NodeChange_NODE_CHANGE_UNCORDON))
}

// rolling is a restart of the whole cluster as an upgrade does it: each node when the cluster says that it can be done without.
func rolling(ctx context.Context, c *Cluster, _ *base.Rand) (string, func(context.Context) error, error) {
	begun := time.Now()
	for _, n := range c.Nodes {
		rec, err := c.record(ctx, n)
		if err == nil {
			err = c.stoppable(ctx, rec.NodeId)
		}
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", n.Name, err)
		}
		rec, what, err := c.drain(ctx, "rolling", n)
		if err != nil || what != "" {
			return what, nil, err
		}
		if err := errors.Join(n.stop(), c.back(ctx, n, rec)); err != nil {
			return "", nil, fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	return fmt.Sprintf("drained, stopped and started all nodes, in %s", time.Since(begun).Round(time.Second)), nil, nil
}
