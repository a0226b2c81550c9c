package jepsen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// membershipNemeses let nodes leave and come: with a word, and for good, so that a new node takes the address; and as operators do it,
// through operations.
func membershipNemeses() []Nemesis {
	return []Nemesis{
		{Name: "stop-one", Class: "F11", About: "stops a node as an operator does, and starts it again", Begin: stop(one)},
		{Name: "stop-leader", Class: "F11", About: "stops the node that leads the clients' range, and starts it again", Begin: stop(leader)},
		{Name: "stop-all", Class: "F11", About: "stops all nodes, one after the other, and starts them again", Begin: stop(everybody)},
		{Name: "replace-one", Class: "F11", About: "loses a node's store for good; a new node joins in its place", Begin: replace(one)},
		{Name: "replace-leader", Class: "F11", About: "loses the store of the node that leads the clients' range; a new node joins in its place", Begin: replace(leader)},
		{Name: "join-one", Class: "F11", About: "a further node joins; it is decommissioned afterwards", Begin: planned("join-one", joinOne)},
		{Name: "decommission-one", Class: "F11", About: "decommissions a node; a new one takes its place", Begin: planned("decommission-one", decommission("decommission-one", one))},
		{Name: "decommission-leader", Class: "F11", About: "decommissions the node that leads the clients' range; a new one takes its place", Begin: planned("decommission-leader", decommission("decommission-leader", leader))},
		{Name: "recommission", Class: "F11", About: "begins to decommission a node, and takes it back in the middle", Begin: planned("recommission", recommission)},
		{Name: "drain-one", Class: "F11", About: "drains a node, stops it, starts it again and lets it take part", Begin: planned("drain-one", drainOne)},
		{Name: "rolling", Class: "F11", About: "drains, stops and starts every node, one after the other", Begin: planned("rolling", rolling)},
		{Name: "fail-one", Class: "F11", About: "kills a node until it is held to be failed and replaced; it comes back", Begin: failOne},
		{Name: "lose-zone", Class: "F11", About: "kills all nodes of one of three zones: service goes on", Begin: loseZone},
		{Name: "two-of-three", Class: "F11", About: "kills two of the three nodes that hold the clients' range", Begin: kill(twoOfThree)},
	}
}

func stop(choose victims) func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
	return befall("stopped", choose, (*Cluster).Stop, func(ctx context.Context, c *Cluster, i int) error { return c.Restart(ctx, i) })
}

// replace loses one store at a time: only if every range has left the store that was lost before. Each recovery waits for that,
// but another nemesis that acts at the same time may keep it from being seen.
func replace(choose victims) func(context.Context, *Cluster, *base.Rand) (string, func(context.Context) error, error) {
	lose := befall("lost for good:", choose, (*Cluster).Lose, func(ctx context.Context, c *Cluster, i int) error { return c.Restart(ctx, i) })
	return func(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
		soon, cancel := context.WithTimeout(ctx, statusTime)
		defer cancel()
		if err := c.settled(soon); err != nil {
			return "nothing: nobody says that every range has its replicas", nil, nil
		}
		return lose(ctx, c, r)
	}
}

// Stop tells a node's process to end, and waits until it has. It must have nothing to complain of. One that is paused, or has
// no process, stays as it is.
func (c *Cluster) Stop(i int) error { return c.Nodes[i].stop() }

// Lose kills a node's process and removes its store and all that is in it. The next process is a new node at the same address.
func (c *Cluster) Lose(i int) error {
	if err := c.Kill(i); err != nil {
		return err
	}
	n := c.Nodes[i]
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Contains(n.args, replaceLost) {
		n.args = append(n.args, replaceLost)
	}
	return os.RemoveAll(n.Dir)
}

const replaceLost = "--replace-lost"

// stop is the operator's way to end a process.
func (n *Node) stop() error {
	n.mu.Lock()
	paused := n.paused
	n.mu.Unlock()
	if paused {
		return nil
	}
	if err := n.end(syscall.SIGTERM); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	// Who kills is this harness alone: another nemesis may have, before or meanwhile.
	if n.cmd != nil && !n.excused && n.cmd.ProcessState.Exited() && !n.cmd.ProcessState.Success() {
		n.findings = append(n.findings, fmt.Errorf("%s was told to stop: %s; the end of its log:\n%s", n.Name, n.cmd.ProcessState, lastLines(n.Log, 10)))
	}
	return nil
}

// settled waits until no range has a replica on a node that has gone for good, and none has fewer voters than a new cluster's.
func (c *Cluster) settled(ctx context.Context) error {
	want := min(len(c.Nodes), 3)
	for {
		var errs []error
		for i := range c.Nodes { // one may be unwell, or know less than others
			st, err := c.status(ctx, i)
			if err == nil {
				err = errors.Join(replicated(st, want), replacedEverywhere(st))
			}
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		if !pause(ctx, nil, askAgain) {
			return errors.Join(errs...)
		}
	}
}

func replacedEverywhere(st *clusterpb.StatusResponse) error {
	gone := make(map[uint64]bool)
	for _, n := range st.Nodes {
		gone[n.Node.GetNodeId()] = over(n.Node)
	}
	for _, r := range st.Ranges {
		for _, rep := range r.Descriptor_.GetReplicas() {
			if gone[rep.NodeId] || rep.Role != metapb.ReplicaRole_REPLICA_ROLE_VOTER {
				return fmt.Errorf("range %d: replica %d on node %d is %s", r.Descriptor_.GetRangeId(), rep.ReplicaId, rep.NodeId, rep.Role)
			}
		}
	}
	return nil
}
