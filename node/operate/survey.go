package operate

import (
	"context"
	"fmt"
	"slices"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/operation"
	"github.com/cairndb/cairn/meta/placement"
)

// cluster is all that is known of the cluster at about one moment: the stored descriptors, what the nodes say of their ranges, records
// and policies. What somebody asks for is judged by it.
type cluster struct {
	nodes  []*metapb.NodeRecord
	silent map[uint64]string // nodes that do not answer, and why
	health map[uint64]*metapb.NodeHealth
	held   []uint64
	names  map[base.KeyspaceID]string
	ranges []stands
	stored []*metapb.PolicyRecord
}

// stands is how a range stands.
type stands struct {
	*metapb.RangeDescriptor
	leader uint64 // 0: nobody says so
	rate   float64
	bytes  int64
	behind []base.NodeID
}

// survey finds all that out.
func (m *Manager) survey(ctx context.Context, r *records, status StatusFunc) (*cluster, error) {
	c := &cluster{nodes: r.nodes, silent: map[uint64]string{}, health: map[uint64]*metapb.NodeHealth{}, names: map[base.KeyspaceID]string{},
		held: operation.Held(r.ops, m.cfg.UnixMicros())}
	var err error
	if c.stored, err = Policies(ctx, m.cfg.Cluster); err != nil {
		return nil, err
	}
	all, err := m.cfg.Keyspaces(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		c.names[base.KeyspaceID(k.KeyspaceId)] = k.Name
	}
	if err := m.eachRange(ctx, func(d *metapb.RangeDescriptor) bool {
		c.ranges = append(c.ranges, stands{RangeDescriptor: d})
		return true
	}); err != nil {
		return nil, err
	}
	for _, h := range m.cfg.Health(ctx) {
		c.health[h.NodeId] = h
	}
	st := status(ctx)
	var answer []uint64
	for _, n := range st.GetNodes() {
		if n.Reachable {
			answer = append(answer, n.Node.GetNodeId())
		}
	}
	c.take(st, m.sizes(ctx, answer, base.KeyspaceRoot, base.KeyspaceMeta))
	return c, ctx.Err()
}

// take adds what the nodes say. A range whose leader does not say how large it is, is as large as any.
func (c *cluster) take(st *clusterpb.StatusResponse, sizes map[uint64]int64) {
	for _, n := range st.GetNodes() {
		if !n.Reachable {
			c.silent[n.Node.GetNodeId()] = n.Error
		}
	}
	said := make(map[uint64]*clusterpb.RangeEntry, len(st.GetRanges()))
	for _, e := range st.GetRanges() {
		said[e.Descriptor_.GetRangeId()] = e
	}
	mean := c.meanBytes()
	for i := range c.ranges {
		r := &c.ranges[i]
		if bytes, ok := sizes[r.RangeId]; ok {
			r.bytes = bytes
		} else {
			r.bytes = mean
		}
		e := said[r.RangeId]
		r.leader, r.rate = e.GetLeaderNode(), e.GetRate()
		var top uint64
		for _, p := range e.GetReplicas() {
			top = max(top, p.Match)
		}
		for _, p := range r.Replicas {
			if c.behind(p.NodeId, e, top) {
				r.behind = append(r.behind, base.NodeID(p.NodeId))
			}
		}
	}
}

// behind says whether a node's replica is not there, or not caught up. Of a range whose leader does not say how far the others are, all
// that answer count.
func (c *cluster) behind(node uint64, e *clusterpb.RangeEntry, top uint64) bool {
	if _, ok := c.silent[node]; ok || e == nil {
		return true
	}
	i := slices.IndexFunc(e.Replicas, func(p *clusterpb.ReplicaEntry) bool { return p.Node == node })
	return i < 0 || !e.Replicas[i].Reachable || top > e.Replicas[i].Match+base.CaughtUpEntries
}

// meanBytes is what a replica holds in the mean, as the nodes say; 0: they do not.
func (c *cluster) meanBytes() int64 {
	var bytes, replicas uint64
	for _, h := range c.health {
		bytes += h.GetLoad().GetBytes()
		replicas += h.GetLoad().GetReplicas()
	}
	return int64(bytes / max(replicas, 1))
}

// snapshot is the cluster as the planner knows one.
func (c *cluster) snapshot() *allocator.Snapshot {
	s := allocator.NewSnapshot()
	s.SetPolicy(placement.Policies(c.stored))
	for _, r := range c.nodes {
		s.SetNode(c.node(r))
	}
	for i := range c.ranges {
		r := &c.ranges[i]
		out := allocator.Range{ID: base.RangeID(r.RangeId), Keyspace: base.KeyspaceID(r.KeyspaceId), Generation: base.Generation(r.Generation),
			Leader: base.NodeID(r.leader), Bytes: r.bytes, Load: r.rate, Behind: r.behind}
		for _, p := range r.Replicas {
			out.Replicas = append(out.Replicas, allocator.Replica{Node: base.NodeID(p.NodeId), Role: allocator.Role(max(p.Role, 1) - 1)})
		}
		s.Put(out)
	}
	return s
}

// node is a node as the planner knows one. One that is held takes nothing new.
func (c *cluster) node(r *metapb.NodeRecord) allocator.Node {
	h := c.health[r.NodeId]
	n := allocator.Node{ID: base.NodeID(r.NodeId), Attributes: r.Attributes, State: allocator.NodeState(min(max(r.State, 1), metapb.NodeState_NODE_STATE_LEFT) - 1),
		Cordoned: r.Cordoned || slices.Contains(c.held, r.NodeId), Draining: r.Draining, Slow: h.GetSlow(),
		DiskBytes: int64(h.GetLoad().GetDiskBytes()), DiskUsed: int64(h.GetLoad().GetDiskUsed())}
	for _, t := range r.Locality {
		n.Locality = append(n.Locality, allocator.Tier{Key: t.Key, Value: t.Value})
	}
	return n
}

// name is a keyspace's.
func (c *cluster) name(ks base.KeyspaceID) string {
	if n := c.names[ks]; n != "" {
		return n
	}
	return ks.String()
}

// steps are what an operation will do, in words.
func (c *cluster) steps(op *metapb.Operation, marked []*metapb.NodeRecord) (out []string) {
	replicas, leaders, bytes := 0, 0, int64(0)
	var now []uint64
	for i := range c.ranges {
		r := &c.ranges[i]
		for _, p := range r.Replicas {
			if slices.Contains(op.Nodes, p.NodeId) {
				replicas, bytes = replicas+1, bytes+r.bytes
			}
			if r.RangeId == op.RangeId {
				now = append(now, p.NodeId)
			}
		}
		if slices.Contains(op.Nodes, r.leader) {
			leaders++
		}
	}
	names := operation.Names(op.Nodes)
	switch op.Kind {
	case metapb.OperationKind_OPERATION_KIND_DRAIN:
		out = append(out, fmt.Sprintf("%s: given nothing new from now on", names), fmt.Sprintf("%s handed to other voters", some(leaders, "leader is", "leaders are")))
	case metapb.OperationKind_OPERATION_KIND_DECOMMISSION:
		out = append(out, fmt.Sprintf("%s: leaving from now on", names), fmt.Sprintf("about %d MiB in %s: moved to other nodes", bytes>>20, some(replicas, "replica", "replicas")),
			fmt.Sprintf("then %s: left for good", names))
	case metapb.OperationKind_OPERATION_KIND_RELOCATE:
		for _, id := range op.Voters {
			if !slices.Contains(now, id) {
				out = append(out, fmt.Sprintf("a replica is made on %s", base.NodeID(id)))
			}
		}
		for _, id := range now {
			if !slices.Contains(op.Voters, id) {
				out = append(out, fmt.Sprintf("that on %s is removed", base.NodeID(id)))
			}
		}
		if op.Leader != 0 {
			out = append(out, fmt.Sprintf("%s leads it", base.NodeID(op.Leader)))
		}
	}
	if len(marked) == 0 && len(out) > 0 && op.Kind != metapb.OperationKind_OPERATION_KIND_RELOCATE {
		out[0] = fmt.Sprintf("%s: marked already", names)
	}
	return out
}

func some(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
