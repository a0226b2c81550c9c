package node

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/node/store"
)

// book is what a node knows of the cluster's nodes, by the rules of known. It is kept in the store, so that a cluster that was
// stopped as a whole finds itself again, and is corrected by what nodes say of themselves when they connect and by gossip, by
// `sys`, and by what members answer.
type book struct {
	eng    engine.Engine
	logger *slog.Logger

	mu      sync.RWMutex
	nodes   map[base.NodeID]known
	merged  map[base.NodeID]*metapb.NodeRecord // of each of nodes
	changed func()                             // told of everything that is new; nil: nobody
}

func openBook(eng engine.Engine, logger *slog.Logger) (*book, error) {
	stored, err := store.ReadAddressBook(eng)
	if err != nil {
		return nil, err
	}
	b := &book{eng: eng, logger: logger, nodes: make(map[base.NodeID]known), merged: make(map[base.NodeID]*metapb.NodeRecord)}
	for _, r := range stored.Nodes {
		b.put(base.NodeID(r.NodeId), b.nodes[base.NodeID(r.NodeId)].withRecord(r))
	}
	for _, a := range stored.Heard {
		b.put(base.NodeID(a.NodeId), b.nodes[base.NodeID(a.NodeId)].withAddress(base.Incarnation(a.Incarnation), a.Address))
	}
	return b, nil
}

// Address implements transport.Resolver. One that has gone for good is nowhere: its address may be another's.
func (b *book) Address(id base.NodeID) (string, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	r := b.merged[id]
	if r == nil || liveness.Gone(r.State) {
		return "", false
	}
	return r.Address, true
}

// tell has it call f after each change, whichever way it was learned. f must not block.
func (b *book) tell(f func()) {
	b.mu.Lock()
	b.changed = f
	b.mu.Unlock()
}

// learn takes records of `sys`, as this node or a member has read them.
func (b *book) learn(records ...*metapb.NodeRecord) {
	b.take(func() (fresh bool) {
		for _, r := range records {
			if id := base.NodeID(r.GetNodeId()); id != 0 {
				fresh = b.put(id, b.nodes[id].withRecord(r)) || fresh
			}
		}
		return fresh
	})
}

// heard takes the address that a node gave for itself.
func (b *book) heard(id base.NodeID, inc base.Incarnation, address string) {
	b.told(id, inc, address, nil)
}

// told takes what a node said of itself, as another may have passed on: its address, and its record as far as it knows; nil: it
// knows none.
func (b *book) told(id base.NodeID, inc base.Incarnation, address string, record *metapb.NodeRecord) {
	b.take(func() bool {
		k := b.nodes[id].withAddress(inc, address)
		if record != nil {
			k = k.withHint(record)
		}
		return b.put(id, k)
	})
}

// take lets add put what is new, stores it, and tells whoever wants to know.
func (b *book) take(add func() (fresh bool)) {
	b.mu.Lock()
	var changed func()
	if add() {
		b.save()
		changed = b.changed
	}
	b.mu.Unlock()
	if changed != nil {
		changed()
	}
}

// put takes what is known of a node by now, and says whether others would see it.
func (b *book) put(id base.NodeID, k known) (fresh bool) {
	merged := k.merged(id)
	fresh = !proto.Equal(merged, b.merged[id])
	b.nodes[id], b.merged[id] = k, merged
	return fresh
}

// record is a node's record in `sys`, as far as it was heard of; nil: not at all.
func (b *book) record(id base.NodeID) *metapb.NodeRecord {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.nodes[id].record
}

// all returns what is known of all nodes, by id. The records must not be changed.
func (b *book) all() []*metapb.NodeRecord {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]*metapb.NodeRecord, 0, len(b.merged))
	for _, r := range b.merged {
		out = append(out, r)
	}
	slices.SortFunc(out, func(x, y *metapb.NodeRecord) int { return cmp.Compare(x.NodeId, y.NodeId) })
	return out
}

// save stores the book. b.mu is held.
func (b *book) save() {
	stored := &metapb.AddressBook{}
	for id, k := range b.nodes {
		if k.record != nil {
			stored.Nodes = append(stored.Nodes, k.record)
		}
		if k.speaks() {
			stored.Heard = append(stored.Heard, &metapb.NodeAddress{NodeId: uint64(id), Incarnation: uint64(k.start), Address: k.address})
		}
	}
	if err := store.WriteAddressBook(b.eng, stored); err != nil {
		b.logger.Warn("the address book was not stored", "error", err)
	}
}
