package node

import (
	"context"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/gossip"
	"github.com/cairndb/cairn/transport"
)

// How nodes keep finding each other: what the book knows of addresses, gossip spreads, and what --join leads to is asked again
// when nobody is heard.

// newGossip makes the node's part in what nodes tell each other of all nodes.
func (n *Node) newGossip(self base.NodeID, t transport.Transport) (*gossip.Gossip, error) {
	return gossip.New(gossip.Config{
		Node: self, Incarnation: n.incarnation, Address: n.cfg.Advertise, Version: n.cfg.Version, Transport: t,
		Nodes: n.book.all, Record: func() *metapb.NodeRecord { return n.book.record(self) }, Learn: n.book.told,
		Seek: func(ctx context.Context) { n.entry.Seek(ctx) },
		Seed: uint64(n.incarnation)<<32 ^ uint64(self), Logger: n.cfg.Logger,
	})
}

// found is told of a node of this one's cluster that answers at an address which the book may not know, or no more.
func (n *Node) found(id *clusterpb.IdentityResponse) {
	node := base.NodeID(id.NodeId)
	if node == 0 || id.NodeId == n.storeIdentity().NodeId {
		return
	}
	n.book.heard(node, base.Incarnation(id.Incarnation), id.Address)
	if m := n.current(); m != nil {
		m.gossip.Meet(node)
	}
}
