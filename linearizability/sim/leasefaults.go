package sim

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// leaseKinds are the faults that aim at leases: what they do is done by others too, but seldom in the tenths of a second in
// which a lease still holds.
var leaseKinds = []kind{
	{"bounce", "F01", "processes die and are started again before a promise of theirs has ended", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, time.Millisecond, 150*time.Millisecond), 1+r.Int63n(int64(p.Nodes))
	}, bounce},
	{"bounce-cut", "F06", "a leader is cut off while its followers are started again", func(r *base.Rand, p *Plan, f *Fault) {
		f.Node, f.Range = Leader, int(r.Int63n(int64(p.Ranges+1)))
		f.For, f.Amount = between(r, 500*time.Millisecond, 3*time.Second), 1+r.Int63n(80)
	}, bounceCut},
	{"transfer-deaf", "F12", "leadership is handed over, and the old leader hears nothing more", func(r *base.Rand, p *Plan, f *Fault) {
		f.Range, f.Node = int(r.Int63n(int64(p.Ranges+1))), int(r.Int63n(int64(p.Nodes)))
		f.For, f.Amount = between(r, 500*time.Millisecond, 3*time.Second), r.Int63n(10)
	}, transferDeaf},
}

// bounce kills the nodes that follow the drawn one, Amount of them, and starts them again at once.
func bounce(in *injector, f *Fault) (func(), bool) {
	first := in.node(f)
	if first == nil {
		return nil, false
	}
	var hit []*node
	for i := range in.w.nodes {
		v := in.w.nodes[(first.i+1+i)%len(in.w.nodes)]
		if int64(len(hit)) < f.Amount && v.process != nil {
			hit = append(hit, v)
		}
	}
	for _, v := range hit {
		v.crash(0)
	}
	return func() {
		for _, v := range hit {
			restart(v)
		}
	}, len(hit) > 0
}

// bounceCut cuts the leader off from all nodes, kills those and starts them again after Amount milliseconds.
func bounceCut(in *injector, f *Fault) (func(), bool) {
	l := in.node(f)
	if l == nil || l.process == nil {
		return nil, false
	}
	var edges []edge
	var hit []*node
	for _, v := range in.w.nodes {
		if v == l {
			continue
		}
		edges = append(edges, both(l.i, v.i)...)
		if v.process != nil {
			hit = append(hit, v)
		}
	}
	mend := in.cutEdges(edges, allClasses...)
	for _, v := range hit {
		v.crash(0)
	}
	in.w.queue.put(in.w.now+time.Duration(f.Amount)*time.Millisecond, func() {
		for _, v := range hit {
			restart(v)
		}
	})
	return mend, true
}

// transferDeaf hands leadership over and, Amount milliseconds later, lets nothing more reach the one that had it.
func transferDeaf(in *injector, f *Fault) (func(), bool) {
	r := in.w.ranges[f.Range%len(in.w.ranges)]
	l := in.w.leader(r)
	if l == nil || l.pauses > 0 {
		return nil, false
	}
	st, _ := l.process.hand.Status(r.id)
	to := desc.ReplicaOn(st.Descriptor, in.w.nodes[f.Node%len(in.w.nodes)].id)
	if to == nil || base.NodeID(to.NodeId) == l.id {
		return nil, false
	}
	l.process.do(func() { l.process.store.Transfer(r.id, base.ReplicaID(to.ReplicaId)) })
	var edges []edge
	for i := range in.w.nodes {
		if i != l.i {
			edges = append(edges, edge{i, l.i})
		}
	}
	over := false
	var mend func()
	in.w.queue.put(in.w.now+time.Duration(f.Amount)*time.Millisecond, func() {
		if !over {
			mend = in.cutEdges(edges, allClasses...)
		}
	})
	return func() {
		if over = true; mend != nil {
			mend()
		}
	}, true
}
