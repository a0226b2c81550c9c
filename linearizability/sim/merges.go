package sim

import (
	"bytes"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/merge"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/raftgroup"
)

// Ranges that were cut are merged again, while everything else goes on, and goes wrong. The steps are the product's, meta/merge; what
// node/keyspace does with goroutines that wait is done here with calls that are told.

var mergeKinds = []kind{
	{"merge", "W12", "two neighbours are merged", drawMerge, func(in *injector, f *Fault) (func(), bool) {
		return nil, in.merge(f)
	}},
	{"crash-merge", "F16", "nodes crash before or after they apply a merge, or after they confirmed that it may be made", func(r *base.Rand, p *Plan, f *Fault) {
		drawMerge(r, p, f)
		f.For = between(r, time.Second, 8*time.Second)
	}, func(in *injector, f *Fault) (func(), bool) {
		disarm := in.arm([]string{"before merge", "after merge", "after confirm"}[f.Amount%3], f.Amount)
		return disarm, in.merge(f)
	}},
	{"merge-behind", "W12", "ranges are merged while a node is about to fall behind", func(r *base.Rand, p *Plan, f *Fault) {
		drawMerge(r, p, f)
		f.Node, f.For = int(r.Int63n(int64(p.Nodes))), between(r, 500*time.Millisecond, 10*time.Second)
	}, mergeBehind},
	{"merge-apart", "W12", "ranges that two nodes lead are merged, and the right one's leader applies nothing when it has confirmed that", func(r *base.Rand, p *Plan, f *Fault) {
		drawMerge(r, p, f)
		f.For = between(r, 500*time.Millisecond, 6*time.Second)
	}, mergeApart},
	{"merge-and-cut", "W12", "what is merged is cut again at the same key at once", drawMerge, func(in *injector, f *Fault) (func(), bool) {
		in.w.taken = append(in.w.taken, func(left *rangeInfo, at []byte) bool { return in.cutAgain(left, at) })
		return nil, in.merge(f)
	}},
}

func drawMerge(r *base.Rand, _ *Plan, f *Fault) {
	f.Range, f.Amount = int(r.Int63n(16)), r.Int63n(1<<40)
}

// drawMerges adds to a plan that cuts ranges what merges them.
func drawMerges(r *base.Rand, p *Plan, only Only) {
	splits := slices.ContainsFunc(p.Faults, func(f Fault) bool {
		return slices.ContainsFunc(splitKinds, func(k kind) bool { return k.Kind == f.Kind })
	})
	if !splits || !only.allows("W12") || r.Int63n(4) == 0 {
		return
	}
	for range 1 + r.Int63n(8) {
		k := &mergeKinds[[]int{0, 0, 1, 2, 2, 3, 3, 4}[r.Int63n(8)]]
		if !only.allows(k.Class) {
			k = &mergeKinds[0]
		}
		f := Fault{Kind: k.Kind, At: between(r, p.Length/8, p.Length)}
		k.draw(r, p, &f)
		p.Faults = append(p.Faults, f)
	}
}

// arm has some nodes crash at a point.
func (in *injector) arm(point string, amount int64) (disarm func()) {
	for i, n := range in.w.nodes {
		if p := n.process; p != nil && p.crashAt == "" && amount>>(8+i)%2 == 0 {
			p.crashAt, p.crashPasses, p.crashLose = point, 1, amount>>20%101
		}
	}
	return func() {
		for _, n := range in.w.nodes {
			if n.process == nil {
				n.start()
			} else if n.process.crashAt == point {
				n.process.crashAt = ""
			}
		}
	}
}

// mergeBehind merges two ranges, and cuts a node off or keeps it from applying at some moment of that; the parts are moved then, so
// that what the node gets to know last is the merge, a snapshot from behind it, or its removal.
func mergeBehind(in *injector, f *Fault) (func(), bool) {
	if !in.merge(f) {
		return nil, false
	}
	n := in.w.nodes[f.Node%len(in.w.nodes)]
	var over bool
	var undo func()
	in.w.queue.put(in.w.now+time.Duration(f.Amount>>10%30)*time.Millisecond, func() {
		switch {
		case over:
		case f.Amount>>30%2 == 0:
			n.slow.applyStalls++
			undo = func() {
				n.slow.applyStalls--
				if p := n.process; p != nil {
					p.do(func() {})
				}
			}
		default:
			var edges []edge
			for i := range in.w.nodes {
				if i != n.i {
					edges = append(edges, both(n.i, i)...)
				}
			}
			undo = in.cutEdges(edges, classRaft, classBulk)
		}
	})
	if f.Amount>>31%2 == 0 && len(in.w.nodes) > 3 {
		in.w.taken = append(in.w.taken, func(left *rangeInfo, _ []byte) bool {
			in.scatter(left)
			return true
		})
	}
	return func() {
		over = true
		if undo != nil {
			undo()
		}
	}, true
}

// mergeApart merges two ranges of which the right one is led by a node that does not lead the left one, and stalls that node's
// appliers after some time: its replica of the right one, which has frozen, is then the only one that clients may still ask.
func mergeApart(in *injector, f *Fault) (func(), bool) {
	pairs := in.w.pairs()
	if len(pairs) == 0 {
		return nil, false
	}
	left, right := pairs[f.Range%len(pairs)][0], pairs[f.Range%len(pairs)][1]
	stalled, over := (*node)(nil), false
	in.w.tryUntil(func() bool {
		l, r := in.w.leader(left), in.w.leader(right)
		switch {
		case over || in.healed || in.w.merged[left.id] || in.w.merged[right.id]:
			return true
		case l == nil || r == nil || r.pauses > 0:
			return false
		case l == r:
			st, _ := r.process.hand.Status(right.id)
			for _, rep := range st.Descriptor.GetReplicas() {
				if base.NodeID(rep.NodeId) != r.id && rep.Role == metapb.ReplicaRole_REPLICA_ROLE_VOTER {
					r.process.do(func() { r.process.store.Transfer(right.id, base.ReplicaID(rep.ReplicaId)) })
					break
				}
			}
			return false
		}
		in.mergePair(left, right, 0)
		in.w.queue.put(in.w.now+time.Duration(f.Amount>>10%40)*time.Millisecond, func() {
			if !over {
				stalled = r
				r.slow.applyStalls++
			}
		})
		return true
	}, 50)
	return func() {
		over = true
		if stalled != nil {
			stalled.slow.applyStalls--
			if p := stalled.process; p != nil {
				p.do(func() {})
			}
		}
	}, true
}

// merge has one of the pairs of neighbours merged, by the node that leads the left one. Those on different nodes are brought to the
// same ones first, which is tried for a while.
func (in *injector) merge(f *Fault) bool {
	pairs := in.w.pairs()
	if len(pairs) == 0 {
		return false
	}
	pair := pairs[f.Range%len(pairs)]
	in.mergePair(pair[0], pair[1], int(f.Amount>>4%8))
	return true
}

func (in *injector) mergePair(left, right *rangeInfo, more int) {
	w := in.w
	l, r := w.newest(left), w.newest(right)
	if in.healed || w.merged[left.id] || w.merged[right.id] || !desc.Neighbours(l, r) {
		return
	}
	if n := w.leader(left); n != nil && n.pauses == 0 && desc.Mergeable(l, r) == nil {
		n.process.do(func() { n.process.mover.merge(merge.Begin(l, r), func(*merge.Done) {}) })
		return
	}
	if !desc.SameNodes(l, r) && !desc.IsFrozen(r) {
		var on []base.NodeID
		for _, rep := range l.Replicas {
			on = append(on, base.NodeID(rep.NodeId))
		}
		if len(on) == 3 || w.sys != nil {
			w.together(left, right, on)
		}
	}
	if more > 0 {
		w.queue.put(w.now+time.Second, func() { in.mergePair(left, right, more-1) })
	}
}

// pairs are the neighbours that there are, in order.
func (w *world) pairs() (out [][2]*rangeInfo) {
	for _, l := range w.ranges {
		for _, r := range w.ranges {
			if l.ks.Splits() && l != w.meta && desc.Neighbours(w.newest(l), w.newest(r)) {
				out = append(out, [2]*rangeInfo{l, r})
			}
		}
	}
	return out
}

// cutAgain cuts a range at the key at which one began that it has taken over.
func (in *injector) cutAgain(left *rangeInfo, at []byte) bool {
	n := in.w.leader(left)
	if n == nil || n.pauses > 0 || in.healed {
		return in.healed
	}
	done := false
	n.process.do(func() { done = n.process.mover.splitAt(left, at) })
	return done
}

// takenOver takes note that a range is part of another: nobody's from now on.
func (w *world) takenOver(id base.RangeID, by *metapb.RangeDescriptor, at []byte) {
	r := w.byID[id]
	if r == nil || w.merged[id] {
		return
	}
	w.merged[id] = true
	if w.sys != nil {
		w.sys.moved = w.now
	}
	w.ranges = slices.DeleteFunc(w.ranges, func(o *rangeInfo) bool { return o == r })
	w.gone = append(w.gone, r)
	w.count("ranges merged")
	w.tracef("%s is part of %s", id, desc.Format(by))
	left := w.byID[base.RangeID(by.RangeId)]
	taken := w.taken
	w.taken = nil
	for _, f := range taken {
		w.tryUntil(func() bool { return f(left, at) }, 20)
	}
}

// tryUntil calls f every now and then until it says that it is done.
func (w *world) tryUntil(f func() bool, more int) { w.tryEvery(20*time.Millisecond, f, more) }

func (w *world) tryEvery(d time.Duration, f func() bool, more int) {
	if !f() && more > 0 {
		w.queue.put(w.now+d, func() { w.tryEvery(d, f, more-1) })
	}
}

// merge drives a merge to its end. A process that dies leaves it where it is.
func (m *mover) merge(run *merge.Run, done func(*merge.Done)) {
	step := run.Next()
	if wait := m.p.n.w.aim(&step); wait > 0 {
		m.p.later(wait, func() { m.mergeStep(run, &step, done) })
		return
	}
	m.mergeStep(run, &step, done)
}

func (m *mover) mergeStep(run *merge.Run, step *merge.Step, done func(*merge.Done)) {
	w := m.p.n.w
	switch {
	case step.Propose != nil:
		w.tracef("%s proposes %T", m.p.n.id, step.Propose.Command.Body)
		m.command(step.Propose.Keyspace, step.Propose.Key, step.Propose.Command, func(msg proto.Message, err error) {
			w.tracef("%s is told of %T: %v", m.p.n.id, step.Propose.Command.Body, err)
			run.Answered(msg, err)
			m.merge(run, done)
		})
	case step.Confirm != nil:
		m.confirm(step.Confirm, func(n int) {
			run.Confirmed(n)
			m.merge(run, done)
		})
	case step.Look != nil:
		c := &call{ks: step.Look.Keyspace, key: step.Look.Key, look: true, deadline: m.p.gateway.now().Add(base.RequestTimeout)}
		c.done = func(msg proto.Message, err error) {
			d, _ := msg.(*metapb.RangeDescriptor)
			run.Found(d, err)
			m.merge(run, done)
		}
		m.p.gateway.begin(c)
	default:
		if step.Done.Err == nil {
			w.count("merges done")
		} else {
			w.count("merges not done")
		}
		w.tracef("%s ends a merge: %v", m.p.n.id, step.Done.Err)
		done(step.Done)
	}
}

// command proposes a command to the range of a key, wherever that is led.
func (m *mover) command(ks base.KeyspaceID, key []byte, cmd *kvpb.Command, done func(proto.Message, error)) {
	cmd.NowMicros = m.p.gateway.micros()
	data, err := proto.Marshal(cmd)
	if err != nil {
		panic(err)
	}
	m.p.gateway.begin(&call{ks: ks, key: key, write: true, data: data, deadline: m.p.gateway.now().Add(base.RequestTimeout), done: done})
}

// confirm asks all nodes at once.
func (m *mover) confirm(c *merge.Confirm, done func(int)) {
	p, w := m.p, m.p.n.w
	confirmed, ended := 0, false
	end := func() {
		if !ended {
			ended = true
			done(confirmed)
		}
	}
	p.later(base.MergeConfirmTime, end)
	for _, id := range c.Nodes {
		target := w.node(id)
		w.net.send(p.n.i, target.i, classControl, 32, func() {
			q := target.process
			if q == nil {
				return
			}
			q.do(func() {
				q.confirm(c, q.store.Now().Add(base.MergeConfirmTime), func() {
					w.net.send(target.i, p.n.i, classControl, 32, func() {
						p.do(func() {
							if confirmed++; confirmed == c.Need {
								end()
							}
						})
					})
				})
			})
		})
	}
}

// confirm answers once this node's replica is where it is asked to be, and asks again meanwhile.
func (p *process) confirm(c *merge.Confirm, until base.Instant, yes func()) {
	p.store.Confirm(c.Range, c.Generation, until, func(_ proto.Message, err error) {
		p.ready = append(p.ready, func() {
			switch {
			case err == nil:
				p.n.w.count("merges confirmed")
				yes()
				p.point("after confirm")
			case p.store.Now() < until:
				p.later(base.RetryMin, func() { p.confirm(c, until, yes) })
			}
		})
	})
}

// unmerged goes on with a merge that another began, of a range that this node leads.
func (m *mover) unmerged(st *raftgroup.Status) {
	id := st.Range
	var run *merge.Run
	switch d := st.Descriptor; {
	case desc.IsFrozen(d):
		at, ok := m.frozen[id]
		if now := m.p.gateway.now(); !ok || at.generation != d.Generation {
			m.frozen[id] = frozenAt{d.Generation, now}
			return
		} else if now.Sub(at.since) < base.MergePatience {
			return
		}
		run = merge.Resume(d)
		m.p.n.w.count("merges resumed")
	case d.Absorbing != 0 && m.published[id] >= d.Generation:
		run = merge.Finish(d)
	default:
		delete(m.frozen, id)
		return
	}
	m.busy[id] = true
	m.merge(run, func(*merge.Done) { m.busy[id] = false })
}

type frozenAt struct {
	generation uint64
	since      base.Instant
}

// clear deletes the index's entries of ranges that are part of d by now, and notes that d is published.
func (m *mover) clear(d *metapb.RangeDescriptor) {
	start, _ := route.IndexSpan(base.KeyspaceID(d.KeyspaceId), d.Start)
	read := &pb.RangeRequest{Key: start, RangeEnd: route.DescriptorKey(d)}
	c := &call{ks: base.KeyspaceMeta, key: start, req: read, deadline: m.p.gateway.now().Add(base.RequestTimeout)}
	c.done = func(msg proto.Message, err error) {
		if err != nil {
			return
		}
		resp := msg.(*pb.RangeResponse)
		left := len(resp.Kvs)
		one := func(_ proto.Message, err error) {
			if err == nil {
				left--
			}
			if left == 0 {
				m.published[base.RangeID(d.RangeId)] = max(m.published[base.RangeID(d.RangeId)], d.Generation)
			}
		}
		if left == 0 {
			left = 1
			one(nil, nil)
			return
		}
		for _, kv := range resp.Kvs {
			m.command(base.KeyspaceMeta, kv.Key, &kvpb.Command{Body: &kvpb.Command_UnpublishDescriptor{
				UnpublishDescriptor: &kvpb.UnpublishDescriptor{Key: bytes.Clone(kv.Key), Generation: d.Generation},
			}}, one)
		}
	}
	m.p.gateway.begin(c)
}
