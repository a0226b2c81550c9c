package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/desc"
)

var _ = engine.ErrNotFound

// kind is one kind of fault: how it is drawn and how it is carried out.
type kind struct {
	Kind  FaultKind
	Class string
	About string
	draw  func(r *base.Rand, p *Plan, f *Fault)
	begin func(in *injector, f *Fault) (end func(), fired bool)
}

func kindNamed(k FaultKind) (*kind, bool) {
	for i := range kinds {
		if kinds[i].Kind == k {
			return &kinds[i], true
		}
	}
	return nil, false
}

func between(r *base.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int63n(int64(hi-lo)+1))
}

// someNode draws a node, in one of three cases the leader.
func someNode(r *base.Rand, p *Plan, f *Fault) {
	f.Node = int(r.Int63n(int64(p.Nodes)))
	f.Range = int(r.Int63n(int64(p.Ranges + 1)))
	if r.Int63n(3) == 0 {
		f.Node = Leader
	}
}

func crash(lose bool, n int) func(in *injector, f *Fault) (func(), bool) {
	return func(in *injector, f *Fault) (func(), bool) {
		first := in.node(f)
		if first == nil {
			return nil, false
		}
		var hit []*node
		for i := range in.w.nodes {
			v := in.w.nodes[(first.i+i)%len(in.w.nodes)]
			if len(hit) < n && v.process != nil {
				hit = append(hit, v)
			}
		}
		for _, v := range hit {
			if lose {
				v.crash(f.Amount)
			} else {
				v.crash(0)
			}
		}
		return func() {
			for _, v := range hit {
				restart(v)
			}
		}, len(hit) > 0
	}
}

func pauseSome(n int) func(in *injector, f *Fault) (func(), bool) {
	return func(in *injector, f *Fault) (func(), bool) {
		first := in.node(f)
		if first == nil {
			return nil, false
		}
		var hit []*node
		for i := range in.w.nodes {
			v := in.w.nodes[(first.i+i)%len(in.w.nodes)]
			if len(hit) < n && v.process != nil {
				hit = append(hit, v)
				v.pause()
			}
		}
		return func() {
			for _, v := range hit {
				v.resume()
			}
		}, len(hit) > 0
	}
}

var allClasses = []class{classRaft, classControl, classBulk, classSupport}

type edge struct{ from, to int }

func (in *injector) cutEdges(edges []edge, cs ...class) func() {
	for _, e := range edges {
		in.w.net.cut(e.from, e.to, cs...)
	}
	return func() {
		for _, e := range edges {
			in.w.net.mend(e.from, e.to, cs...)
		}
	}
}

func both(a, b int) []edge { return []edge{{a, b}, {b, a}} }

// edgesOf by the pattern of a partition.
func (in *injector) pattern(f *Fault) (edges []edge, ok bool) {
	w := in.w
	n := len(w.nodes)
	first := in.node(f)
	if first == nil {
		return nil, false
	}
	at := func(i int) int { return (first.i + i) % n }
	switch f.Amount % 4 {
	case 0: // isolate
		for i := 1; i < n; i++ {
			edges = append(edges, both(first.i, at(i))...)
		}
	case 1: // halves
		for i := range n {
			for j := range i {
				if (i < (n+1)/2) != (j < (n+1)/2) {
					edges = append(edges, both(at(i), at(j))...)
				}
			}
		}
	case 2: // ring: each sees its neighbours alone
		for i := range n {
			for j := range i {
				if d := i - j; d != 1 && d != n-1 || n == 3 && i == 2 && j == 0 {
					edges = append(edges, both(at(i), at(j))...)
				}
			}
		}
	case 3: // bridge: two halves and one that sees both
		for i := 1; i < n; i++ {
			for j := 1; j < i; j++ {
				if (i <= n/2) != (j <= n/2) {
					edges = append(edges, both(at(i), at(j))...)
				}
			}
		}
	}
	return edges, len(edges) > 0
}

func (in *injector) linksOf(i int, f func(*link)) {
	for k := range in.w.net.links {
		if k != i {
			f(&in.w.net.links[i][k])
			f(&in.w.net.links[k][i])
		}
	}
}

func linkFault(set func(l *link, f *Fault, sign int)) func(in *injector, f *Fault) (func(), bool) {
	return func(in *injector, f *Fault) (func(), bool) {
		n := in.node(f)
		if n == nil {
			return nil, false
		}
		in.linksOf(n.i, func(l *link) { set(l, f, 1) })
		return func() { in.linksOf(n.i, func(l *link) { set(l, f, -1) }) }, true
	}
}

func clockFault(f func(in *injector, n *node, f *Fault) func()) func(in *injector, f *Fault) (func(), bool) {
	return func(in *injector, fault *Fault) (func(), bool) {
		n := in.node(fault)
		if n == nil {
			return nil, false
		}
		return f(in, n, fault), true
	}
}

var points = []string{"before append", "after append", "before sync", "after sync", "before send", "before apply", "after apply", "before ingest", "after ingest"}

var kinds = append([]kind{
	{"kill", "F01", "a process is killed", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For = between(r, 100*time.Millisecond, 5*time.Second)
	}, crash(false, 1)},
	{"kill-minority", "F01", "as many as the ranges survive are killed", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For = between(r, 100*time.Millisecond, 4*time.Second)
	}, func(in *injector, f *Fault) (func(), bool) { return crash(false, (len(in.w.nodes)-1)/2)(in, f) }},
	{"kill-all", "F01", "all are killed at once", func(r *base.Rand, p *Plan, f *Fault) {
		f.For = between(r, 100*time.Millisecond, 2*time.Second)
	}, crash(false, 9)},
	{"kill-unsynced", "F02", "a machine loses power", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 100*time.Millisecond, 5*time.Second), r.Int63n(101)
	}, crash(true, 1)},
	{"kill-all-unsynced", "F02", "all machines lose power", func(r *base.Rand, p *Plan, f *Fault) {
		f.For, f.Amount = between(r, 100*time.Millisecond, 2*time.Second), r.Int63n(101)
	}, crash(true, 9)},
	{"pause", "F03", "a process is stopped and goes on", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For = between(r, 500*time.Millisecond, 12*time.Second)
	}, pauseSome(1)},
	{"pause-majority", "F03", "a majority is stopped and goes on", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For = between(r, 500*time.Millisecond, 4*time.Second)
	}, func(in *injector, f *Fault) (func(), bool) { return pauseSome(len(in.w.nodes)/2+1)(in, f) }},
	{"partition", "F04", "isolated, halves, a ring, a bridge", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 500*time.Millisecond, 10*time.Second), r.Int63n(4)
	}, func(in *injector, f *Fault) (func(), bool) {
		edges, ok := in.pattern(f)
		if !ok {
			return nil, false
		}
		return in.cutEdges(edges, allClasses...), true
	}},
	{"cut-pair", "F05", "two nodes do not reach each other", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Peers = between(r, 500*time.Millisecond, 12*time.Second), []int{int(r.Int63n(int64(p.Nodes)))}
	}, func(in *injector, f *Fault) (func(), bool) {
		n := in.node(f)
		if n == nil || n.i == f.Peers[0] {
			return nil, false
		}
		return in.cutEdges(both(n.i, f.Peers[0]), allClasses...), true
	}},
	{"one-way", "F06", "a node is deaf or mute", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 500*time.Millisecond, 10*time.Second), r.Int63n(2)
	}, func(in *injector, f *Fault) (func(), bool) {
		n := in.node(f)
		if n == nil {
			return nil, false
		}
		var edges []edge
		for _, o := range in.others(n.i) {
			if f.Amount == 0 {
				edges = append(edges, edge{n.i, o})
			} else {
				edges = append(edges, edge{o, n.i})
			}
		}
		return in.cutEdges(edges, allClasses...), true
	}},
	{"cut-class", "F06", "one class of frames is lost", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 500*time.Millisecond, 8*time.Second), r.Int63n(int64(classes))
	}, func(in *injector, f *Fault) (func(), bool) {
		n := in.node(f)
		if n == nil {
			return nil, false
		}
		var edges []edge
		for _, o := range in.others(n.i) {
			edges = append(edges, both(n.i, o)...)
		}
		return in.cutEdges(edges, class(f.Amount)), true
	}},
	{"cut-clients", "F06", "clients do not reach a node", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 500*time.Millisecond, 8*time.Second), r.Int63n(3)
	}, func(in *injector, f *Fault) (func(), bool) {
		n := in.node(f)
		if n == nil {
			return nil, false
		}
		e := both(n.i, in.w.net.clients())
		if f.Amount < 2 {
			e = e[f.Amount : f.Amount+1]
		}
		return in.cutEdges(e, classControl), true
	}},
	{"delay", "F07", "a node's links are slow", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 500*time.Millisecond, 10*time.Second), 10+r.Int63n(490)
	}, linkFault(func(l *link, f *Fault, sign int) {
		d := time.Duration(f.Amount) * time.Millisecond * time.Duration(sign)
		l.delay += d / 2
		l.jitter += d / 2
	})},
	{"loss", "F07", "a node's links lose frames", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 500*time.Millisecond, 10*time.Second), 10_000+r.Int63n(290_000)
	}, linkFault(func(l *link, f *Fault, sign int) { l.loss += int(f.Amount) * sign })},
	{"double", "F07", "a node's links double and reorder frames", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 500*time.Millisecond, 10*time.Second), 10_000+r.Int63n(290_000)
	}, linkFault(func(l *link, f *Fault, sign int) { l.double += int(f.Amount) * sign; l.reorder += int(f.Amount) * sign })},
	{"hold", "F07", "a node's links keep what they carry, and let it go at once", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For = between(r, 200*time.Millisecond, 6*time.Second)
	}, func(in *injector, f *Fault) (func(), bool) {
		n := in.node(f)
		if n == nil {
			return nil, false
		}
		os := in.others(n.i)
		for _, o := range os {
			in.w.net.hold(n.i, o)
			in.w.net.hold(o, n.i)
		}
		return func() {
			for _, o := range os {
				in.w.net.release(n.i, o)
				in.w.net.release(o, n.i)
			}
		}, true
	}},
	{"flap", "F07", "a partition comes and goes", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 2*time.Second, 10*time.Second), 100+r.Int63n(2000)
	}, func(in *injector, f *Fault) (func(), bool) {
		n := in.node(f)
		if n == nil {
			return nil, false
		}
		var edges []edge
		for _, o := range in.others(n.i) {
			edges = append(edges, both(n.i, o)...)
		}
		over := false
		var mend func()
		var flip func()
		flip = func() {
			if over {
				return
			}
			if mend != nil {
				mend()
				mend = nil
			} else {
				mend = in.cutEdges(edges, allClasses...)
			}
			in.w.queue.put(in.w.now+time.Duration(f.Amount)*time.Millisecond, flip)
		}
		flip()
		return func() {
			over = true
			if mend != nil {
				mend()
			}
		}, true
	}},
	{"clock-step", "F08", "a wall clock jumps", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.Amount = int64(between(r, 10*time.Millisecond, 10*time.Minute) / time.Millisecond)
		if r.Int63n(2) == 0 {
			f.Amount = 10 + r.Int63n(3000)
		}
		if r.Int63n(2) == 0 {
			f.Amount = -f.Amount
		}
	}, clockFault(func(in *injector, n *node, f *Fault) func() {
		n.wall.change(in.w.now, func(c *clock) { c.local = c.local.Add(time.Duration(f.Amount) * time.Millisecond) })
		return nil
	})},
	{"clock-drift", "F08", "a clock runs at another rate, within what leases allow", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 2*time.Second, 20*time.Second), r.Int63n(100_000)-50_000
	}, clockFault(func(in *injector, n *node, f *Fault) func() {
		n.clock.change(in.w.now, func(c *clock) { c.drift += int(f.Amount) })
		return func() { n.clock.change(in.w.now, func(c *clock) { c.drift -= int(f.Amount) }) }
	})},
	{"clock-freeze", "F08", "a wall clock stands still", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For = between(r, 500*time.Millisecond, 8*time.Second)
	}, clockFault(func(in *injector, n *node, f *Fault) func() {
		n.wall.change(in.w.now, func(c *clock) { c.frozen++ })
		return func() { n.wall.change(in.w.now, func(c *clock) { c.frozen-- }) }
	})},
	{"clock-strobe", "F08", "a wall clock jumps to and fro", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 2*time.Second, 8*time.Second), 50+r.Int63n(2000)
	}, clockFault(func(in *injector, n *node, f *Fault) func() {
		over := false
		d := time.Duration(f.Amount) * time.Millisecond
		var step func()
		step = func() {
			if over {
				return
			}
			n.wall.change(in.w.now, func(c *clock) { c.local = c.local.Add(d) })
			d = -d
			in.w.queue.put(in.w.now+150*time.Millisecond, step)
		}
		step()
		return func() { over = true }
	})},
	{"sync-stall", "F09", "a disk's syncs do not end", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For = []time.Duration{time.Second, 4 * time.Second, 25 * time.Second, 0}[r.Int63n(4)]
	}, clockFault(func(in *injector, n *node, f *Fault) func() {
		n.slow.stall(in.w.now)
		return func() {
			n.slow.stalls--
			if p := n.process; p != nil {
				p.do(func() {})
			}
		}
	})},
	{"sync-slow", "F09", "a disk is a hundred times slower", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, time.Second, 15*time.Second), 2+r.Int63n(100)
	}, clockFault(func(in *injector, n *node, f *Fault) func() {
		n.slow.factors = append(n.slow.factors, f.Amount) // several may be under way at once
		return func() {
			i := slices.Index(n.slow.factors, f.Amount)
			n.slow.factors = slices.Delete(n.slow.factors, i, i+1)
		}
	})},
	{"disk-error", "F09", "writes and syncs fail; the process stops", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For = between(r, 100*time.Millisecond, 4*time.Second)
	}, func(in *injector, f *Fault) (func(), bool) {
		n := in.node(f)
		if n == nil || n.process == nil {
			return nil, false
		}
		p := n.process
		p.expected = true
		p.eng.fail = fmt.Errorf("%s: %w", n.id, errDisk)
		return func() {
			p.eng.fail = nil
			restart(n)
		}, true
	}},
	{"move", "F11", "a range's replicas are to be on other nodes", func(r *base.Rand, p *Plan, f *Fault) {
		f.Range = int(r.Int63n(int64(p.Ranges + 1)))
		perm := make([]int, p.Nodes)
		for i := range perm {
			perm[i] = i
			k := int(r.Int63n(int64(i + 1)))
			perm[i], perm[k] = perm[k], perm[i]
		}
		f.Peers = perm[:3]
	}, func(in *injector, f *Fault) (func(), bool) {
		var on []base.NodeID
		for _, i := range f.Peers {
			on = append(on, base.NodeID(i+1))
		}
		in.w.want(in.w.ranges[f.Range%len(in.w.ranges)], on...)
		return nil, true
	}},
	{"churn", "F12", "replicas are moved again and again", func(r *base.Rand, p *Plan, f *Fault) {
		f.For, f.Amount = between(r, 5*time.Second, 20*time.Second), 300+r.Int63n(3000)
	}, func(in *injector, f *Fault) (func(), bool) {
		if len(in.w.nodes) == 3 {
			return nil, false
		}
		over := false
		var again func()
		again = func() {
			if over {
				return
			}
			in.scatter(in.w.ranges[in.rand.Int63n(int64(len(in.w.ranges)))])
			in.w.queue.put(in.w.now+time.Duration(f.Amount)*time.Millisecond, again)
		}
		again()
		return func() { over = true }, true
	}},
	{"transfer", "F12", "leadership is handed over", func(r *base.Rand, p *Plan, f *Fault) {
		f.Range, f.Node = int(r.Int63n(int64(p.Ranges+1))), int(r.Int63n(int64(p.Nodes)))
	}, func(in *injector, f *Fault) (func(), bool) {
		r := in.w.ranges[f.Range%len(in.w.ranges)]
		l := in.w.leader(r)
		if l == nil || l.pauses > 0 {
			return nil, false
		}
		st, _ := l.process.hand.Status(r.id)
		to := desc.ReplicaOn(st.Descriptor, in.w.nodes[f.Node].id)
		if to == nil || l.i == f.Node {
			return nil, false
		}
		l.process.do(func() { l.process.store.Transfer(r.id, base.ReplicaID(to.ReplicaId)) })
		return nil, true
	}},
	{"snapshot-cut", "F12", "snapshots' streams break", func(r *base.Rand, p *Plan, f *Fault) {
		f.For = between(r, 500*time.Millisecond, 6*time.Second)
	}, func(in *injector, f *Fault) (func(), bool) {
		in.w.bulkCuts++
		return func() { in.w.bulkCuts-- }, true
	}},
	{"apply-stall", "F13", "a node applies nothing", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For = between(r, 500*time.Millisecond, 8*time.Second)
	}, clockFault(func(in *injector, n *node, f *Fault) func() {
		n.slow.applyStalls++
		return func() {
			n.slow.applyStalls--
			if p := n.process; p != nil {
				p.do(func() {})
			}
		}
	})},
	{"crash-ingest", "F16", "whoever takes a snapshot in crashes before or after it", func(r *base.Rand, p *Plan, f *Fault) {
		f.Range, f.For, f.Amount = int(r.Int63n(int64(p.Ranges+1))), between(r, 3*time.Second, 12*time.Second), r.Int63n(1000)
	}, armIngest},
	{"crash-at", "F16", "a crash at a named point", func(r *base.Rand, p *Plan, f *Fault) {
		someNode(r, p, f)
		f.For, f.Amount = between(r, 500*time.Millisecond, 4*time.Second), r.Int63n(int64(len(points))*1000)
	}, func(in *injector, f *Fault) (func(), bool) {
		n := in.node(f)
		if n == nil || n.process == nil || n.process.crashAt != "" {
			return nil, false
		}
		p := n.process
		p.crashAt = points[int(f.Amount)%len(points)]
		p.crashPasses = 1 + f.Amount/int64(len(points))%20
		p.crashLose = f.Amount / 10 % 101
		return func() {
			p.crashAt = ""
			restart(n)
		}, true
	}},
}, slices.Concat(leaseKinds, splitKinds, mergeKinds, placeKinds, aimedKinds)...)

// scatter wants a range's replicas on three nodes of the injector's choice.
func (in *injector) scatter(r *rangeInfo) {
	on := map[int]bool{}
	for len(on) < 3 {
		on[int(in.rand.Int63n(int64(len(in.w.nodes))))] = true
	}
	var nodes []base.NodeID
	for _, i := range sortedKeys(on) {
		nodes = append(nodes, base.NodeID(i+1))
	}
	in.w.want(r, nodes...)
}

// armIngest moves a range and has each node crash that takes in a snapshot.
func armIngest(in *injector, f *Fault) (func(), bool) {
	if len(in.w.nodes) == 3 {
		return nil, false
	}
	point := "before ingest"
	if f.Amount%2 == 1 {
		point = "after ingest"
	}
	in.scatter(in.w.ranges[f.Range%len(in.w.ranges)])
	armed := false
	for _, n := range in.w.nodes {
		if p := n.process; p != nil && p.crashAt == "" {
			p.crashAt, p.crashPasses, p.crashLose, armed = point, 1, f.Amount%101, true
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
	}, armed
}
