package node

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/health"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

// This file gives node/health what it needs of the node: who leads `sys`, what is heard and measured, and what serves.

// watch makes the parts of a member that say who is well, and whether this node may serve.
func (n *Node) watch(m *member, id *metapb.StoreIdentity) error {
	self := base.NodeID(id.NodeId)
	m.fence = health.NewFence(health.FenceConfig{
		Node: self, Epoch: id.Epoch, Keep: n.keepEpoch, Announce: n.announce, Serving: n.serving, Final: n.fail, Logger: n.cfg.Logger,
	})
	gauges := health.NewGauges(health.GaugesConfig{Node: self, Store: m.store, Engine: n.eng, Puts: m.dispatch.Puts(), StoreDir: n.cfg.StoreDir})
	var err error
	m.monitor, err = health.New(health.Config{
		Node: self, Incarnation: n.incarnation, Address: n.cfg.Advertise, Version: n.cfg.Version, Cluster: m.dispatch,
		Leads: m.leadsSys, Heard: m.heard, Epoch: m.fence.Epoch,
		Load: func(late time.Duration) *metapb.NodeLoad {
			l := gauges.Load(late)
			m.gossip.SetLoad(l)
			return l
		},
		Learn:      func(own *metapb.NodeRecord) { n.learn(m, own) },
		Alarms:     m.alarms.Learn,
		Unanswered: m.fence.Doubt, Now: m.store.Now, UnixMicros: n.faults.unixMicros, Logger: n.cfg.Logger,
	})
	return err
}

func (m *member) leadsSys() (term uint64, leads bool) {
	st, ok := m.store.State(base.RangeSys)
	return st.Term, ok && st.Role == raftgroup.Leader
}

// heard is what this node can say of those with which it shares ranges.
func (m *member) heard() (out []*metapb.HeardOf) {
	for _, s := range m.store.Supports() {
		out = append(out, &metapb.HeardOf{
			NodeId: uint64(s.Node), Supports: s.Promised, Supported: s.Left > 0, RoundTripMicros: s.Trip.Microseconds(),
		})
	}
	return out
}

// learn takes records from `sys`; one of them may be this node's own.
func (n *Node) learn(m *member, records ...*metapb.NodeRecord) {
	n.book.learn(records...)
	for _, r := range records {
		m.fence.Learn(r)
	}
}

// keepEpoch writes the epoch of this node's record to the store.
func (n *Node) keepEpoch(epoch uint64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := proto.CloneOf(n.identity)
	id.Epoch = epoch
	if err := store.WriteIdentity(n.eng, id); err != nil {
		return err
	}
	n.identity = id
	return nil
}

// serving is told whether clients are served. The first time that they are the node is ready; one that stops does not begin again.
func (n *Node) serving(ok bool) {
	if ok && n.stopping.Load() {
		return
	}
	n.server.SetServing(ok)
	if ok {
		n.readyOnce.Do(func() { close(n.ready) })
	}
}

// mayServe says why clients are not to be served now; nil: they are.
func (n *Node) mayServe() error {
	if m := n.current(); m != nil {
		return m.fence.Check()
	}
	return nil // what needs a cluster says so itself
}

// awaitService is mayServe for who waits until ctx ends.
func (n *Node) awaitService(ctx context.Context) error {
	if m := n.current(); m != nil {
		return m.fence.Await(ctx)
	}
	return nil
}

// announce tells the cluster of this node until it has taken note, and returns the record that it then has.
func (n *Node) announce(ctx context.Context) (*metapb.NodeRecord, error) {
	m := n.current()
	resp, err := n.entry.AnnounceSelf(ctx, n.book.all, m.registrar.Announce)
	if err != nil {
		return nil, err
	}
	n.book.learn(resp.Nodes...)
	if resp.Root != nil {
		m.dispatch.Learn(resp.Root)
	}
	id := n.storeIdentity().NodeId
	for _, r := range resp.Nodes {
		if r.NodeId == id {
			return r, nil
		}
	}
	return nil, nil // a member of an earlier version answers without it: the epoch is what it was
}

// Health implements serve.Backend.
func (n *Node) Health() (nodes []*metapb.NodeHealth, by base.NodeID, age time.Duration) {
	if m := n.current(); m != nil {
		return m.monitor.Health()
	}
	return nil, 0, 0
}
