package node

import (
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/serve"
	"github.com/cairndb/cairn/node/watch"
)

// This file gives node/serve the node's watches.

func (n *Node) newWatches(m *member) (*watch.Watches, error) {
	return watch.New(watch.Config{
		Ranges: m.dispatch, Want: m.store.Watch, Now: m.store.Now, Seed: uint64(n.incarnation),
		ProgressInterval: n.cfg.WatchProgressInterval, Logger: n.cfg.Logger,
	})
}

// OpenWatches implements serve.Backend.
func (n *Node) OpenWatches(sink serve.WatchSink) (serve.WatchStream, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.watches.Open(sink)
}

// HasLeader implements serve.Backend. Of a range that has no replica here nothing is known but whether this node is cut off from the
// cluster: then there is none for whoever asks here.
func (n *Node) HasLeader(ks base.KeyspaceID, key []byte) bool {
	m := n.current()
	if m == nil {
		return false
	}
	d, leader := m.dispatch.Where(ks, key)
	if d != nil && m.store.Has(base.RangeID(d.RangeId)) {
		return leader != 0
	}
	_, by, age := m.monitor.Health()
	return by == 0 || age <= base.HealthAge
}
