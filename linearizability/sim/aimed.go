package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/workloads"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
)

// Situations that faults drawn blindly hardly ever bring about, because several things must come together in one range: a removal that
// would leave no quorum, a step that two drivers carry out, a split beneath a watch whose node is behind. Each was found wanting by a
// planted mistake that survived.

var aimedKinds = append([]kind{
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
	{"publish-late", "F12", "what was published is published again when it is old: by somebody who was stuck", func(r *base.Rand, p *Plan, f *Fault) {
		f.For = between(r, 5*time.Second, 15*time.Second)
	}, func(in *injector, _ *Fault) (func(), bool) {
		in.w.late++
		return func() { in.w.late-- }, true
	}},
	{"split-heap", "W12", "a range that is watched is cut while the watches' node applies nothing, and applies all at once then", func(r *base.Rand, p *Plan, f *Fault) {
		drawSplit(r, p, f)
		f.Node, f.For = int(r.Int63n(int64(p.Nodes))), between(r, 4*time.Second, 6*time.Second)
	}, splitHeap},
}, aimedMerges...)

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
	if r.Int63n(4) == 0 {
		add("publish-late", 1)
	}
	if slices.ContainsFunc(p.Faults, func(f Fault) bool {
		return slices.ContainsFunc(mergeKinds, func(k kind) bool { return k.Kind == f.Kind })
	}) {
		for i := range aimedMerges {
			if r.Int63n(3) > 0 {
				add(aimedMerges[i].Kind, 1+r.Int63n(2))
			}
		}
	}
	if slices.ContainsFunc(p.Workload[1:], follows) && r.Int63n(4) > 0 { // the first is single
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

// splitHeap has somebody watch a keyspace at a node that does not lead the range with its keys, keeps that node from applying for a while,
// and has the range cut then: what was written before the cut, on both sides of it, and the cut are applied in one go.
func splitHeap(in *injector, f *Fault) (func(), bool) {
	w := in.w
	r, n := w.followable(f)
	if r == nil {
		return nil, false
	}
	w.watchAll(r, n, f.For)
	over, goesOn := false, func() {}
	end := func() {
		over = true
		goesOn()
		goesOn = func() {}
	}
	after := func(d time.Duration, do func()) {
		w.queue.put(w.now+d, func() {
			if !over && !in.healed && !w.merged[r.id] {
				do()
			}
		})
	}
	after(watchBegins, func() {
		n.slow.applyStalls++
		goesOn = func() {
			n.slow.applyStalls--
			if p := n.process; p != nil {
				p.do(func() {})
			}
		}
		after(time.Duration(500+f.Amount>>20%1500)*time.Millisecond, func() {
			if l := w.leader(r); l != nil && l.pauses == 0 {
				w.count("cuts that a node with watches fell behind")
				l.process.do(func() { l.process.mover.splitWatched(r, uint64(f.Amount)) })
			}
			after(watchBegins, end)
		})
	})
	return end, true
}

const (
	watchedKey  = "w/"                   // all keys that are watched follow it
	watchBegins = 300 * time.Millisecond // by then a watch has begun, and a cut is committed, where all is well
)

// followable is a range with keys of a workload that watches, and a node that has a replica of it and does not lead it.
func (w *world) followable(f *Fault) (*rangeInfo, *node) {
	for i := range w.ranges {
		r := w.ranges[(f.Range+i)%len(w.ranges)]
		if kind, _ := workloads.Named(r.name); !kind.Follows || !r.ks.Splits() || kind.Cut == nil && !desc.Contains(w.newest(r), r.ks, []byte(watchedKey)) {
			continue
		}
		leader := w.leader(r)
		for k := range w.nodes {
			n := w.nodes[(f.Node+k)%len(w.nodes)]
			if leader != nil && n != leader && n.process != nil && n.process.store.View(r.id) != nil {
				return r, n
			}
		}
	}
	return nil, nil
}

// watchAll has a client of its own watch a range's keyspace at a node, from now on. What it gets is held to the same as all watches.
func (w *world) watchAll(r *rangeInfo, n *node, d time.Duration) {
	w.askAt(r, n, &followpb.FollowRequest{Key: []byte{0}, RangeEnd: []byte{0}, ForMicros: d.Microseconds()}, func(*linearizability.Op) {})
}

// askAt has a client of its own make one request to a range's keyspace, at a node.
func (w *world) askAt(r *rangeInfo, n *node, req proto.Message, done func(*linearizability.Op)) {
	for _, o := range w.ranges {
		if o.ks == r.ks && o.history != nil {
			w.watchers++
			c := w.newClient(o, w.plan.Clients+snapshotClients+len(w.nodes)+w.watchers)
			c.to = n.i
			c.do(req, false, done)
			return
		}
	}
}

// splitWatched cuts a range whose keys are watched: among them or, where that may not be, so that the right part has them all.
func (m *mover) splitWatched(r *rangeInfo, draw uint64) {
	if kind, _ := workloads.Named(r.name); kind.Cut != nil {
		m.split(r, draw)
		return
	}
	start := m.p.n.w.newest(r).Start
	if !bytes.HasPrefix(start, []byte("v")) {
		start = []byte("v")
	}
	m.splitAt(r, fmt.Appendf(nil, "%s%d", start, draw%10))
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

// latePublish is how late somebody who was stuck publishes: the range may well have changed since.
const latePublish = 2 * time.Second

// publishedAs takes note of what the index has acknowledged, and publishes it once more some time later. Where something newer was in its
// place by then it must not be stored.
func (m *mover) publishedAs(c *call, d *metapb.RangeDescriptor) {
	w, key := m.p.n.w, string(c.key)
	w.listed[key] = max(w.listed[key], d.Generation)
	if w.late == 0 {
		return
	}
	m.p.later(latePublish, func() {
		known := w.listed[key]
		if known == d.Generation {
			return // it is not old
		}
		again := &call{ks: c.ks, key: c.key, write: true, data: c.data, deadline: m.p.gateway.now().Add(base.RequestTimeout)}
		again.done = func(msg proto.Message, err error) {
			w.count("old descriptors published again")
			if resp, ok := msg.(*kvpb.PublishDescriptorResponse); ok && err == nil && resp.Stored {
				w.violate("the index goes on", "%s was stored where generation %d had been", desc.Format(d), known)
			}
		}
		m.p.gateway.begin(again)
	})
}
