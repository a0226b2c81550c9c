package sim

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/raftgroup"
)

// mover stands for node/reconcile: on the leader of a range it publishes the descriptor to the index and takes the next
// step towards where the range's replicas are wanted. The steps are the product's, meta/change.
type mover struct {
	p         *process
	published map[base.RangeID]uint64 // the generation that the index acknowledged
	busy      map[base.RangeID]bool   // a step of it is under way
	alone     map[base.RangeID]base.Instant
	frozen    map[base.RangeID]frozenAt
}

const moveInterval = 300 * time.Millisecond

func newMover(p *process) *mover {
	return &mover{p: p, published: make(map[base.RangeID]uint64), busy: make(map[base.RangeID]bool), alone: make(map[base.RangeID]base.Instant), frozen: make(map[base.RangeID]frozenAt)}
}

// tick looks after all ranges that this node leads, again and again.
func (m *mover) tick() {
	for _, r := range slices.Clone(m.p.n.w.ranges) {
		m.lead(r)
		m.orphan(r)
	}
	for _, r := range m.p.n.w.gone {
		m.lead(r) // what leads it has not heard that it is another's
		m.orphan(r)
	}
	m.p.later(moveInterval, m.tick)
}

// orphan asks the index about a replica that has heard of no leader for long.
func (m *mover) orphan(r *rangeInfo) {
	now := m.p.gateway.now()
	st, ok := m.p.store.State(r.id)
	since, waits := m.alone[r.id]
	switch {
	case !ok || st.Leader != 0:
		delete(m.alone, r.id)
		return
	case !waits:
		m.alone[r.id] = now
		return
	case now.Sub(since) < base.OrphanAfter:
		return
	}
	delete(m.alone, r.id)
	view := m.p.store.View(r.id)
	if view == nil || r.ks == base.KeyspaceMeta { // which only root would know of
		return
	}
	indexed := m.p.n.w.indexed(view.Descriptor)
	if change.Remnant(view.Descriptor, m.p.store.Left(view.Descriptor), indexed) {
		m.p.n.w.count("remnants found")
		m.p.store.Drop(r.id)
	}
	if below, ok := change.Orphaned(view.Descriptor, st.Replica, m.p.n.id, indexed); ok {
		m.p.n.w.count("orphans found")
		m.p.store.Removed(r.id, st.Replica, below)
	}
}

func (m *mover) lead(r *rangeInfo) {
	if m.p.hand == nil || m.busy[r.id] {
		return
	}
	st, ok := m.p.hand.Status(r.id)
	if !ok || st.Role != raftgroup.Leader || st.Descriptor == nil {
		return
	}
	m.publish(st.Descriptor)
	m.unmerged(&st)
	m.step(r, &st)
}

// publish puts the descriptor into the index, again and again until it is acknowledged.
func (m *mover) publish(d *metapb.RangeDescriptor) {
	id := base.RangeID(d.RangeId)
	index, ok := route.IndexKeyspace(base.KeyspaceID(d.KeyspaceId))
	if !ok || index != base.KeyspaceMeta || m.published[id] >= d.Generation {
		return
	}
	data, err := proto.Marshal(&kvpb.Command{
		NowMicros: m.p.gateway.micros(),
		Body:      &kvpb.Command_PublishDescriptor{PublishDescriptor: &kvpb.PublishDescriptor{Key: route.DescriptorKey(d), Descriptor_: d}},
	})
	if err != nil {
		panic(err)
	}
	c := &call{ks: index, key: route.DescriptorKey(d), write: true, data: data, deadline: m.p.gateway.now().Add(base.RequestTimeout)}
	c.done = func(_ proto.Message, err error) {
		if err == nil {
			m.clear(d)
			m.publishedAs(c, d)
		}
	}
	m.p.gateway.begin(c)
}

// step carries out the next step of the range's replica change, if there is one.
func (m *mover) step(r *rangeInfo, st *raftgroup.Status) {
	if len(r.goal.Voters) == 0 && m.p.n.w.sys == nil {
		return
	}
	var step change.Step
	var done bool
	if m.p.n.w.sys != nil {
		step, done = m.follow(st)
	} else {
		step, done = change.Next(st.Descriptor, change.Observe(st, m.downNodes()), r.goal)
	}
	switch {
	case done:
	case step.Transfer != 0:
		m.p.n.w.count("leaderships moved")
		m.p.store.Transfer(st.Range, step.Transfer)
	case step.Propose != nil:
		m.propose(r, st, step)
	}
}

func (m *mover) propose(r *rangeInfo, st *raftgroup.Status, step change.Step) {
	w := m.p.n.w
	cmd, cc, err := apply.Change(st.Descriptor, step.Propose)
	if err != nil {
		w.violate("legal steps", "%s: %s: %v", st.Range, step.Reason, err)
		return
	}
	data, err := proto.Marshal(cmd)
	if err != nil {
		panic(err)
	}
	m.busy[r.id] = true
	w.tracef("%s %s: %s", m.p.n.id, r.id, step.Reason)
	take := func(told func(error)) {
		deadline := m.p.gateway.now().Add(base.RequestTimeout)
		m.p.store.Propose(raftgroup.Proposal{Range: r.id, Data: data, Change: cc}, deadline, func(_ proto.Message, err error) {
			m.p.ready = append(m.p.ready, func() { told(err) })
		})
	}
	take(func(err error) {
		m.busy[r.id] = false
		var stale *base.StaleGeneration
		switch {
		case err == nil:
			w.count("replica changes")
			m.again(r, take)
			m.lead(r)
		case errors.As(err, &stale):
			w.count("stale replica changes")
		}
	})
}

func (m *mover) downNodes() (down []base.NodeID) {
	for _, n := range m.p.n.w.nodes {
		if m.p.peers.down[n.i] {
			down = append(down, n.id)
		}
	}
	slices.Sort(down)
	return down
}
