package allocator_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// world is a cluster in which decisions are carried out, and every law is looked at for each. It has two snapshots that are told
// the same: what they decide must be the same.
type world struct {
	t       *rapid.T
	snap    [2]*allocator.Snapshot
	policy  allocator.Policy
	nodes   map[base.NodeID]allocator.Node
	ranges  map[base.RangeID]allocator.Range
	under   map[base.RangeID]allocator.Decision
	nextID  base.NodeID
	seed    uint64
	removed []base.NodeID
	idle    int // passes after which nothing is left, if none of them has decided anything
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, snap: [2]*allocator.Snapshot{allocator.NewSnapshot(), allocator.NewSnapshot()},
		nodes: map[base.NodeID]allocator.Node{}, ranges: map[base.RangeID]allocator.Range{}, under: map[base.RangeID]allocator.Decision{},
	}
	w.idle = 1
	if rapid.IntRange(0, 2).Draw(t, "much to do") == 0 { // for one pass: each looks at a few ranges, as at a large cluster's
		sorts := rapid.IntRange(1, 8).Draw(t, "sorts")
		w.each(func(s *allocator.Snapshot) { s.Limit(sorts, 50) })
		w.idle = 40 // a range of each list each time
	}
	w.setPolicy()
	for range rapid.IntRange(1, 12).Draw(t, "nodes") {
		w.addNode()
	}
	for i := range rapid.IntRange(1, 30).Draw(t, "ranges") {
		w.addRange(base.RangeID(i + 1))
	}
	return w
}

func (w *world) each(f func(s *allocator.Snapshot)) {
	for _, s := range w.snap {
		f(s)
	}
}

func (w *world) ids() []base.NodeID {
	var ids []base.NodeID
	for id := range w.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (w *world) rangeIDs() []base.RangeID {
	var ids []base.RangeID
	for id := range w.ranges {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (w *world) setPolicy() {
	kinds := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) allocator.Constraint {
		c := allocator.Constraint{
			Kind:     rapid.SampledFrom([]allocator.ConstraintKind{allocator.Required, allocator.Forbidden, allocator.Preferred}).Draw(t, "kind"),
			Replicas: rapid.IntRange(0, 2).Draw(t, "of"),
		}
		if rapid.Bool().Draw(t, "attribute") {
			c.Value = "ssd"
		} else {
			c.Key, c.Value = "zone", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone")
		}
		return c
	}), 0, 2)
	w.policy = allocator.Policy{
		Default: allocator.Placement{Replicas: rapid.SampledFrom([]int{1, 2, 3, 3, 3, 4, 5}).Draw(w.t, "factor")},
		Keyspaces: map[base.KeyspaceID]allocator.Placement{
			100: {Replicas: 3, Constraints: kinds.Draw(w.t, "constraints")},
			101: {Replicas: 3, AtLeast: 1, Leaders: kinds.Draw(w.t, "leaders")},
		},
		MovesPerNode: rapid.IntRange(1, 4).Draw(w.t, "per node"),
		Moves:        rapid.IntRange(1, 20).Draw(w.t, "moves"),
		FailedShare:  rapid.SampledFrom([]float64{0, 1, 0.5}).Draw(w.t, "share"),
	}
	for k, p := range w.policy.Keyspaces {
		p.Replicas = max(p.Replicas, 2) // constraints are about two at most
		w.policy.Keyspaces[k] = p
	}
	w.each(func(s *allocator.Snapshot) { s.SetPolicy(w.policy) })
	w.policy = w.snap[0].Policy()
}

// changePolicy waits for what is under way: that was allowed by the old one.
func (w *world) changePolicy() {
	for _, id := range w.underIDs() {
		w.finish(id, true)
	}
	w.setPolicy()
}

func (w *world) placement(ks base.KeyspaceID) allocator.Placement {
	if p, ok := w.policy.Keyspaces[ks]; ok {
		return p
	}
	return w.policy.Default
}

func (w *world) setNode(n allocator.Node) {
	w.nodes[n.ID] = n
	w.each(func(s *allocator.Snapshot) { s.SetNode(n) })
}

func (w *world) addNode() {
	w.nextID++
	n := allocator.Node{ID: w.nextID, State: allocator.Active, Weight: rapid.SampledFrom([]float64{0, 1, 2}).Draw(w.t, "weight"),
		LeadWeight: rapid.SampledFrom([]float64{0, 1, 2}).Draw(w.t, "lead weight")}
	if rapid.IntRange(0, 5).Draw(w.t, "placed") > 0 {
		n.Locality = []allocator.Tier{{Key: "zone", Value: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(w.t, "zone")}}
		if rapid.Bool().Draw(w.t, "rack") {
			n.Locality = append(n.Locality, allocator.Tier{Key: "rack", Value: rapid.SampledFrom([]string{"1", "2"}).Draw(w.t, "rack")})
		}
	}
	if rapid.Bool().Draw(w.t, "ssd") {
		n.Attributes = []string{"ssd"}
	}
	w.setNode(n)
}

func (w *world) changeNode() {
	n := w.nodes[rapid.SampledFrom(w.ids()).Draw(w.t, "node")]
	n.State = rapid.SampledFrom([]allocator.NodeState{
		allocator.Active, allocator.Active, allocator.Active, allocator.Suspect, allocator.Failed, allocator.Leaving, allocator.Left, allocator.Joining,
	}).Draw(w.t, "state")
	n.Suspected, n.Slow, n.SlowFor, n.Strained = 0, "", 0, ""
	if n.State == allocator.Suspect {
		n.Suspected = time.Duration(rapid.IntRange(1, 400).Draw(w.t, "for")) * time.Second
	}
	n.Cordoned = rapid.IntRange(0, 4).Draw(w.t, "cordoned") == 0
	n.Draining = rapid.IntRange(0, 4).Draw(w.t, "draining") == 0
	if rapid.IntRange(0, 6).Draw(w.t, "slow") == 0 {
		n.Slow, n.SlowFor = "its disk is", time.Duration(rapid.IntRange(0, 20).Draw(w.t, "for"))*time.Minute
	}
	if rapid.IntRange(0, 6).Draw(w.t, "strained") == 0 {
		n.Strained = "writes take long"
	}
	n.DiskBytes, n.DiskUsed = 0, 0
	if rapid.IntRange(0, 4).Draw(w.t, "disk") == 0 {
		n.DiskBytes, n.DiskUsed = 1000, int64(rapid.IntRange(0, 1000).Draw(w.t, "used"))
	}
	w.setNode(n)
}

func (w *world) removeNode() {
	id := rapid.SampledFrom(w.ids()).Draw(w.t, "node")
	if len(w.nodes) > 1 {
		delete(w.nodes, id)
		w.removed = append(w.removed, id)
		w.each(func(s *allocator.Snapshot) { s.RemoveNode(id) })
	}
}

func (w *world) put(r allocator.Range) {
	w.ranges[r.ID] = r
	w.each(func(s *allocator.Snapshot) { s.Put(r) })
}

func (w *world) addRange(id base.RangeID) {
	t := w.t
	r := allocator.Range{
		ID: id, Generation: 1, Keyspace: rapid.SampledFrom([]base.KeyspaceID{1, 3, 4, 100, 100, 101, 102}).Draw(t, "keyspace"),
		Bytes: int64(rapid.IntRange(0, 100).Draw(t, "bytes")), Load: float64(rapid.IntRange(0, 50).Draw(t, "load")),
	}
	perm := rapid.Permutation(w.ids()).Draw(t, "on")
	for i, n := range perm[:min(len(perm), rapid.IntRange(1, 5).Draw(t, "voters"))] {
		role := allocator.Voter
		if i > 1 {
			role = rapid.SampledFrom([]allocator.Role{allocator.Voter, allocator.Voter, allocator.Voter, allocator.Learner, allocator.Incoming, allocator.Outgoing}).Draw(t, "role")
		}
		r.Replicas = append(r.Replicas, allocator.Replica{Node: n, Role: role})
	}
	r.Leader = perm[0]
	w.put(r)
}

func (w *world) changeRange() {
	r := w.ranges[rapid.SampledFrom(w.rangeIDs()).Draw(w.t, "range")]
	r.Bytes, r.Load = int64(rapid.IntRange(0, 100).Draw(w.t, "bytes")), float64(rapid.IntRange(0, 50).Draw(w.t, "load"))
	r.Busy, r.Wanted, r.WantedLeader, r.Behind = "", nil, 0, nil
	ids := w.ids()
	switch rapid.IntRange(0, 6).Draw(w.t, "what") {
	case 0:
		r.Busy = "a merge"
	case 1:
		r.Wanted = rapid.Permutation(ids).Draw(w.t, "wanted")[:min(len(ids), rapid.IntRange(1, 5).Draw(w.t, "n"))]
	case 2:
		r.WantedLeader = rapid.SampledFrom(ids).Draw(w.t, "leader")
	case 3:
		r.Behind = append(r.Behind, rapid.SampledFrom(r.Replicas).Draw(w.t, "behind").Node)
	}
	w.put(r)
}

// decide asks both, and looks at every law.
func (w *world) decide() []allocator.Decision {
	w.seed++
	limit := rapid.SampledFrom([]int{1, 3, 100}).Draw(w.t, "limit")
	got, held := allocator.Decide(w.snap[0], w.seed, limit)
	other, otherHeld := allocator.Decide(w.snap[1], w.seed, limit)
	if fmt.Sprint(got, held) != fmt.Sprint(other, otherHeld) {
		w.t.Fatalf("the same history and seed, and two decisions:\n%v %v\n%v %v", got, held, other, otherHeld)
	}
	if len(got) > limit {
		w.t.Fatalf("%d decisions, and %d were allowed", len(got), limit)
	}
	last := allocator.GoalNone
	seen := map[base.RangeID]bool{}
	for _, d := range got {
		if d.Goal < last || seen[d.Range] {
			w.t.Fatalf("out of order, or twice: %+v", got)
		}
		last, seen[d.Range] = d.Goal, true
		w.check(d)
	}
	for _, h := range held {
		if h.Reason == "" || h.Goal == allocator.GoalNone {
			w.t.Fatalf("withheld for no reason: %+v", h)
		}
	}
	for _, d := range got {
		w.under[d.Range] = d
		w.each(func(s *allocator.Snapshot) { s.Begin(d) })
	}
	w.checkLimits(got)
	return got
}

func (w *world) check(d allocator.Decision) {
	r, ok := w.ranges[d.Range]
	_, under := w.under[d.Range]
	switch {
	case !ok || under || r.Busy != "":
		w.t.Fatalf("decided for a range that is gone, busy or under way: %+v", d)
	case d.Generation != r.Generation:
		w.t.Fatalf("generation %d, and the range has %d: %+v", d.Generation, r.Generation, d)
	case d.Reason == "":
		w.t.Fatalf("no reason: %+v", d)
	case d.Voters == nil && d.Leader == 0:
		w.t.Fatalf("nothing is to be done: %+v", d)
	case !slices.IsSorted(d.Voters) || len(slices.Compact(slices.Clone(d.Voters))) != len(d.Voters):
		w.t.Fatalf("voters twice on a node, or not in order: %+v", d)
	}
	w.checkGuard(d)
	for _, id := range d.Adds {
		n := w.nodes[id]
		i := slices.IndexFunc(r.Replicas, func(x allocator.Replica) bool { return x.Node == id })
		learner := i >= 0 && r.Replicas[i].Role == allocator.Learner && d.Goal == allocator.GoalJoint
		full := n.DiskBytes > 0 && float64(n.DiskUsed+r.Bytes) > 0.95*float64(n.DiskBytes)
		strained := n.Strained != "" && (d.Goal == allocator.GoalDrain || d.Goal > allocator.GoalFactor)
		if n.State != allocator.Active || n.Cordoned || n.Draining || !learner && (full || strained) || i >= 0 && !learner {
			w.t.Fatalf("%+v: adds on %+v", d, n)
		}
	}
	if d.Voters != nil {
		w.checkWay(r, d)
	}
	voters := d.Voters
	if voters == nil {
		voters = votersOf(r)
	}
	if n := w.nodes[d.Leader]; d.Leader != 0 && (!slices.Contains(voters, d.Leader) || n.State != allocator.Active || n.Draining || n.Cordoned) {
		w.t.Fatalf("%+v: may not lead: %+v", d, n)
	}
}

// checkGuard: while more nodes fail together than the policy's share, nothing on them is replaced.
func (w *world) checkGuard(d allocator.Decision) {
	if d.Goal != allocator.GoalReplace && d.Goal != allocator.GoalQuorum {
		return
	}
	failing, in := 0, 0
	for _, n := range w.nodes {
		if n.State != allocator.Left {
			in++
		}
		if n.State == allocator.Suspect || n.State == allocator.Failed {
			failing++
		}
	}
	for _, id := range d.Removes {
		n, known := w.nodes[id]
		if !known || n.State == allocator.Left || failing < 2 {
			continue // a node that nobody knows counts as failing too, which this does not: so the law is the weaker one
		}
		if unknown := len(w.removed); float64(failing)/float64(in+unknown) > w.policy.FailedShare {
			w.t.Fatalf("%+v: %d of %d nodes fail together", d, failing, in)
		}
	}
}

// checkWay carries the decision out in thought, swapping one replica at a time in an order that is drawn, and looks at the quorum of
// each configuration and at the constraints in the end.
func (w *world) checkWay(r allocator.Range, d allocator.Decision) {
	if slices.ContainsFunc(r.Replicas, func(x allocator.Replica) bool { return x.Role == allocator.Incoming || x.Role == allocator.Outgoing }) {
		if d.Goal != allocator.GoalJoint {
			w.t.Fatalf("%+v: the range is in a joint configuration", d)
		}
		return
	}
	now := votersOf(r)
	if d.Goal != allocator.GoalJoint || len(d.Adds) > 0 {
		if before, after := w.missed(r.Keyspace, now), w.missed(r.Keyspace, d.Voters); after > before {
			w.t.Fatalf("%+v: constraints were missed by %d, and then by %d", d, before, after)
		}
	}
	fresh := map[base.NodeID]bool{}
	var adds, removes []base.NodeID
	for _, n := range d.Voters {
		if !slices.Contains(now, n) {
			adds = append(adds, n)
		}
	}
	for _, n := range now {
		if !slices.Contains(d.Voters, n) {
			removes = append(removes, n)
		}
	}
	if len(adds)+len(removes) == 0 {
		return
	}
	if len(removes) > 1 {
		removes = rapid.Permutation(removes).Draw(w.t, "order")
	}
	for {
		well := 0
		for _, n := range now {
			x, known := w.nodes[n]
			alive := known && (x.State == allocator.Active || x.State == allocator.Leaving || x.State == allocator.Joining)
			if fresh[n] || alive && !slices.Contains(r.Behind, n) {
				well++
			}
		}
		if well < len(now)/2+1 {
			w.t.Fatalf("%+v of %+v: %d of %v would be caught up", d, r, well, now)
		}
		if len(adds)+len(removes) == 0 {
			return
		}
		if len(adds) > 0 {
			now, fresh[adds[0]], adds = append(now, adds[0]), true, adds[1:]
		}
		if len(removes) > len(adds) || len(removes) > 0 && len(adds) == 0 {
			i := slices.Index(now, removes[0])
			now, removes = slices.Delete(slices.Clone(now), i, i+1), removes[1:]
		}
	}
}

func (w *world) missed(ks base.KeyspaceID, voters []base.NodeID) (n int) {
	for _, c := range w.placement(ks).Constraints {
		matching := 0
		for _, id := range voters {
			if w.matches(id, c) {
				matching++
			}
		}
		switch {
		case c.Kind == allocator.Preferred:
		case c.Kind == allocator.Required && c.Replicas == 0:
			n += len(voters) - matching
		case c.Kind == allocator.Required:
			n += max(0, c.Replicas-matching)
		case c.Replicas == 0:
			n += matching
		default:
			n += max(0, c.Replicas-(len(voters)-matching))
		}
	}
	return n
}

func votersOf(r allocator.Range) (v []base.NodeID) {
	for _, x := range r.Replicas {
		if x.Role == allocator.Voter || x.Role == allocator.Incoming {
			v = append(v, x.Node)
		}
	}
	return v
}

// checkLimits counts what is under way with what was decided now. One decision alone may be of more replicas than are allowed.
func (w *world) checkLimits(got []allocator.Decision) {
	total, moving, per := 0, 0, map[base.NodeID]int{}
	for _, d := range w.under {
		if len(d.Adds) == 0 && (len(d.Removes) == 0 || d.Goal == allocator.GoalJoint) {
			continue
		}
		moving++
		total += max(len(d.Adds), len(d.Removes))
		for _, n := range append(slices.Clone(d.Adds), d.Removes...) {
			per[n]++
		}
	}
	for _, d := range got {
		if len(d.Adds) == 0 && (len(d.Removes) == 0 || d.Goal == allocator.GoalJoint) {
			continue
		}
		if total > w.policy.Moves && moving > 1 {
			w.t.Fatalf("%d moves under way, and %d allowed: %+v", total, w.policy.Moves, w.under)
		}
		for _, n := range append(slices.Clone(d.Adds), d.Removes...) {
			x, known := w.nodes[n]
			alive := known && (x.State == allocator.Active || x.State == allocator.Leaving || x.State == allocator.Joining)
			if alive && per[n] > w.policy.MovesPerNode {
				w.t.Fatalf("%d moves of %s under way, and %d allowed: %+v", per[n], n, w.policy.MovesPerNode, w.under)
			}
		}
	}
}

// finish ends what is under way for the range: done, or given up.
func (w *world) finish(id base.RangeID, done bool) {
	d := w.under[id]
	delete(w.under, id)
	if r, ok := w.ranges[id]; ok && done {
		if d.Voters != nil {
			r.Replicas = nil
			for _, n := range d.Voters {
				r.Replicas = append(r.Replicas, allocator.Replica{Node: n})
			}
			if !slices.Contains(d.Voters, r.Leader) {
				r.Leader = d.Voters[0]
			}
			r.Generation++
		}
		if d.Leader != 0 {
			r.Leader = d.Leader
		}
		w.put(r)
	}
	w.each(func(s *allocator.Snapshot) { s.End(id) })
}

func (w *world) underIDs() []base.RangeID {
	var ids []base.RangeID
	for id := range w.under {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// rest carries out all that is decided until nothing is.
func (w *world) rest() {
	for round, idle := 0, 0; idle < w.idle; round++ {
		for _, id := range w.underIDs() {
			w.finish(id, true)
		}
		unseen := w.snap[0].Unseen()
		got := w.decide()
		if idle++; len(got) > 0 || unseen > 0 {
			idle = 0
		}
		if round > w.idle*(100+60*len(w.ranges)) {
			w.t.Fatalf("no rest: still %+v", got)
		}
	}
	for i := range w.snap {
		if again, _ := allocator.Decide(w.snap[i], 99, 100); len(again) > 0 {
			w.t.Fatalf("at rest, and with another seed it is not: %+v", again)
		}
	}
	w.checkSums()
	for _, id := range w.rangeIDs() {
		x := allocator.Explain(w.snap[0], id)
		if x.Decision.Goal != allocator.GoalNone || x.Why == "" {
			w.t.Fatalf("at rest, and explained as if not: %+v", x)
		}
		if len(x.Withheld) == 0 && x.Range.Busy == "" && x.Range.Wanted == nil {
			w.checkBest(x.Range)
		}
	}
}

// checkBest: of a range of which nothing is withheld, every voter is on a node that is well, there are as many as there can be, and no
// exchange of one would miss fewer constraints, or bring them further apart.
func (w *world) checkBest(r allocator.Range) {
	voters := votersOf(r)
	p := w.placement(r.Keyspace)
	if len(voters) > p.Replicas {
		w.t.Fatalf("at rest: %d voters of %d: %+v", len(voters), p.Replicas, r)
	}
	now := w.worth(r.Keyspace, voters)
	for i, v := range voters {
		if s := w.nodes[v].State; s != allocator.Active && s != allocator.Joining {
			w.t.Fatalf("at rest: a voter on %+v: %+v", w.nodes[v], r)
		}
		for _, id := range w.ids() {
			n := w.nodes[id]
			if n.State != allocator.Active || n.Cordoned || n.Draining || n.Slow != "" || n.Strained != "" || slices.Contains(voters, id) ||
				n.DiskBytes > 0 { // how full it is depends on what came since
				continue
			}
			other := slices.Clone(voters)
			other[i] = id
			if after := w.worth(r.Keyspace, other); slices.Compare(after[:], now[:]) < 0 {
				w.t.Fatalf("at rest: with %s for %s it would be better: %v, and is %v: %+v", id, v, after, now, r)
			}
		}
	}
}

// worth is by how many replicas constraints and preferences are missed, and how many pairs share a zone, and a rack of it.
func (w *world) worth(ks base.KeyspaceID, voters []base.NodeID) (x [4]int) {
	x[0] = w.missed(ks, voters)
	for _, c := range w.placement(ks).Constraints {
		if c.Kind == allocator.Preferred {
			matching := 0
			for _, id := range voters {
				if w.matches(id, c) {
					matching++
				}
			}
			need := c.Replicas
			if need == 0 {
				need = len(voters)
			}
			x[1] += max(0, need-matching)
		}
	}
	for i, a := range voters {
		for _, b := range voters[:i] {
			for t, l := 0, w.nodes[a].Locality; t < min(len(l), len(w.nodes[b].Locality)); t++ {
				if l[t] != w.nodes[b].Locality[t] {
					break
				}
				x[2+t]++
			}
		}
	}
	return x
}

func (w *world) matches(id base.NodeID, c allocator.Constraint) bool {
	x := w.nodes[id]
	if c.Key == "" {
		return slices.Contains(x.Attributes, c.Value)
	}
	return slices.Contains(x.Locality, allocator.Tier{Key: c.Key, Value: c.Value})
}

// checkSums: what nodes are said to hold is what the ranges say.
func (w *world) checkSums() {
	want := map[base.NodeID]allocator.Holding{}
	for _, r := range w.ranges {
		for _, x := range r.Replicas {
			h := want[x.Node]
			h.Replicas++
			h.Bytes += r.Bytes
			if x.Node == r.Leader {
				h.Leaders++
				h.Load += r.Load
			}
			want[x.Node] = h
		}
	}
	for id := range w.nodes {
		if got := w.snap[0].Holding(id); got != want[id] {
			w.t.Fatalf("%s holds %+v, and is said to hold %+v", id, want[id], got)
		}
	}
}

// TestLaws: whatever happens to nodes, ranges and policies, in whatever order, no decision breaks a law, and once nothing happens
// any more the decisions come to an end.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		steps := map[string]func(){
			"add node":    w.addNode,
			"node":        w.changeNode,
			"remove node": w.removeNode,
			"range":       w.changeRange,
			"policy":      w.changePolicy,
			"decide":      func() { w.decide() },
			"done":        func() { w.finishOne(true) },
			"given up":    func() { w.finishOne(false) },
			"rest":        w.rest,
		}
		names := []string{"add node", "node", "node", "node", "node", "remove node", "range", "range", "policy", "decide", "decide", "decide", "done", "done", "given up", "rest"}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			steps[rapid.SampledFrom(names).Draw(t, "step")]()
		}
		w.rest()
	})
}

func (w *world) finishOne(done bool) {
	if ids := w.underIDs(); len(ids) > 0 {
		w.finish(rapid.SampledFrom(ids).Draw(w.t, "range"), done)
	}
}
