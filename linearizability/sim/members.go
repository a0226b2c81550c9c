package sim

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

// W10: who is in, and who is well. The table is the product's, meta/liveness, on whichever node leads the index: its range stands for
// `sys` here, whose records the world keeps. Heartbeats travel in the control class, and all that befalls that befalls them.

// sys is what the cluster has stored of itself.
type sys struct {
	w       *world
	records []*metapb.NodeRecord // by node id
	ops     []*metapb.Operation
	policy  []*metapb.PolicyRecord
	moved   time.Duration // when something was last changed that may move replicas, see facts
	fenced  map[base.NodeID]bool
}

// quickFailed is how long a node is suspect in a run before what it holds is replaced: runs are short.
const quickFailed = 3 * time.Second

func newSys(w *world) *sys {
	s := &sys{w: w, fenced: make(map[base.NodeID]bool)}
	s.policy = []*metapb.PolicyRecord{{Cluster: &metapb.ClusterPolicy{
		FailedAfterMillis: uint64(quickFailed / time.Millisecond), FailedAfterOwnMillis: uint64(quickFailed / time.Millisecond), FailedSharePermille: 500,
		FailedTier: "none", // a zone of two nodes fails as a whole in many runs, and is to be repaired
	}}}
	if w.stream("policy").Int63n(3) == 0 { // the first clients' keyspace is to be nowhere in one zone
		s.policy = append(s.policy, &metapb.PolicyRecord{KeyspaceId: uint64(base.KeyspaceDefault), Placement: &metapb.PlacementPolicy{
			Constraints: []*metapb.Constraint{{Kind: metapb.ConstraintKind_CONSTRAINT_KIND_FORBIDDEN, Key: "zone", Value: "c"}},
		}})
	}
	for i := range w.plan.Nodes - w.plan.Spare {
		s.records = append(s.records, s.record(i))
	}
	return s
}

func (s *sys) record(i int) *metapb.NodeRecord {
	zones := []string{"a", "b", "c"}
	return &metapb.NodeRecord{NodeId: uint64(i + 1), State: metapb.NodeState_NODE_STATE_ACTIVE, Generation: 1, Epoch: 1,
		Locality: []*metapb.LocalityTier{{Key: "zone", Value: zones[i%len(zones)]}}}
}

// own is a node's record; nil if it is no member.
func (s *sys) own(id base.NodeID) *metapb.NodeRecord {
	if id == 0 || int(id) > len(s.records) {
		return nil
	}
	return s.records[id-1]
}

// change has an event happen to a node's record.
func (s *sys) change(id base.NodeID, e liveness.Event, reason string) error {
	before := s.own(id)
	if before == nil {
		return errors.New("no member")
	}
	after, err := liveness.Apply(before, e, reason, int64(s.w.now/time.Microsecond))
	if err == nil {
		s.put(before, after)
	}
	return err
}

// put is a compare-and-set.
func (s *sys) put(before, after *metapb.NodeRecord) {
	id := base.NodeID(after.NodeId)
	if s.own(id) != before || before == after {
		return
	}
	w := s.w
	if after.Epoch < before.Epoch || after.Generation != before.Generation+1 {
		w.violate("epochs grow", "%s: from epoch %d, generation %d, to %d, %d", id, before.Epoch, before.Generation, after.Epoch, after.Generation)
	}
	s.records[id-1] = after
	s.moved = w.now
	if after.State != before.State {
		w.count("nodes " + liveness.StateName(after.State))
	}
	w.tracef("%s is %s, epoch %d: %s", id, liveness.StateName(after.State), after.Epoch, after.Reason)
}

// holding counts the replicas of a node by the descriptors that are committed.
func (s *sys) holding(id base.NodeID) (n int) {
	for _, d := range s.w.rules.tiling.committed {
		for _, r := range d.Replicas {
			if base.NodeID(r.NodeId) == id {
				n++
			}
		}
	}
	return n
}

// member is what a process does as one node of many.
type member struct {
	p       *process
	table   *liveness.Table // on the leader of the index
	seq     uint64
	hint    base.NodeID // whom another node holds to lead the index
	epoch   uint64      // of its own record, as it knows it; 0: it does not know yet
	fenced  bool        // it knows of a higher one than its own, and has not announced itself since
	gone    bool        // it can never come back
	health  []*metapb.NodeHealth
	records []*metapb.NodeRecord
}

func newMember(p *process) *member { return &member{p: p} }

// live sends heartbeats, and sees to the others' as long as it leads.
func (m *member) live() {
	m.beat()
	m.p.later(base.HeartbeatInterval, m.live)
}

func (m *member) beat() {
	p, w := m.p, m.p.n.w
	m.seq++
	h := &metapb.Heartbeat{NodeId: uint64(p.n.id), Incarnation: uint64(p.n.incarnation), Epoch: m.epoch, Seq: m.seq, Load: m.load()}
	for _, s := range p.store.Supports() {
		h.Heard = append(h.Heard, heardOf(s))
	}
	p.question(m.guess(), base.HeartbeatTimeout, func(q *process) (any, error) { return q.member.answer(h) }, func(a any, err error) {
		if err != nil {
			w.count("heartbeats lost")
			elsewhere, _ := err.(*base.NotLeader)
			if m.hint = 0; elsewhere != nil {
				m.hint = elsewhere.HintNode
			}
			return
		}
		m.told(a.(*metapb.HeartbeatAnswer))
	})
}

func heardOf(s store.SupportStatus) *metapb.HeardOf {
	return &metapb.HeardOf{NodeId: uint64(s.Node), Supports: s.Promised, Supported: s.Left > 0}
}

// load is what a node says of how busy it is.
func (m *member) load() *metapb.NodeLoad {
	l := &metapb.NodeLoad{PutMicros: 2000, PutNormalMicros: 2000, SyncMicros: 1000}
	if m.p.n.slow.strained > 0 {
		l.PutMicros = 200_000
	}
	return l
}

// guess is the node that leads the index, as far as is known here: each in turn if nothing is.
func (m *member) guess() base.NodeID {
	w := m.p.n.w
	if m.hint != 0 {
		return m.hint
	}
	if st, ok := m.p.store.State(w.meta.id); ok && st.LeaderNode != 0 && m.p.store.View(w.meta.id) != nil {
		return st.LeaderNode
	}
	d := m.p.gateway.cache.Find(w.meta.ks, nil)
	if d == nil {
		return base.NodeID(m.seq%uint64(len(w.nodes)) + 1)
	}
	return base.NodeID(d.Replicas[m.seq%uint64(len(d.Replicas))].NodeId)
}

// answer takes in a heartbeat, on the leader.
func (m *member) answer(h *metapb.Heartbeat) (any, error) {
	p, w := m.p, m.p.n.w
	if m.table == nil {
		if st, ok := p.store.State(w.meta.id); ok && st.LeaderNode != 0 && st.LeaderNode != p.n.id {
			return nil, &base.NotLeader{Range: w.meta.id, HintNode: st.LeaderNode}
		}
		return nil, &base.NotLeader{Range: w.meta.id}
	}
	m.table.Heartbeat(p.store.Now(), h)
	return &metapb.HeartbeatAnswer{Own: w.sys.own(base.NodeID(h.NodeId)), Nodes: m.table.Health(p.store.Now())}, nil
}

// told takes in what the leader says of the nodes, and of this one. A node that has started announces itself, and so does one that
// hears of a higher epoch than its own: until then it serves nothing.
func (m *member) told(a *metapb.HeartbeatAnswer) {
	p, w := m.p, m.p.n.w
	m.health = a.Nodes
	own := a.Own
	if own == nil {
		return // it is no member yet
	}
	if own.State == metapb.NodeState_NODE_STATE_FAILED || liveness.Gone(own.State) {
		w.sys.fenced[p.n.id] = true // seen from outside: it has heard
	}
	if m.epoch != 0 && own.Epoch <= m.epoch {
		return
	}
	m.fenced = m.epoch != 0 || w.sys.fenced[p.n.id]
	if liveness.Gone(own.State) {
		m.gone = true
		return
	}
	p.question(m.guess(), base.HeartbeatTimeout, func(q *process) (any, error) {
		if q.member.table == nil {
			return nil, &base.NotLeader{Range: w.meta.id}
		}
		return w.sys.announce(p.n)
	}, func(a any, err error) {
		if err != nil {
			return // the next heartbeat's answer says so again
		}
		if m.fenced {
			w.count("nodes announced again")
		}
		m.epoch, m.fenced = a.(*metapb.NodeRecord).Epoch, false
		delete(w.sys.fenced, p.n.id)
	})
}

// announce is what a node's record becomes when it has started, or hears that it was given up.
func (s *sys) announce(n *node) (any, error) {
	before := s.own(n.id)
	said := &metapb.NodeRecord{Locality: before.Locality, Incarnation: uint64(n.incarnation)}
	after, err := liveness.Announce(before, said, "it is there", int64(s.w.now/time.Microsecond))
	if err != nil {
		return nil, err
	}
	s.put(before, after)
	return after, nil
}

// serves says whether the node may serve its clients.
func (m *member) serves() bool { return m.p.n.w.sys.own(m.p.n.id) != nil && !m.fenced && !m.gone }

// served: a node that has heard that it was given up, and has not announced itself since, answers no client with success.
func (s *sys) served(n *node, done func(proto.Message, error)) func(proto.Message, error) {
	begun := s.fenced[n.id]
	return func(m proto.Message, err error) {
		if err == nil && begun {
			s.w.violate("fenced nodes serve nothing", "%s serves a request that came when it had heard that it was given up", n.id)
		}
		done(m, err)
	}
}

var errFenced = errors.New("the node was fenced, and serves nothing")

// look steps the table, on the leader.
func (m *member) look() {
	p, w := m.p, m.p.n.w
	st, ok := p.hand.Status(w.meta.id)
	if !ok || st.Role != raftgroup.Leader {
		m.table = nil
		return
	}
	if m.table == nil {
		m.table, _ = liveness.New(liveness.Config{}) // an empty configuration is right
	}
	now := p.store.Now()
	m.table.SetRecords(now, w.sys.records)
	for _, t := range m.table.Step(now, int64(w.now/time.Microsecond), liveness.PolicyOf(w.sys.policy[0])) {
		if w.leader(w.meta) == p.n { // else it would not be committed
			w.sys.put(t.Before, t.After)
		}
	}
	m.health, m.records = m.table.Health(now), slices.Clone(w.sys.records)
}

// question is asked of another node, or of this one, over the control class, as node/dispatch asks. answer is called once, unless
// this process dies before.
func (p *process) question(to base.NodeID, timeout time.Duration, at func(*process) (any, error), answer func(any, error)) {
	n, w := p.n, p.n.w
	target := w.node(to)
	ended := false
	end := func(a any, err error) {
		if !ended {
			ended = true
			answer(a, err)
		}
	}
	if target == nil {
		p.later(0, func() { end(nil, errRefused) })
		return
	}
	p.later(timeout, func() { end(nil, errLate) })
	if target == n {
		p.later(0, func() { end(at(p)) })
		return
	}
	w.net.send(n.i, target.i, classControl, 128, func() {
		q := target.process
		if q == nil {
			return
		}
		q.do(func() {
			q.heard(n.i)
			a, err := at(q)
			if q.doomed {
				return
			}
			w.net.send(target.i, n.i, classControl, 128, func() { p.do(func() { end(a, err) }) })
		})
	})
}
