package sim

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/placement"
	"github.com/cairndb/cairn/raftgroup"
)

// W9: replicas are placed by the product's own deciders, meta/placement: on whichever node leads the index, or believes to. What they
// want travels in the control class to the leaders of ranges, which follow as meta/change says, and to the nodes that are to take
// replicas. This stands for node/placement.

// governor is the part of a process that decides, follows and takes in.
type governor struct {
	p         *process
	decider   *placement.Decider // nil: this node does not lead the index
	life      uint64             // of the last one
	followers map[base.RangeID]*change.Follower
	seen      map[base.RangeID]*followed // what they follow
	promises  *placement.Reservations
}

func newGovernor(p *process) *governor {
	return &governor{p: p, followers: make(map[base.RangeID]*change.Follower), seen: make(map[base.RangeID]*followed), promises: placement.NewReservations()}
}

// governInterval is how often a process sees to all this; the constants of the product are well above.
const governInterval = 250 * time.Millisecond

func (g *governor) tick() {
	g.p.member.look()
	g.decide()
	g.p.later(governInterval, g.tick)
}

// lost ends what is followed of a range that this node leads no more.
func (g *governor) lost(id base.RangeID) {
	delete(g.followers, id)
	delete(g.seen, id)
}

func (g *governor) follower(id base.RangeID) *change.Follower {
	f := g.followers[id]
	if f == nil {
		f = &change.Follower{}
		g.followers[id] = f
	}
	return f
}

// decide steps the decider, if this node leads the index. A leader that others have given up goes on until it hears of it.
func (g *governor) decide() {
	p, w := g.p, g.p.n.w
	st, ok := p.hand.Status(w.meta.id)
	if !ok || st.Role != raftgroup.Leader || st.Descriptor == nil {
		g.decider = nil
		return
	}
	if g.decider == nil {
		g.life++
		g.decider = placement.New(placement.Config{Node: p.n.id, Life: uint64(p.n.incarnation)<<16 | g.life, Seed: p.n.rand.Uint64(), Index: base.KeyspaceMeta})
		w.count("deciders")
	}
	g.read(st.Descriptor)
	g.decider.SetPolicies(w.sys.policy)
	g.decider.SetOperations(w.sys.ops, int64(w.now/time.Microsecond))
	g.decider.SetNodes(p.member.records, p.member.health)
	g.step()
}

// read has the decider know what the index lists, as this replica has applied it, and the index's own range.
func (g *governor) read(own *metapb.RangeDescriptor) {
	p, w := g.p, g.p.n.w
	out := &pb.RangeResponse{}
	if err := p.store.Read(w.meta.id, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, out); err != nil {
		return
	}
	listed := map[base.RangeID]bool{w.meta.id: true}
	g.decider.Learn(own)
	for _, kv := range out.Kvs {
		d := &metapb.RangeDescriptor{}
		if err := proto.Unmarshal(kv.Value, d); err != nil {
			continue // the probes' own keys
		}
		if id := base.RangeID(d.RangeId); id != 0 {
			listed[id] = true
			g.decider.Learn(d)
		}
	}
	for _, id := range g.decider.Ranges() {
		if !listed[id] {
			g.decider.Forget(id)
		}
	}
}

// step carries out what the decider wants.
func (g *governor) step() {
	p, w, d := g.p, g.p.n.w, g.decider
	actions, events := d.Step(p.store.Now())
	for _, e := range events {
		w.count("decisions " + e.Kind.String())
		if e.Kind == placement.Decided {
			w.seats.decided[decisionOf{uint64(p.n.id), e.Seq}] = w.causeOf(d, e.Range, e.Goal)
		}
		w.tracef("%s %s %s at generation %d to %s: %s (%s)", p.n.id, e.Kind, e.Range, e.Generation, placement.GoalName(e.Goal), e.What, e.Reason)
	}
	for _, a := range actions {
		// An answer to a decider that is no more is nobody's.
		still := func(f func()) {
			if g.decider == d {
				f()
			}
		}
		switch {
		case a.Reserve != nil:
			p.question(a.Node, base.DecideRetry, func(q *process) (any, error) { return q.governor.reserve(a.Reserve), nil }, func(m any, err error) {
				still(func() { d.Reserved(a.Range, a.Node, a.Seq, as[*rangepb.Reservation](m), err, p.store.Now()) })
			})
		case a.Report != nil:
			p.question(a.Node, base.ReportInterval, func(q *process) (any, error) { return q.governor.report(), nil }, func(m any, err error) {
				still(func() { d.Reported(a.Node, as[*rangepb.Report](m), err, p.store.Now()) })
			})
		case a.Direct != nil:
			g.direct(a, a.Node, 2, func(by base.NodeID, m any, err error) {
				still(func() { d.Directed(a.Range, a.Seq, by, as[*rangepb.DirectiveAnswer](m), err, p.store.Now()) })
			})
		}
	}
}

func as[T any](m any) (t T) {
	t, _ = m.(T)
	return t
}

// direct brings a directive to the range's leader: to the node that is believed to lead, and then to where that one says.
func (g *governor) direct(a placement.Action, to base.NodeID, more int, done func(base.NodeID, any, error)) {
	if to == 0 {
		to = base.NodeID(a.Descriptor.Replicas[g.p.n.rand.Int63n(int64(len(a.Descriptor.Replicas)))].NodeId)
	}
	g.p.question(to, base.DecideRetry, func(q *process) (any, error) { return q.governor.directed(a.Range, a.Direct) }, func(m any, err error) {
		if elsewhere, ok := err.(*base.NotLeader); ok && elsewhere.HintNode != 0 && more > 0 {
			g.direct(a, elsewhere.HintNode, more-1, done)
			return
		}
		done(to, m, err)
	})
}

// directed takes in a directive for a range.
func (g *governor) directed(id base.RangeID, m *rangepb.Directive) (any, error) {
	p := g.p
	st, ok := p.hand.Status(id)
	if !ok || st.Role != raftgroup.Leader || st.Descriptor == nil {
		state, _ := p.store.State(id)
		return nil, &base.NotLeader{Range: id, HintNode: state.LeaderNode}
	}
	f := g.follower(id)
	now := p.store.Now()
	refused := f.Direct(m, st.Descriptor, now)
	answer := f.Answer(m, st.Descriptor, refused, now)
	if answer.Withdrawn {
		p.n.w.count("directives withdrawn")
	}
	if refused != "" {
		p.n.w.count("directives refused")
	} else if r := p.n.w.byID[id]; r != nil {
		g.heard(id, m)
		p.mover.lead(r)
	}
	return answer, nil
}

// reserve answers whether this node takes a replica.
func (g *governor) reserve(m *rangepb.Reserve) *rangepb.Reservation {
	room := placement.Room{Moves: placement.Policies(g.p.n.w.sys.policy).MovesPerNode}
	if own := g.p.n.w.sys.own(g.p.n.id); own == nil || !g.p.member.serves() {
		room.Against = "is no member now"
	} else if own.Cordoned {
		room.Against = "is cordoned"
	}
	a := g.promises.Reserve(m, room, g.p.store.Now())
	if a.Granted {
		g.p.n.w.count("replicas promised")
		g.p.n.w.seats.promised[rangeNode{base.RangeID(m.RangeId), g.p.n.id}] = g.p.n.w.now
	} else if !m.Release {
		g.p.n.w.count("replicas refused")
	}
	return a
}

// report says how the ranges are that this node leads.
func (g *governor) report() *rangepb.Report {
	p := g.p
	out := &rangepb.Report{Version: 1, Incarnation: uint64(p.n.incarnation), All: true}
	for _, id := range p.store.Ranges() {
		st, ok := p.hand.Status(id)
		if !ok || st.Role != raftgroup.Leader || st.Descriptor == nil {
			continue
		}
		r := &rangepb.RangeReport{Descriptor_: proto.CloneOf(st.Descriptor), Bytes: 1 << 20, RequestsPerSecond: 1}
		for _, n := range change.Behind(st.Descriptor, change.Observe(&st, p.mover.downNodes())) {
			r.Behind = append(r.Behind, uint64(n))
		}
		if a, ok := p.n.w.beside[id]; ok && p.n.w.now < a.until {
			r.Busy = "its replicas are brought to where another range's are"
		}
		out.Ranges = append(out.Ranges, r)
	}
	return out
}

// beside is where a range's replicas are wanted for a merge, and until when.
type beside struct {
	on    []base.NodeID
	until time.Duration
}

// align is how long a range's replicas are wanted beside another's in a run, as Reconciler.Align.
const align = 20 * time.Second

// together wants two ranges' replicas on the same nodes.
func (w *world) together(left, right *rangeInfo, on []base.NodeID) {
	if !w.plan.Allocator {
		left.goal, right.goal = change.On(on...), change.On(on...)
		return
	}
	for _, r := range []*rangeInfo{left, right} {
		w.beside[r.id] = beside{on, w.now + align}
	}
	w.sys.moved = w.now
}

// follow is the step that a leader takes in a run with deciders. It directs itself to where a merge wants the range.
func (m *mover) follow(st *raftgroup.Status) (change.Step, bool) {
	now, f := m.p.gateway.now(), m.p.governor.follower(st.Range)
	if a, ok := m.p.n.w.beside[st.Range]; ok && m.p.n.w.now < a.until && !f.Follows(st.Descriptor, now) {
		d := &rangepb.Directive{Decider: uint64(m.p.n.id), Seq: 1 << 62, ExpectedGeneration: st.Descriptor.Generation,
			TimeoutMicros: uint64((a.until - m.p.n.w.now) / time.Microsecond), Reason: "a merge"}
		for _, n := range a.on {
			d.Voters = append(d.Voters, uint64(n))
		}
		if f.Direct(d, st.Descriptor, now) == "" {
			m.p.governor.heard(st.Range, d)
		}
	}
	step, rest := f.Next(st.Descriptor, change.Observe(st, m.downNodes()), now)
	m.p.governor.steps(st.Descriptor, step)
	return step, rest
}

// want has somebody ask for a range's voters on just these nodes.
func (w *world) want(r *rangeInfo, on ...base.NodeID) {
	if !w.plan.Allocator {
		r.goal = change.On(on...)
		return
	}
	s := w.sys
	op := &metapb.Operation{OpId: uint64(len(s.ops) + 1), Kind: metapb.OperationKind_OPERATION_KIND_RELOCATE, State: metapb.OperationState_OPERATION_STATE_RUNNING, RangeId: uint64(r.id)}
	policy := placement.Policies(s.policy)
	for _, n := range change.On(on...).Voters {
		if own := s.own(n); own == nil || own.State != metapb.NodeState_NODE_STATE_ACTIVE || forbidden(&policy, r.ks, own) {
			return // node/operate refuses it
		}
		op.Voters = append(op.Voters, uint64(n))
	}
	for _, before := range s.ops {
		if before.RangeId == uint64(r.id) && before.State == metapb.OperationState_OPERATION_STATE_RUNNING {
			before.State = metapb.OperationState_OPERATION_STATE_CANCELLED
		}
	}
	s.ops = append(s.ops, op)
	s.moved = w.now
	w.count("operations")
}

// operate stands for node/operate: it ends operations when the descriptors say so, and nodes that have left.
func (s *sys) operate() {
	w := s.w
	for _, op := range s.ops {
		if op.State != metapb.OperationState_OPERATION_STATE_RUNNING {
			continue
		}
		r := w.byID[base.RangeID(op.RangeId)]
		d := w.rules.tiling.committed[base.RangeID(op.RangeId)]
		switch {
		case r == nil || d == nil || w.merged[r.id]:
			op.State = metapb.OperationState_OPERATION_STATE_FAILED
		case !desc.Joint(d) && len(d.Replicas) == len(op.Voters) && slices.Equal(voterNumbers(d), op.Voters):
			op.State = metapb.OperationState_OPERATION_STATE_DONE
			w.count("operations done")
		case slices.ContainsFunc(op.Voters, func(n uint64) bool { return s.own(base.NodeID(n)).State != metapb.NodeState_NODE_STATE_ACTIVE }):
			op.State = metapb.OperationState_OPERATION_STATE_FAILED // it cannot be done any more
		default:
			continue
		}
		s.moved = w.now
	}
	s.leave()
	w.queue.put(w.now+governInterval, s.operate)
}

func voterNumbers(d *metapb.RangeDescriptor) (out []uint64) {
	for _, n := range change.Voters(d) {
		out = append(out, uint64(n))
	}
	return out
}

// running are the operations that are not ended.
func (s *sys) running() (out []*metapb.Operation) {
	for _, op := range s.ops {
		if op.State == metapb.OperationState_OPERATION_STATE_RUNNING {
			out = append(out, op)
		}
	}
	return out
}
