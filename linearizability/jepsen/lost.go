package jepsen

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Nodes that nobody asked to go: for longer than the policy waits, a whole zone, most of those that hold a range.

// failOne kills a node and waits until the cluster has given it up and put other replicas into its place. The heal starts it: it must
// announce itself before it serves, and its old replicas are removed.
func failOne(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
	i := drawNodes(c, r, 1)[0]
	n := c.Nodes[i]
	rec, err := c.record(ctx, n)
	if err != nil {
		return "", nil, err
	}
	if err := c.Kill(i); err != nil {
		return "", nil, err
	}
	heal := func(ctx context.Context) error {
		if err := c.Restart(ctx, i); err != nil {
			return err
		}
		_, err := c.await(ctx, n, "active again", func(r *metapb.NodeRecord) bool {
			return active(r) && r.NodeId == rec.NodeId && r.Incarnation > rec.Incarnation
		})
		return err
	}
	wait, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	_, err = c.await(wait, n, "failed", func(r *metapb.NodeRecord) bool {
		return r.State == metapb.NodeState_NODE_STATE_FAILED && r.Epoch > rec.Epoch
	})
	if err == nil {
		err = c.vacated(wait, rec.NodeId)
	}
	if err != nil && !c.alone() {
		return fmt.Sprintf("killed %s; others kept it from being replaced: %v", n.Name, err), heal, nil
	}
	what, err := c.did("fail-one", err)
	return "killed " + n.Name + " until it was replaced" + what, heal, err
}

// zoneTime bounds how long a client may wait that loses a zone: an election, for which the support of the nodes that died must end.
const zoneTime = 15 * time.Second

// loseZone kills every node of a zone, when no range has most of its voters there: of the zone that leads what a careful client uses,
// if anybody says which that is. It must soon be served again.
func loseZone(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
	k, err := c.newCareful(ctx)
	if err != nil {
		return "", nil, err
	}
	z := zone(int(r.Int63n(zones)))
	if i, err := c.Leader(ctx, base.KeyspaceID(c.careful.Load())); err == nil {
		z = zone(i)
	}
	var lost []int
	for i := range c.Nodes {
		if zone(i) == z {
			lost = append(lost, i)
		}
	}
	wait, cancel := context.WithTimeout(ctx, operationTime)
	err = c.spreadOver(wait, lost)
	cancel()
	if what, err := c.did("lose-zone", err); err != nil || what != "" {
		k.end()
		return what, nil, err
	}
	heal := func(ctx context.Context) (err error) {
		k.end()
		for _, i := range lost {
			if e := c.Restart(ctx, i); err == nil {
				err = e
			}
		}
		return err
	}
	for _, i := range lost {
		if err := c.Kill(i); err != nil {
			return "", heal, err
		}
	}
	killed := time.Now()
	soon, cancel := context.WithTimeout(ctx, zoneTime)
	defer cancel()
	if err := k.all(soon, killed); err != nil && c.alone() {
		c.broke("service goes on without a zone", "within %s of the loss of zone %s: %v: %v", zoneTime, z, err, k.told)
	}
	c.logger.Info("without a zone", "zone", z, "served after", time.Since(killed).Round(time.Millisecond))
	return fmt.Sprintf("killed zone %s: %s", z, c.names(lost)), heal, nil
}

// spreadOver waits until no range has as many as half of its voters on some nodes.
func (c *Cluster) spreadOver(ctx context.Context, on []int) error {
	for {
		all, err := c.members(ctx)
		if err != nil {
			return err
		}
		var ids []uint64
		for _, m := range all {
			for _, i := range on {
				if m.Record.Address == c.Nodes[i].ClientAddr && !over(m.Record) {
					ids = append(ids, m.Record.NodeId)
				}
			}
		}
		ranges, err := c.tiled(ctx)
		if err != nil {
			return err
		}
		var crowded []uint64
		for _, r := range ranges {
			replicas := r.Descriptor_.GetReplicas()
			there := 0
			for _, x := range replicas {
				if slices.Contains(ids, x.NodeId) {
					there++
				}
			}
			if 2*there >= len(replicas) {
				crowded = append(crowded, r.Descriptor_.GetRangeId())
			}
		}
		if len(crowded) == 0 {
			return nil
		}
		if !pause(ctx, nil, askAgain) {
			return fmt.Errorf("ranges %v have half of their voters and more on %s: %w", crowded, c.names(on), ctx.Err())
		}
	}
}

// twoOfThree chooses two of the nodes that hold the clients' range, or any two where nobody says who does.
func twoOfThree(ctx context.Context, c *Cluster, r *base.Rand) ([]int, error) {
	ask, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	order := drawNodes(c, r, c.Len())
	st, err := c.status(ask, order[0])
	if err != nil {
		return order[:2], nil // another nemesis may be at work
	}
	var holders []int
	for _, i := range order {
		for _, e := range st.Ranges {
			if base.KeyspaceID(e.Descriptor_.GetKeyspaceId()) == base.KeyspaceDefault && holdsAt(st.Nodes, e.Descriptor_, c.Nodes[i].ClientAddr) {
				holders = append(holders, i)
			}
		}
	}
	if len(holders) < 2 {
		return order[:2], nil
	}
	return holders[:2], nil
}

// holdsAt says whether a range has a replica on the node at an address.
func holdsAt(nodes []*clusterpb.NodeEntry, d *metapb.RangeDescriptor, address string) bool {
	return slices.ContainsFunc(nodes, func(n *clusterpb.NodeEntry) bool {
		return n.Node.GetAddress() == address &&
			slices.ContainsFunc(d.GetReplicas(), func(r *metapb.Replica) bool { return r.NodeId == n.Node.GetNodeId() })
	})
}
