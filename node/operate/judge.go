package operate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/meta/operation"
	"github.com/cairndb/cairn/meta/placement"
	"github.com/cairndb/cairn/node/sysrec"
)

// What could not end well is refused before it begins, with the reason and what would be possible. A refusal is *base.Refused.

func refuse(reason, instead string) error {
	return &base.Refused{For: base.RefusedState, Reason: reason, Instead: instead}
}

// judge says whether an operation can end well.
func (c *cluster) judge(op *metapb.Operation, ops []*metapb.Operation, nowMicros int64) error {
	switch op.Kind {
	case metapb.OperationKind_OPERATION_KIND_DRAIN:
		return c.judgeDrain(op)
	case metapb.OperationKind_OPERATION_KIND_DECOMMISSION:
		return refused("what "+operation.Names(op.Nodes)+" has cannot be moved elsewhere", allocator.CanDecommission(c.snapshot(), ids(op.Nodes)))
	case metapb.OperationKind_OPERATION_KIND_RELOCATE:
		return c.judgeRelocate(op)
	case metapb.OperationKind_OPERATION_KIND_HOLD:
		return refused(operation.Names(op.Nodes)+" cannot be stopped now", allocator.SafeToStop(c.snapshot(), ids(together(op.Nodes, operation.Held(ops, nowMicros)))))
	}
	return nil
}

func ids(nodes []uint64) []base.NodeID {
	out := make([]base.NodeID, len(nodes))
	for i, n := range nodes {
		out[i] = base.NodeID(n)
	}
	return out
}

// together are the nodes of two lists, ascending, each once.
func together(a, b []uint64) []uint64 {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}

// refused makes one refusal of findings; nil if there are none.
func refused(what string, findings []allocator.Finding) error {
	if len(findings) == 0 {
		return nil
	}
	var reasons []string
	for _, f := range findings {
		reasons = append(reasons, finding(f))
	}
	return refuse(what+": "+strings.Join(reasons, "; "), findings[0].Next)
}

// finding is one in words: r104 and 3 others: …
func finding(f allocator.Finding) string {
	switch {
	case f.Range == 0:
		return f.What
	case f.Count > 1:
		return fmt.Sprintf("%s and %d others: %s", f.Range, f.Count-1, f.What)
	}
	return fmt.Sprintf("%s: %s", f.Range, f.What)
}

// judgeDrain: each range keeps a voter that may lead it.
func (c *cluster) judgeDrain(op *metapb.Operation) error {
	for i := range c.ranges {
		r := &c.ranges[i]
		here, elsewhere := false, false
		for _, p := range r.Replicas {
			switch {
			case p.Role != metapb.ReplicaRole_REPLICA_ROLE_VOTER && p.Role != metapb.ReplicaRole_REPLICA_ROLE_INCOMING:
			case slices.Contains(op.Nodes, p.NodeId):
				here = true
			case c.mayLead(p.NodeId):
				elsewhere = true
			}
		}
		if here && !elsewhere {
			return refuse(fmt.Sprintf("%s of %s could then have no leader: no other voter of it is on a node that may lead", base.RangeID(r.RangeId), c.name(base.KeyspaceID(r.KeyspaceId))),
				"drain fewer nodes at once, or bring the others back, or add one first")
		}
	}
	return nil
}

// mayLead says whether a node may be given leaders.
func (c *cluster) mayLead(id uint64) bool {
	_, silent := c.silent[id]
	i := slices.IndexFunc(c.nodes, func(r *metapb.NodeRecord) bool { return r.NodeId == id })
	return !silent && i >= 0 && !c.nodes[i].Draining && (c.nodes[i].State == metapb.NodeState_NODE_STATE_ACTIVE || c.nodes[i].State == metapb.NodeState_NODE_STATE_LEAVING)
}

// judgeRelocate: the range can change its replicas, and those that are to come answer.
func (c *cluster) judgeRelocate(op *metapb.Operation) error {
	for _, id := range op.Voters {
		if why, silent := c.silent[id]; silent {
			return refuse(fmt.Sprintf("%s does not answer: %s", base.NodeID(id), why), "start it, or choose another node")
		}
	}
	for i := range c.ranges {
		if r := &c.ranges[i]; r.RangeId == op.RangeId && r.lost() {
			return refuse(fmt.Sprintf("%s has no majority of voters that are there and have caught up: its replicas cannot be changed", base.RangeID(r.RangeId)), "bring its nodes back first")
		}
	}
	return nil
}

// lost says that no majority of the range's voters is there and has caught up.
func (r *stands) lost() bool {
	voters, well := 0, 0
	for _, p := range r.Replicas {
		if p.Role == metapb.ReplicaRole_REPLICA_ROLE_VOTER || p.Role == metapb.ReplicaRole_REPLICA_ROLE_INCOMING {
			voters++
			if !slices.Contains(r.behind, base.NodeID(p.NodeId)) {
				well++
			}
		}
	}
	return well <= voters/2
}

// mayRemove: the node is dead, and no range can only be had back with it.
func (c *cluster) mayRemove(n *metapb.NodeRecord) error {
	name := base.NodeID(n.NodeId)
	h := c.health[n.NodeId]
	_, silent := c.silent[n.NodeId]
	if heard := time.Duration(h.GetHeardMicros()) * time.Microsecond; !silent || h != nil && h.HeardMicros >= 0 && heard < base.HeartbeatWindow {
		return refuse(fmt.Sprintf("%s lives", name), fmt.Sprintf("empty it with cairn node decommission %s; or stop it, and remove it when it is suspect", name))
	}
	for i := range c.ranges {
		r := &c.ranges[i]
		holds := slices.ContainsFunc(r.Replicas, func(p *metapb.Replica) bool { return p.NodeId == n.NodeId })
		if holds && r.lost() {
			return refuse(fmt.Sprintf("%s of %s has lost its majority, and may only come back with %s", base.RangeID(r.RangeId), c.name(base.KeyspaceID(r.KeyspaceId)), name),
				fmt.Sprintf("start %s again with its store, or bring the range's other nodes back first", name))
		}
	}
	return nil
}

// judgePolicy refuses what the nodes that there are can never satisfy: constraints that are required or forbid. What is preferred, and
// cannot be, is a warning.
func (c *cluster) judgePolicy(ks base.KeyspaceID, p *metapb.PolicyRecord) (warnings []string, err error) {
	all := slices.DeleteFunc(slices.Clone(c.stored), func(o *metapb.PolicyRecord) bool { return o.KeyspaceId == p.KeyspaceId })
	full := placement.Policies(append(all, p))
	want := full.Default
	if own, ok := full.Keyspaces[ks]; ok {
		want = own
	}
	s := c.snapshot()
	firm := want
	firm.Leaders = nil
	firm.Constraints = slices.DeleteFunc(slices.Clone(want.Constraints), func(k allocator.Constraint) bool { return k.Kind == allocator.Preferred })
	free := firm
	free.Constraints = nil
	fewNodes := allocator.CheckPlacement(s, free) // how every cluster begins: no reason to refuse anything
	wrong := slices.DeleteFunc(allocator.CheckPlacement(s, firm), func(w string) bool { return slices.Contains(fewNodes, w) })
	if len(wrong) > 0 {
		return nil, refuse("no nodes that there are could satisfy it: "+strings.Join(wrong, "; "), "there are "+c.places()+"; add nodes first, ask for fewer replicas of it, or prefer it (~) only")
	}
	return allocator.CheckPlacement(s, want), nil
}

// places are the localities and attributes that nodes have, and how many have each.
func (c *cluster) places() string {
	counts := map[string]int{}
	var order []string
	add := func(what string) {
		if counts[what]++; counts[what] == 1 {
			order = append(order, what)
		}
	}
	for _, n := range c.nodes {
		if liveness.Gone(n.State) {
			continue
		}
		for _, t := range n.Locality {
			add(t.Key + "=" + t.Value)
		}
		for _, a := range n.Attributes {
			add(a)
		}
	}
	if len(order) == 0 {
		return "nodes without locality and attributes"
	}
	slices.Sort(order)
	parts := make([]string, len(order))
	for i, what := range order {
		parts[i] = fmt.Sprintf("%s (%s)", what, some(counts[what], "node", "nodes"))
	}
	return strings.Join(parts, ", ")
}

// SafeToStop says whether nodes can be stopped at once, beside those that are down or held; hold keeps the answer true for as long.
func (m *Manager) SafeToStop(ctx context.Context, nodes []uint64, hold time.Duration, status StatusFunc) (*clusterpb.SafeToStopResponse, error) {
	if hold > base.HoldMost {
		return nil, &base.Refused{For: base.RefusedMalformed, Reason: fmt.Sprintf("a hold of %s is too long", hold), Instead: fmt.Sprintf("give at most %s, and hold again; or decommission the nodes", base.HoldMost)}
	}
	var resp *clusterpb.SafeToStopResponse
	var whole *cluster
	err := m.change(ctx, func(r *records, t *sysrec.Txn) (bool, error) {
		now := m.cfg.UnixMicros()
		asked := &metapb.Operation{Kind: metapb.OperationKind_OPERATION_KIND_HOLD, Nodes: nodes, UntilUnixMicros: now + max(hold, time.Second).Microseconds()}
		c, err := operation.Start(asked, r.last+1, &operation.Known{NowMicros: now, Operations: r.ops, Nodes: r.nodes})
		if err != nil {
			return false, err
		}
		if whole == nil {
			if whole, err = m.survey(ctx, r, status); err != nil {
				return false, err
			}
		}
		resp = whole.safe(together(c.Op.Nodes, operation.Held(r.ops, now)))
		if !resp.Safe || hold <= 0 {
			return false, nil
		}
		resp.HoldOpId = c.Op.OpId
		t.At([]byte(operationCounter), r.counter)
		t.PutCounter([]byte(operationCounter), c.Op.OpId)
		r.put(t, c)
		r.prune(t)
		return true, nil
	})
	return resp, err
}

func (c *cluster) safe(nodes []uint64) *clusterpb.SafeToStopResponse {
	findings := allocator.SafeToStop(c.snapshot(), ids(nodes))
	resp := &clusterpb.SafeToStopResponse{Safe: len(findings) == 0, Ranges: uint64(len(c.ranges))}
	keyspace := make(map[uint64]string, len(c.ranges))
	for i := range c.ranges {
		keyspace[c.ranges[i].RangeId] = c.name(base.KeyspaceID(c.ranges[i].KeyspaceId))
	}
	for _, f := range findings {
		what := f.What
		if f.Count > 1 {
			what += fmt.Sprintf(" (and so of %s)", some(f.Count-1, "other range", "other ranges"))
		}
		resp.Findings = append(resp.Findings, &clusterpb.StopFinding{RangeId: uint64(f.Range), Keyspace: keyspace[uint64(f.Range)], What: what, Next: f.Next})
	}
	if len(c.held) > 0 {
		for _, f := range resp.Findings {
			f.What += fmt.Sprintf("; %s held, too (cairn op ls)", operation.Names(c.held))
		}
	}
	return resp
}

// MayTransfer returns the range, if a node can lead it.
func (m *Manager) MayTransfer(ctx context.Context, id base.RangeID, to base.NodeID) (*metapb.RangeDescriptor, error) {
	d, err := m.FindRange(ctx, id)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, &base.Refused{For: base.RefusedUnknown, Reason: fmt.Sprintf("there is no range %s", id), Instead: "see cairn range ls"}
	}
	r, err := m.read(ctx)
	if err != nil {
		return nil, err
	}
	node, err := r.node(uint64(to))
	if err != nil {
		return nil, err
	}
	var voters []uint64
	for _, p := range d.Replicas {
		if p.Role == metapb.ReplicaRole_REPLICA_ROLE_VOTER {
			voters = append(voters, p.NodeId)
		}
	}
	switch {
	case !slices.Contains(voters, uint64(to)):
		return nil, refuse(fmt.Sprintf("%s is no voter of %s", to, id), fmt.Sprintf("choose among %s, or bring the range there first (cairn range move)", operation.Names(voters)))
	case node.Draining:
		return nil, refuse(fmt.Sprintf("%s is drained: it is to lead nothing", to), fmt.Sprintf("take that back with cairn node uncordon %s, or choose another", to))
	}
	return d, nil
}
