package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability/workloads"
	"github.com/cairndb/cairn/meta/change"
)

// Situations that faults drawn blindly hardly ever bring about, because several things must come together in one range: a removal that
// would leave no quorum, a step that two drivers carry out, a split beneath a watch whose node is behind. Each was found wanting by a
// planted mistake that survived.

var aimedKinds = []kind{
	{"shrink", "F12", "a range is wanted on two nodes, of which one has been down for long, and later on three again", func(r *base.Rand, p *Plan, f *Fault) {
		f.At = between(r, 0, p.Length/3)
		f.Range, f.For, f.Amount = int(r.Int63n(16)), shrinkAfter+between(r, 2*time.Second, 5*time.Second), r.Int63n(2)
	}, shrink},
	{"step-again", "F12", "whoever has carried out a step of a move does not take note, and another carries it out once more", func(r *base.Rand, p *Plan, f *Fault) {
		f.Range, f.For = int(r.Int63n(16)), between(r, 5*time.Second, 15*time.Second)
	}, func(in *injector, f *Fault) (func(), bool) {
		if in.w.sys == nil {
			in.scatter(in.w.ranges[f.Range%len(in.w.ranges)])
		}
		in.w.forgetful++
		return func() { in.w.forgetful-- }, true
	}},
	{"split-heap", "W12", "a range that is watched is cut while the watches' node applies nothing, and applies all at once then", func(r *base.Rand, p *Plan, f *Fault) {
		drawSplit(r, p, f)
		f.Node, f.For = int(r.Int63n(int64(p.Nodes))), between(r, 700*time.Millisecond, 3*time.Second)
	}, splitHeap},
}

// drawAimed adds to a plan what aims at its ranges. It is drawn after all else, so that a seed of before is what it was but for that.
func drawAimed(r *base.Rand, p *Plan, only Only) {
	add := func(kind FaultKind, times int64) {
		k, _ := kindNamed(kind)
		for ; times > 0 && only.allows(k.Class); times-- {
			f := Fault{Kind: kind, At: between(r, p.Length/20, p.Length*2/3)}
			k.draw(r, p, &f)
			p.Faults = append(p.Faults, f)
		}
	}
	if len(p.Faults) == 0 {
		return // some runs are to have none
	}
	if !p.Allocator && r.Int63n(4) == 0 {
		add("shrink", 1)
	}
	if p.Nodes > 3 && r.Int63n(4) == 0 {
		add("step-again", 1)
	}
	if slices.ContainsFunc(p.Workload, follows) && r.Int63n(2) == 0 {
		add("split-heap", 1+r.Int63n(3))
	}
}

// follows says whether a workload's clients watch.
func follows(name string) bool {
	kind, ok := workloads.Named(name)
	return ok && kind.Follows
}

// shrinkAfter is how long a node is down before a range is wanted there and on one other node alone: so long that nobody can believe
// that it has caught up.
const shrinkAfter = away + time.Second

// shrink takes a voter's node down and wants its range on that node and the leader's alone. The third voter is the other half of the only
// quorum that there is: it may go when the first is back, and not before.
func shrink(in *injector, f *Fault) (func(), bool) {
	w := in.w
	r := w.ranges[f.Range%len(w.ranges)]
	l := w.leader(r)
	d := w.newest(r)
	voters := change.Voters(d)
	if l == nil || w.sys != nil || len(voters) != 3 || len(d.Replicas) != 3 || !slices.Contains(voters, l.id) {
		return nil, false
	}
	stays := slices.DeleteFunc(slices.Clone(voters), func(n base.NodeID) bool { return n == l.id })[f.Amount%2]
	down := w.node(stays)
	if down.process == nil {
		return nil, false
	}
	over := false
	down.crash(0)
	w.queue.put(w.now+shrinkAfter, func() {
		if l := w.leader(r); !over && !w.merged[r.id] && l != nil && l != down {
			w.count("ranges wanted on fewer nodes")
			w.want(r, l.id, stays)
		}
	})
	back := func() {
		if !w.merged[r.id] {
			w.want(r, voters...)
		}
	}
	return func() {
		over = true
		restart(down)
		if in.healed {
			back()
			return
		}
		w.queue.put(w.now+3*time.Second, back) // when the third has gone
	}, true
}

// splitHeap keeps a node that has watches from applying for a while, has a range cut meanwhile that they are in, and lets the node go on:
// it applies what was written before the cut, on both sides, and the cut in one go.
func splitHeap(in *injector, f *Fault) (func(), bool) {
	w := in.w
	var may []*rangeInfo
	for _, r := range w.ranges {
		if r.ks.Splits() && r != w.meta && follows(r.name) {
			may = append(may, r)
		}
	}
	if len(may) == 0 {
		return nil, false
	}
	r := may[f.Range%len(may)]
	n := w.watcher(r, f.Node)
	if n == nil {
		return nil, false
	}
	over := false
	n.slow.applyStalls++
	w.queue.put(w.now+f.For*3/4, func() {
		if l := w.leader(r); !over && l != nil && l.pauses == 0 && !w.merged[r.id] {
			l.process.do(func() { l.process.mover.split(r, uint64(f.Amount)) })
		}
	})
	return func() {
		over = true
		n.slow.applyStalls--
		if p := n.process; p != nil {
			p.do(func() {})
		}
	}, true
}

// watcher is a node that has a replica of a range, does not lead it, and serves watches in its keyspace; nil if there is none.
func (w *world) watcher(r *rangeInfo, from int) *node {
	leader := w.leader(r)
	for i := range w.nodes {
		n := w.nodes[(from+i)%len(w.nodes)]
		if n == leader || n.process == nil || n.process.store.View(r.id) == nil {
			continue
		}
		for _, s := range n.process.watching.streams {
			if s.ks == r.ks && len(s.watches) > 0 {
				return n
			}
		}
	}
	return nil
}

// again has a step taken once more that was taken: by a driver who knows nothing of the one who did. It goes on from a generation that is
// past, and must be refused for that.
func (m *mover) again(r *rangeInfo, take func(told func(error))) {
	w := m.p.n.w
	if w.forgetful == 0 {
		return
	}
	w.count("steps taken again")
	take(func(err error) {
		var stale *base.StaleGeneration
		switch {
		case err == nil:
			w.violate("steps are taken once", "%s took a step of %s that had been taken", m.p.n.id, r.id)
		case errors.As(err, &stale):
			w.count("steps taken again and refused")
		}
	})
}
