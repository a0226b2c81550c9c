package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/check"
)

// candidates are the nodes that can take a new replica now, those with the fewest in front, as far as this node knows.
func (m *member) candidates(all []*metapb.NodeRecord, self base.NodeID) (out []base.NodeID) {
	down := map[base.NodeID]bool{}
	for _, p := range m.transport.Peers() {
		down[p.Node] = !p.Up
	}
	load := m.store.Replicas()
	for _, r := range all {
		id := base.NodeID(r.NodeId)
		if r.State == metapb.NodeState_NODE_STATE_ACTIVE && (id == self || !down[id]) {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b base.NodeID) int { return cmp.Or(cmp.Compare(load[a], load[b]), cmp.Compare(a, b)) })
	return out
}

// listenBound opens the listeners whose clients mean one keyspace.
func (n *Node) listenBound(ctx context.Context) error {
	n.names = make(map[int]string)
	for _, name := range slices.Sorted(maps.Keys(n.cfg.ListenKeyspace)) {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", n.cfg.ListenKeyspace[name])
		if err != nil {
			return fmt.Errorf("cannot listen on %s for the keyspace %s: %w: give another address with --listen-keyspace", n.cfg.ListenKeyspace[name], name, err)
		}
		n.bound = append(n.bound, l)
		n.names[l.Addr().(*net.TCPAddr).Port] = name
	}
	return nil
}

func (n *Node) closeListeners() {
	for _, l := range append([]net.Listener{n.listener}, n.bound...) {
		_ = l.Close() // nothing was served on it
	}
}

// BoundAddr is the address that the node listens on for the clients of a keyspace; false if it listens on none.
func (n *Node) BoundAddr(keyspace string) (string, bool) {
	for _, l := range n.bound {
		if n.names[l.Addr().(*net.TCPAddr).Port] == keyspace {
			return l.Addr().String(), true
		}
	}
	return "", false
}

// Keyspace implements serve.Backend.
func (n *Node) Keyspace(ctx context.Context, name string) (base.KeyspaceID, error) {
	m, err := n.notYet()
	if err != nil {
		return 0, err
	}
	return m.keyspaces.Find(ctx, name)
}

// CreateKeyspace implements serve.Backend.
func (n *Node) CreateKeyspace(ctx context.Context, name string, single bool) (*metapb.KeyspaceRecord, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.keyspaces.Create(ctx, name, single)
}

// DropKeyspace implements serve.Backend.
func (n *Node) DropKeyspace(ctx context.Context, name string) (int, error) {
	m, err := n.notYet()
	if err != nil {
		return 0, err
	}
	return m.keyspaces.Drop(ctx, name)
}

// Keyspaces implements serve.Backend.
func (n *Node) Keyspaces(ctx context.Context) ([]*metapb.KeyspaceRecord, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.keyspaces.List(ctx)
}

// Ranges implements serve.Backend.
func (n *Node) Ranges(ctx context.Context, name string) ([]*clusterpb.IndexedRange, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.keyspaces.Ranges(ctx, name)
}

// SplitRange implements serve.Backend.
func (n *Node) SplitRange(ctx context.Context, name string, key []byte, dryRun bool) (left, right *metapb.RangeDescriptor, err error) {
	m, err := n.notYet()
	if err != nil {
		return nil, nil, err
	}
	return m.keyspaces.Split(ctx, name, key, dryRun)
}

// Check implements serve.Backend.
func (n *Node) Check(ctx context.Context, req *clusterpb.CheckRequest, status func(context.Context) *clusterpb.StatusResponse, send func(*clusterpb.CheckResponse) error) error {
	m, err := n.notYet()
	if err != nil {
		return err
	}
	return check.Run(ctx, check.Config{Cluster: m.dispatch, Keyspaces: m.keyspaces.List, Status: status, Logger: n.cfg.Logger}, req, send)
}

// MergeRange implements serve.Backend.
func (n *Node) MergeRange(ctx context.Context, name string, key []byte, dryRun bool) (*metapb.RangeDescriptor, error) {
	m, err := n.notYet()
	if err != nil {
		return nil, err
	}
	return m.keyspaces.Merge(ctx, name, key, dryRun)
}
