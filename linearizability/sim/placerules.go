package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/meta/placement"
)

// I7: nobody who decides where replicas are ever leaves a range without a quorum of voters that have caught up; once all is well the
// replicas are as many as the policy wants and where they may be, and nothing moves any more; and none comes back to a node that it
// left a moment ago without a reason.

// seats is what is known of where replicas have been.
type seats struct {
	promised map[rangeNode]time.Duration // when a node last said that it takes a replica
	decided  map[decisionOf]cause
	steps    map[string]cause        // that of the change to a descriptor, as it is printed
	left     map[rangeNode]departure // voters that went from a node
	back     map[base.RangeID]int    // how often one came back that another decider had moved, since moved
	moved    time.Duration           // facts, when back began
	pressing time.Duration           // when something that goes before evening out was decided last
}

type rangeNode struct {
	id   base.RangeID
	node base.NodeID
}

type decisionOf struct{ decider, seq uint64 }

// cause is who decided on a change (nil: nobody is known to have), and what was so then.
type cause struct {
	by       *placement.Decider
	at       time.Duration
	moved    time.Duration // facts
	evens    bool          // it evens out
	pressing time.Duration // seats.pressing
	lost     []base.NodeID // whose replicas were not there
}

// causeOf is the cause of what follows from a decision that is made now.
func (w *world) causeOf(by *placement.Decider, id base.RangeID, goal allocator.Goal) cause {
	c := cause{by: by, at: w.now, moved: w.facts(), evens: goal >= allocator.GoalBalance, pressing: w.seats.pressing}
	if !c.evens {
		w.seats.pressing = w.now
	}
	for _, r := range w.rules.tiling.committed[id].GetReplicas() {
		if n := base.NodeID(r.NodeId); !w.caughtUp(w.rules.tiling.committed[id], n) {
			c.lost = append(c.lost, n)
		}
	}
	return c
}

// changed says whether a node's voter may come back for what has changed since the decision that took it away.
func (c *cause) changed(back *cause, n base.NodeID) bool {
	return c.moved != back.moved || // a node, an operation, what ranges there are
		c.moved == c.at || // the same, in the moment of that decision: which was first is not said
		slices.Contains(c.lost, n) || // it was away then
		back.evens && back.pressing > c.at // what others hold: what presses moves it
}

type departure struct {
	at time.Duration
	cause
}

func newSeats() seats {
	return seats{
		promised: make(map[rangeNode]time.Duration), decided: make(map[decisionOf]cause), steps: make(map[string]cause),
		left: make(map[rangeNode]departure), back: make(map[base.RangeID]int),
	}
}

// away is how long a node must have been gone, or cut off, before a change that counts on it is a mistake: whoever makes it knows
// what was so some moments ago.
const away = 2*beatLost + moveInterval

// pingPong is within what time a voter may not come back to a node that it left, where nothing has changed (facts) between the decision
// that took it away and the one that brings it back: a move that is under way when a node fails, leaves or is back goes on, and what is
// decided then may well be the opposite. Who decides anew knows of nothing that another has moved, so that he may bring back one; a
// second is to and fro.
const pingPong = 30 * time.Second

// facts is when what is decided on was changed last, by others than deciders: a node, an operation, a merge or a replica that was moved
// for one, what ranges there are.
func (w *world) facts() time.Duration {
	at := w.sys.moved
	for _, b := range w.beside {
		if b.until <= w.now { // the range may be moved again
			at = max(at, b.until)
		}
	}
	return at
}

// seated holds a change of a range's replicas that was committed against what was.
func (r *rules) seated(old, now *metapb.RangeDescriptor) {
	w := r.w
	if desc.SameNodes(old, now) && !desc.Joint(old) && !desc.Joint(now) {
		return
	}
	w.count("changes of replicas held against I7")
	if w.deciding(old) && !w.deciding(now) {
		w.violate("a quorum stays", "%s had a quorum of voters that had caught up, and %s has none", desc.Format(old), desc.Format(now))
	}
	if w.sys == nil { // nobody decides
		return
	}
	r.promised(old, now)
	if id := base.RangeID(now.RangeId); w.aligned(id) { // where a merge wants it is nobody's decision, and changes what nodes hold
		w.sys.moved = w.now
	} else {
		w.returned(id, old, now)
	}
}

// returned holds a change of voters to what went before it.
func (w *world) returned(id base.RangeID, old, now *metapb.RangeDescriptor) {
	s := &w.seats
	if now := w.facts(); s.moved != now {
		s.moved, s.back = now, make(map[base.RangeID]int)
	}
	why, known := s.steps[desc.Format(now)]
	if !known {
		why.moved = w.facts()
	}
	before, after := change.Voters(old), change.Voters(now)
	for _, n := range before {
		if !slices.Contains(after, n) {
			s.left[rangeNode{id, n}] = departure{w.now, why}
		}
	}
	for _, n := range after {
		if slices.Contains(before, n) {
			continue
		}
		d, ok := s.left[rangeNode{id, n}]
		if !ok || w.now-d.at >= pingPong {
			continue
		}
		if w.count("voters that came back"); d.changed(&why, n) {
			w.count("voters that came back for a reason")
			continue
		}
		if s.back[id]++; s.back[id] > 1 || d.by == why.by {
			w.violate("no ping-pong", "%s: a voter came back to %s, which it left %s ago, and nothing had changed between the two decisions", desc.Format(now), n, w.now-d.at)
		}
	}
}

// followed is a directive that a leader follows, as it is seen from outside.
type followed struct {
	decider, seq uint64
	on           uint64          // the generation that was decided on
	ends         base.Instant    // by the leader's clock, if it is not heard again
	gens         map[uint64]bool // that, and those that steps taken for it may have led to
}

// heard takes note of a directive that a leader follows.
func (g *governor) heard(id base.RangeID, m *rangepb.Directive) {
	f := g.seen[id]
	if m.Withdraw {
		if f != nil && f.decider == m.Decider && f.seq <= m.Seq {
			f.ends = 0
		}
		return
	}
	if f == nil || f.decider != m.Decider || f.seq != m.Seq || f.on != m.ExpectedGeneration {
		f = &followed{decider: m.Decider, seq: m.Seq, on: m.ExpectedGeneration, gens: map[uint64]bool{m.ExpectedGeneration: true}}
		g.seen[id] = f
	}
	f.ends = g.p.store.Now().Add(time.Duration(m.TimeoutMicros) * time.Microsecond)
}

// steps: a leader takes a step for a directive only where that was decided on, or where its own steps have led, and in its time.
func (g *governor) steps(d *metapb.RangeDescriptor, step change.Step) {
	id := base.RangeID(d.RangeId)
	w, f := g.p.n.w, g.seen[id]
	if step.Propose == nil {
		return
	}
	if desc.Joint(d) { // is left without being told; if somebody has told, it is a step on his way
		if f != nil && f.gens[d.Generation] {
			f.gens[step.Propose.Generation] = true
		}
		return
	}
	w.count("steps held against directives")
	if now := g.p.store.Now(); f == nil || now >= f.ends || !f.gens[d.Generation] {
		w.violate("directives end", "%s: %s, at %d, is for a directive that is over: %+v", g.p.n.id, step.Reason, now, f)
		return
	}
	f.gens[step.Propose.Generation] = true
	if why, ok := w.seats.decided[decisionOf{f.decider, f.seq}]; ok {
		w.seats.steps[desc.Format(step.Propose)] = why
	}
}

// promise is how long after a node has said that it takes a replica one may come: the reservation may have ended while the directive
// holds, and the step that serves it may take its time to be committed.
const promise = base.ReserveTimeout + base.DirectTimeout + base.RequestTimeout

// promised: no replica comes to a node that has not said that it takes it, unless ranges are brought together to be merged.
func (r *rules) promised(old, now *metapb.RangeDescriptor) {
	w := r.w
	id := base.RangeID(now.RangeId)
	if w.aligned(id) || now.Generation != old.Generation+1 {
		return
	}
	for _, rep := range now.Replicas {
		n := base.NodeID(rep.NodeId)
		if desc.ReplicaOn(old, n) != nil {
			continue
		}
		w.count("replicas held against promises")
		if at, ok := w.seats.promised[rangeNode{id, n}]; !ok || w.now-at > promise {
			w.violate("replicas are promised", "%s: a replica came to %s, which has not said that it takes it", desc.Format(now), n)
		}
	}
}

// aligned says whether a merge wants a range's replicas somewhere, or did a moment ago.
func (w *world) aligned(id base.RangeID) bool {
	a, ok := w.beside[id]
	return ok && w.now < a.until+promise
}

// deciding says whether the voters that are there, and have most of the log, are a quorum in each half of a configuration.
func (w *world) deciding(d *metapb.RangeDescriptor) bool {
	var all, up [2]int
	for _, rep := range d.Replicas {
		inNew, inOld := desc.Votes(rep.Role)
		for half, in := range []bool{inNew, inOld} {
			if in {
				all[half]++
				if w.caughtUp(d, base.NodeID(rep.NodeId)) {
					up[half]++
				}
			}
		}
	}
	return 2*up[0] > all[0] && 2*up[1] > all[1]
}

// caughtUp says whether a node is there, or was a moment ago, and its replica has a state.
func (w *world) caughtUp(d *metapb.RangeDescriptor, id base.NodeID) bool {
	n := w.node(id)
	if n == nil {
		return false
	}
	if n.process == nil {
		return n.died > 0 && w.now-n.died < away
	}
	return n.process.store.View(base.RangeID(d.RangeId)) != nil
}

// limit is how long it may take until all is whole: with deciders, a move at a time on each node, and what was given up is left alone
// for a while.
func (w *world) limit() time.Duration {
	if w.sys != nil {
		return recoverLimit + 3*base.DecidePatience
	}
	return recoverLimit
}

// misplaced says what of a range is not as the policy wants it; nothing if all is.
func (w *world) misplaced(r *rangeInfo, d *metapb.RangeDescriptor) string {
	policy := placement.Policies(w.sys.policy)
	able, apart := 0, 0 // nodes that may hold a replica, and those of them where a constraint wants none
	for _, rec := range w.sys.records {
		if rec.State == metapb.NodeState_NODE_STATE_ACTIVE {
			able++
			if forbidden(&policy, r.ks, rec) {
				apart++
			}
		}
	}
	want := policy.Default.Replicas
	if own, ok := policy.Keyspaces[r.ks]; ok {
		if want = own.Replicas; able < want {
			want = min(able, max(own.AtLeast, able-1+able%2))
		}
	}
	voters := change.Voters(d)
	if want = min(want, able); len(voters) < want || len(voters) != len(d.Replicas) {
		return fmt.Sprintf("%d voters are wanted, and there are %s", want, desc.Format(d))
	}
	for _, n := range voters {
		if rec := w.sys.own(n); rec == nil || liveness.Gone(rec.State) || rec.State == metapb.NodeState_NODE_STATE_FAILED || rec.State == metapb.NodeState_NODE_STATE_LEAVING {
			return fmt.Sprintf("%s is no place for a replica: %s", n, desc.Format(d))
		}
		if able-apart >= want && forbidden(&policy, r.ks, w.sys.own(n)) {
			return fmt.Sprintf("a constraint wants no replica on %s: %s", n, desc.Format(d))
		}
	}
	return ""
}

// forbidden says whether a keyspace is to have no replica on a node.
func forbidden(p *allocator.Policy, ks base.KeyspaceID, rec *metapb.NodeRecord) bool {
	for _, c := range p.Keyspaces[ks].Constraints {
		for _, t := range rec.Locality {
			if c.Kind == allocator.Forbidden && c.Key == t.Key && c.Value == t.Value {
				return true
			}
		}
	}
	return false
}

// lacking says what of the members is not at rest; nothing if all is.
func (s *sys) lacking() string {
	w := s.w
	for _, rec := range s.records {
		n := w.node(base.NodeID(rec.NodeId))
		switch {
		case rec.State == metapb.NodeState_NODE_STATE_SUSPECT || rec.State == metapb.NodeState_NODE_STATE_FAILED || rec.State == metapb.NodeState_NODE_STATE_LEAVING:
			return fmt.Sprintf("%s is %s: %s", n.id, liveness.StateName(rec.State), rec.Reason)
		case n.process == nil:
			return fmt.Sprintf("%s is down", n.id)
		case !liveness.Gone(rec.State) && !n.process.member.serves():
			return fmt.Sprintf("%s is fenced", n.id)
		}
	}
	if ops := s.running(); len(ops) > 0 {
		return fmt.Sprintf("an operation is not ended: %v", ops[0])
	}
	l := w.leader(w.meta)
	if l == nil || l.process.governor.decider == nil {
		return "nobody decides"
	}
	d := l.process.governor.decider
	if under := d.UnderWay(); len(under) > 0 {
		return fmt.Sprintf("%s is under way: %v %s", under[0].Range, under[0].Decision, under[0].Waiting)
	}
	if at := d.Rests(); at == 0 || l.process.store.Now().Sub(at) < 3*base.DecideInterval {
		return "the decider does not rest yet"
	}
	return ""
}

// leave has nodes that are to leave, and hold nothing any more, be gone: once what was decided before they were marked has ended, as
// meta/operation has it.
func (s *sys) leave() {
	for _, rec := range s.records {
		id, since := base.NodeID(rec.NodeId), time.Duration(rec.SinceUnixMicros)*time.Microsecond
		if rec.State == metapb.NodeState_NODE_STATE_LEAVING && s.w.now >= since+base.OperationSettle && s.holding(id) == 0 {
			if err := s.change(id, liveness.Left, "it holds nothing"); err != nil {
				s.w.violate("members", "%s: %v", id, err)
			}
		}
	}
}
