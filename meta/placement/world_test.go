package placement_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/placement"
	"github.com/cairndb/cairn/raftgroup"
)

// world is a cluster as deciders meet it: nodes that grant reservations, range leaders that follow directives and carry out steps
// (the product's own rules, meta/change and Reservations, over enough of Raft), and messages that are lost, doubled and late.
type world struct {
	now      base.Instant
	rand     *base.Rand
	nodes    map[base.NodeID]*host
	ranges   map[base.RangeID]*ranged
	deciders []*placement.Decider // by place; nil: dead
	policy   []*metapb.PolicyRecord
	ops      []*metapb.Operation
	life     uint64
	queue    []letter
	loss     int64 // percent of messages that are lost, and as many that are doubled
	log      strings.Builder
	watch    watch
	deaf     bool // what is sent to the leaders of ranges is lost
	old      bool // the leaders of ranges know of no withdrawals
	stale    int  // by how many half seconds the second decider knows of everything later
	past     []map[base.RangeID]*metapb.RangeDescriptor
	catchUp  time.Duration // from a learner's coming to its having caught up
}

// watch sees what is sent, and what becomes of it.
type watch struct {
	action func(by int, a placement.Action)
	event  func(by int, e placement.Event)
	answer func(by int, a placement.Action, m *rangepb.Reservation)
	step   func(r *ranged, before *metapb.RangeDescriptor)
}

type host struct {
	record    *metapb.NodeRecord
	health    *metapb.NodeHealth
	down      bool
	suspected base.Instant // 0: it is not
	promises  *placement.Reservations
	against   string
}

type ranged struct {
	desc   *metapb.RangeDescriptor
	leader base.NodeID // 0: there is none
	orphan base.Instant
	follow *change.Follower
	joined map[uint64]base.Instant // when a replica came
	bytes  uint64
	load   float64      // requests per second
	by     base.NodeID  // who led it at the last report
	since  base.Instant // since when
}

type letter struct {
	at base.Instant
	f  func()
}

const tick = 100 * time.Millisecond

func newWorld(seed uint64, nodes int) *world {
	w := &world{now: base.Instant(time.Hour), rand: base.NewRand(seed), nodes: make(map[base.NodeID]*host), ranges: make(map[base.RangeID]*ranged), catchUp: 2 * time.Second}
	for i := range nodes {
		w.addNode(base.NodeID(i + 1))
	}
	w.policy = []*metapb.PolicyRecord{{Cluster: &metapb.ClusterPolicy{FailedAfterMillis: 10_000, FailedAfterOwnMillis: 10_000, FailedSharePermille: 500}}}
	return w
}

func (w *world) addNode(id base.NodeID) {
	w.nodes[id] = &host{record: &metapb.NodeRecord{NodeId: uint64(id), State: metapb.NodeState_NODE_STATE_ACTIVE}, health: &metapb.NodeHealth{NodeId: uint64(id)},
		promises: placement.NewReservations()}
}

func (w *world) addRange(d *metapb.RangeDescriptor) {
	r := &ranged{desc: d, follow: &change.Follower{}, joined: make(map[uint64]base.Instant), bytes: 64 << 20, load: 10, leader: change.Voters(d)[0]}
	r.by = r.leader
	w.ranges[base.RangeID(d.RangeId)] = r
}

// decider has one begin at a place.
func (w *world) decider(at int) {
	for len(w.deciders) <= at {
		w.deciders = append(w.deciders, nil)
	}
	w.life++
	w.deciders[at] = placement.New(placement.Config{Node: base.NodeID(100 + at), Life: w.life, Seed: w.rand.Uint64(), Index: base.KeyspaceMeta})
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); w.now < end; w.now = w.now.Add(tick) {
		for len(w.queue) > 0 && w.queue[0].at <= w.now {
			f := w.queue[0].f
			w.queue = w.queue[1:]
			f()
		}
		w.judge()
		for _, id := range slices.Sorted(maps.Keys(w.ranges)) {
			w.lead(w.ranges[id])
		}
		if w.now%base.Instant(500*time.Millisecond) == 0 {
			w.inform()
		}
		for i, d := range w.deciders {
			if d != nil && w.now >= d.Wake() {
				w.step(i, d)
			}
		}
	}
}

// judge is what meta/liveness would do: who is down for a while is suspect, then failed; who is back is well.
func (w *world) judge() {
	for _, h := range w.nodes {
		s := h.record.State
		switch {
		case h.down && h.suspected == 0:
			h.suspected = w.now
		case h.down && s == metapb.NodeState_NODE_STATE_ACTIVE && w.now.Sub(h.suspected) > 3*time.Second:
			h.record = proto.CloneOf(h.record)
			h.record.State = metapb.NodeState_NODE_STATE_SUSPECT
		case h.down && s == metapb.NodeState_NODE_STATE_SUSPECT && w.now.Sub(h.suspected) > 13*time.Second:
			h.record = proto.CloneOf(h.record)
			h.record.State, h.record.Reason = metapb.NodeState_NODE_STATE_FAILED, "it was suspect for 10s"
		case !h.down && h.suspected != 0:
			h.suspected = 0
			if s == metapb.NodeState_NODE_STATE_SUSPECT || s == metapb.NodeState_NODE_STATE_FAILED {
				h.record = proto.CloneOf(h.record)
				h.record.State = metapb.NodeState_NODE_STATE_ACTIVE
			}
		}
		h.health.SuspectedMicros = 0
		if h.record.State == metapb.NodeState_NODE_STATE_SUSPECT {
			h.health.SuspectedMicros = max(1, w.now.Sub(h.suspected).Microseconds()-3_000_000)
		}
	}
}

// inform gives the deciders what the index, the records and the nodes say.
func (w *world) inform() {
	now := make(map[base.RangeID]*metapb.RangeDescriptor)
	for id, r := range w.ranges {
		now[id] = r.desc
	}
	w.past = append(w.past, now)
	var records []*metapb.NodeRecord
	var health []*metapb.NodeHealth
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		records, health = append(records, w.nodes[id].record), append(health, proto.CloneOf(w.nodes[id].health))
	}
	for i, d := range w.deciders {
		if d == nil {
			continue
		}
		known := w.past[max(0, len(w.past)-1-i*w.stale)]
		for _, id := range slices.Sorted(maps.Keys(known)) {
			d.Learn(known[id])
		}
		d.SetPolicies(w.policy)
		d.SetOperations(w.ops, int64(w.now/1000))
		d.SetNodes(records, health)
	}
}

func (w *world) step(by int, d *placement.Decider) {
	actions, events := d.Step(w.now)
	for _, e := range events {
		if w.watch.event != nil {
			w.watch.event(by, e)
		}
		fmt.Fprintf(&w.log, "%s %s: %s\n", w.clock(by), e.Kind, told(e))
	}
	for _, a := range actions {
		if w.watch.action != nil {
			w.watch.action(by, a)
		}
		w.carry(by, d, a)
	}
}

func (w *world) clock(by int) string {
	return fmt.Sprintf("%5.1fs d%d", time.Duration(w.now-base.Instant(time.Hour)).Seconds(), by+1)
}

func told(e placement.Event) string {
	s := placement.GoalName(e.Goal) + ": " + e.What
	if e.Range != 0 {
		s = fmt.Sprintf("%s at %d, %s", e.Range, e.Generation, s)
	}
	return s
}

// carry brings an action to where it is for, and its answer back.
func (w *world) carry(by int, d *placement.Decider, a placement.Action) {
	still := func() bool { return by < len(w.deciders) && w.deciders[by] == d }
	var ask func() (func(), bool)
	switch {
	case a.Reserve != nil:
		ask = func() (func(), bool) {
			h := w.nodes[a.Node]
			if h == nil || h.down {
				return nil, false
			}
			m := h.promises.Reserve(a.Reserve, placement.Room{Against: h.against, Moves: 2, DiskBytes: 100 << 30}, w.now)
			return func() {
				if w.watch.answer != nil {
					w.watch.answer(by, a, m)
				}
				d.Reserved(a.Range, a.Node, a.Seq, m, nil, w.now)
			}, true
		}
	case a.Direct != nil:
		ask = func() (func(), bool) {
			r := w.ranges[a.Range]
			if r == nil || r.leader == 0 || w.nodes[r.leader].down {
				return func() { d.Directed(a.Range, a.Seq, 0, nil, errors.New("nobody leads it"), w.now) }, true
			}
			if w.deaf {
				return nil, false
			}
			leader := r.leader
			if w.old {
				a.Direct = clone(a.Direct)
				a.Direct.Withdraw = false
			}
			m := r.follow.Answer(a.Direct, r.desc, r.follow.Direct(a.Direct, r.desc, w.now), w.now)
			return func() { d.Directed(a.Range, a.Seq, leader, m, nil, w.now) }, true
		}
	default:
		ask = func() (func(), bool) {
			h := w.nodes[a.Node]
			if h == nil || h.down {
				return func() { d.Reported(a.Node, nil, errors.New("no answer"), w.now) }, true
			}
			m := w.report(a.Node)
			return func() { d.Reported(a.Node, m, nil, w.now) }, true
		}
	}
	w.send(func() {
		if answer, ok := ask(); ok {
			w.send(func() {
				if still() {
					answer()
				}
			})
		}
	})
}

// send delivers after a while: once, not at all, or twice.
func (w *world) send(f func()) {
	draw := w.rand.Int63n(100)
	for times := 1; draw >= w.loss && times > 0; times-- {
		if draw >= 100-w.loss {
			times, draw = times+1, 99-w.loss
		}
		at := w.now.Add(tick)
		if w.loss > 0 {
			at = at.Add(time.Duration(w.rand.Int63n(int64(time.Second))))
		}
		i, _ := slices.BinarySearchFunc(w.queue, at, func(l letter, at base.Instant) int {
			if l.at <= at {
				return -1
			}
			return 1
		})
		w.queue = slices.Insert(w.queue, i, letter{at, f})
	}
}

func (w *world) report(id base.NodeID) *rangepb.Report {
	m := &rangepb.Report{Version: 1, Incarnation: 1, All: true}
	for _, rid := range slices.Sorted(maps.Keys(w.ranges)) {
		r := w.ranges[rid]
		if r.leader != id {
			continue
		}
		out := &rangepb.RangeReport{Descriptor_: r.desc, Bytes: r.bytes, RequestsPerSecond: w.measured(r)}
		for _, n := range change.Behind(r.desc, w.observe(r)) {
			out.Behind = append(out.Behind, uint64(n))
		}
		m.Ranges = append(m.Ranges, out)
	}
	return m
}

// measured is the rate of a range as its leader knows it, who has counted since he leads it.
func (w *world) measured(r *ranged) float64 {
	if r.by != r.leader {
		r.by, r.since = r.leader, w.now
	}
	return r.load * (1 - math.Exp2(-w.now.Sub(r.since).Seconds()/base.LoadHalfLife.Seconds()))
}

func (w *world) observe(r *ranged) change.Observed {
	st := &raftgroup.Status{Role: raftgroup.Leader, Last: 100_000, Replica: base.ReplicaID(desc.ReplicaOn(r.desc, r.leader).ReplicaId)}
	var down []base.NodeID
	for _, rep := range r.desc.Replicas {
		h := w.nodes[base.NodeID(rep.NodeId)]
		p := raftgroup.Progress{Replica: base.ReplicaID(rep.ReplicaId), State: "replicate", Match: 100_000, Recent: h != nil && !h.down}
		if !p.Recent {
			p.State = "probe"
			down = append(down, base.NodeID(rep.NodeId))
		} else if came, ok := r.joined[rep.ReplicaId]; ok && w.now.Sub(came) < w.catchUp {
			p.State, p.Match = "snapshot", 0
		}
		st.Progress = append(st.Progress, p)
	}
	return change.Observe(st, down)
}

// lead is a moment of a range: somebody leads it, if a quorum is there, and takes a step.
func (w *world) lead(r *ranged) {
	if rep := desc.ReplicaOn(r.desc, r.leader); rep == nil || w.nodes[r.leader].down {
		if r.leader != 0 {
			r.leader, r.orphan = 0, w.now
		}
		if w.now.Sub(r.orphan) < time.Second || !w.quorum(r.desc) {
			return
		}
		for _, n := range change.Voters(r.desc) {
			if !w.nodes[n].down {
				r.leader, r.follow = n, &change.Follower{}
				break
			}
		}
	}
	if r.leader == 0 || !w.quorum(r.desc) {
		return
	}
	step, _ := r.follow.Next(r.desc, w.observe(r), w.now)
	before := r.desc
	switch {
	case step.Transfer != 0:
		r.leader, r.follow = base.NodeID(desc.Replica(r.desc, step.Transfer).NodeId), &change.Follower{}
	case step.Propose != nil:
		r.desc = step.Propose
		for _, rep := range r.desc.Replicas {
			if desc.Replica(before, base.ReplicaID(rep.ReplicaId)) == nil {
				r.joined[rep.ReplicaId] = w.now
			}
		}
	}
	if w.watch.step != nil && before != r.desc {
		w.watch.step(r, before)
	}
}

// quorum says whether what is up decides in both halves of a configuration.
func (w *world) quorum(d *metapb.RangeDescriptor) bool {
	var n, up [2]int
	for _, rep := range d.Replicas {
		inNew, inOld := desc.Votes(rep.Role)
		for half, in := range []bool{inNew, inOld} {
			if in {
				n[half]++
				if h := w.nodes[base.NodeID(rep.NodeId)]; h != nil && !h.down {
					up[half]++
				}
			}
		}
	}
	return 2*up[0] > n[0] && 2*up[1] > n[1]
}

// placed says what is not yet as it is to be; empty: all is, and the deciders rest.
func (w *world) placed() string {
	for _, id := range slices.Sorted(maps.Keys(w.ranges)) {
		r := w.ranges[id]
		voters := change.Voters(r.desc)
		if len(voters) != len(r.desc.Replicas) || len(voters) != 3 {
			return desc.Format(r.desc)
		}
		for _, n := range voters {
			if h := w.nodes[n]; h == nil || h.record.State != metapb.NodeState_NODE_STATE_ACTIVE {
				return fmt.Sprintf("%s is no place: %s", n, desc.Format(r.desc))
			}
		}
	}
	for i, d := range w.deciders {
		if d == nil {
			continue
		}
		if under := d.UnderWay(); len(under) > 0 {
			return fmt.Sprintf("d%d: %s: %s", i+1, under[0].Range, under[0].Waiting)
		}
		if d.Rests() == 0 || w.now.Sub(d.Rests()) < 3*base.DecideInterval {
			return fmt.Sprintf("d%d does not rest", i+1)
		}
	}
	return ""
}
