package sim

import (
	"slices"

	"github.com/cairndb/cairn/internal/base"
)

// injector carries a plan's faults out and undoes them.
type injector struct {
	w      *world
	rand   *base.Rand
	active []*underway // in the order in which they began
	healed bool
}

// underway is a fault that is still to be undone.
type underway struct {
	fault *Fault
	end   func()
}

func newInjector(w *world) *injector { return &injector{w: w, rand: w.stream("faults")} }

// schedule puts the plan's faults into the queue: their times count from now.
func (in *injector) schedule() {
	for i := range in.w.plan.Faults {
		f := &in.w.plan.Faults[i]
		in.w.queue.put(in.w.now+f.At, func() { in.begin(f) })
	}
}

// begin carries one out. A kind's begin returns how to undo it, and whether it befell anything.
func (in *injector) begin(f *Fault) {
	w := in.w
	k, ok := kindNamed(f.Kind)
	if !ok {
		w.violate("plan", "there is no fault %q", f.Kind)
		return
	}
	if in.healed {
		return
	}
	end, fired := k.begin(in, f)
	if !fired {
		return
	}
	w.result.Fired[f.Kind]++
	w.note(noteFault, uint64(f.At), uint64(len(w.result.Fired)))
	w.tracef("FAULT %s node %d peers %v range %d amount %d for %s", f.Kind, f.Node+1, f.Peers, f.Range, f.Amount, f.For)
	if end == nil {
		return
	}
	u := &underway{f, end}
	in.active = append(in.active, u)
	if f.For > 0 {
		w.queue.put(w.now+f.For, func() { in.end(u) })
	}
}

func (in *injector) end(u *underway) {
	i := slices.Index(in.active, u)
	if i < 0 {
		return // the heal has undone it
	}
	in.active = slices.Delete(in.active, i, i+1)
	in.w.tracef("FAULT over: %s node %d", u.fault.Kind, u.fault.Node+1)
	u.end()
}

// heal undoes all that is under way; nothing begins after it.
func (in *injector) heal() {
	in.healed = true
	for len(in.active) > 0 {
		in.end(in.active[0])
	}
	for _, n := range in.w.nodes {
		if n.process == nil {
			n.start()
		} else {
			n.process.crashAt = ""
		}
	}
	in.w.tracef("HEALED")
}

// node is the one that a fault is for; nil if it is for a leader and there is none.
func (in *injector) node(f *Fault) *node {
	if f.Node == Leader {
		return in.w.leader(in.w.ranges[f.Range%len(in.w.ranges)])
	}
	return in.w.nodes[f.Node%len(in.w.nodes)]
}

// restart brings a node back, unless somebody else has, or keeps it down.
func restart(n *node) {
	if n.process != nil && n.process.stopping {
		n.crash(0) // it would end in this instant
	}
	if n.process == nil {
		n.start()
	}
}

func (n *node) pause() { n.pauses++ }

// resume lets the process deal with what has happened meanwhile.
func (n *node) resume() {
	if n.pauses--; n.pauses > 0 {
		return
	}
	frozen := n.frozen
	n.frozen = nil
	for _, f := range frozen {
		f()
	}
}

// others are all endpoints but one, the clients' too.
func (in *injector) others(i int) (out []int) {
	for k := range in.w.nodes {
		if k != i {
			out = append(out, k)
		}
	}
	return out
}
