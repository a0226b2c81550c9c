package sim

import (
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/meta/placement"
)

// What befalls the nodes as members, and what people ask for, in the runs with deciders: a third of all.

var placeKinds = []kind{
	{"dead", "F11", "a node is down for longer than the policy waits", drawMember(8*time.Second, 20*time.Second), crash(false, 1)},
	{"relocate", "W9", "somebody wants a range on just some nodes", func(r *base.Rand, p *Plan, f *Fault) {
		f.Range = int(r.Int63n(16))
	}, func(in *injector, f *Fault) (func(), bool) {
		before := len(in.w.sys.ops)
		in.scatter(in.w.ranges[f.Range%len(in.w.ranges)])
		return nil, len(in.w.sys.ops) > before
	}},
	{"drain", "W9", "a node is drained", drawMember(2*time.Second, 10*time.Second), memberFault(liveness.Drain, liveness.Uncordon, 2)},
	{"cordon", "W9", "a node is cordoned", drawMember(2*time.Second, 10*time.Second), memberFault(liveness.Cordon, liveness.Uncordon, 2)},
	{"decommission", "W9", "a node is to leave for good", drawMember(0, 0), memberFault(liveness.Leave, 0, 4)},
	{"recommission", "W9", "a node that leaves is to stay after all", drawMember(time.Second, 6*time.Second), memberFault(liveness.Leave, liveness.Recommission, 4)},
	{"node-in", "W9", "a node is added", drawMember(0, 0), func(in *injector, _ *Fault) (func(), bool) {
		s := in.w.sys
		if len(s.records) == in.w.plan.Nodes {
			return nil, false
		}
		s.records = append(s.records, s.record(len(s.records)))
		s.moved = in.w.now
		return nil, true
	}},
	{"strain", "W9", "a node's writes take long", drawMember(2*time.Second, 10*time.Second), func(in *injector, f *Fault) (func(), bool) {
		n := in.node(f)
		if n == nil {
			return nil, false
		}
		n.slow.strained++
		return func() { n.slow.strained-- }, true
	}},
}

func drawMember(least, most time.Duration) func(r *base.Rand, p *Plan, f *Fault) {
	return func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		if most > 0 {
			f.For = between(r, least, most)
		}
	}
}

// memberFault has an event happen to a node's record and, unless it is for good, another that takes it back. At least so many nodes
// must be active: what could not be carried out node/operate refuses.
func memberFault(e, back liveness.Event, least int) func(in *injector, f *Fault) (func(), bool) {
	return func(in *injector, f *Fault) (func(), bool) {
		n, s := in.node(f), in.w.sys
		if n == nil {
			return nil, false
		}
		active := 0
		for _, r := range s.records {
			if r.State == metapb.NodeState_NODE_STATE_ACTIVE && !r.Cordoned {
				active++
			}
		}
		if e == liveness.Leave && !s.spares(n.id) {
			return nil, false
		}
		if active < least || s.change(n.id, e, "somebody asked for it") != nil {
			return nil, false
		}
		if back == 0 {
			return nil, true
		}
		return func() { _ = s.change(n.id, back, "somebody asked for it") }, true // it may have left meanwhile
	}
}

// spares says whether a keyspace that is to be nowhere in one zone has nodes enough without this one.
func (s *sys) spares(id base.NodeID) bool {
	policy := placement.Policies(s.policy)
	for ks, p := range policy.Keyspaces {
		if len(p.Constraints) == 0 {
			continue
		}
		places := 0
		for _, r := range s.records {
			if base.NodeID(r.NodeId) != id && r.State == metapb.NodeState_NODE_STATE_ACTIVE && !forbidden(&policy, ks, r) {
				places++
			}
		}
		if places < p.Replicas {
			return false
		}
	}
	return true
}

// drawPlacement turns a third of the plans into ones with deciders, and adds what befalls those.
func drawPlacement(r *base.Rand, p *Plan, only Only) {
	if r.Int63n(3) > 0 || !only.allows("W9") {
		return
	}
	p.Allocator, p.Alone = true, false
	for more := r.Int63n(3); more > 0; more-- {
		p.Nodes++
		p.Clock = append(p.Clock, ClockPlan{Offset: between(r, 0, time.Hour), Drift: int(r.Int63n(2000) - 1000)})
	}
	if p.Nodes > 3 {
		p.Spare = int(r.Int63n(int64(min(p.Nodes-3, 2) + 1)))
	}
	for range r.Int63n(10) {
		k := &placeKinds[r.Int63n(int64(len(placeKinds)))]
		if !only.allows(k.Class) {
			continue
		}
		f := Fault{Kind: k.Kind, At: between(r, 0, p.Length)}
		k.draw(r, p, &f)
		p.Faults = append(p.Faults, f)
	}
}
