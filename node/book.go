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
	"github.com/cairndb/cairn/node/store"
)

// book is what a node knows of the cluster's nodes: their records, newest first by incarnation. It is kept in the
// store, so that a cluster that was stopped as a whole finds itself again, and is corrected by what nodes say of
// themselves when they connect, by `sys`, and by what members answer.
type book struct {
	eng    engine.Engine
	logger *slog.Logger

	mu      sync.RWMutex
	records map[base.NodeID]*metapb.NodeRecord
	changed func() // told of everything that is new; nil: nobody
}

func openBook(eng engine.Engine, logger *slog.Logger) (*book, error) {
	stored, err := store.ReadAddressBook(eng)
	if err != nil {
		return nil, err
	}
	b := &book{eng: eng, logger: logger, records: make(map[base.NodeID]*metapb.NodeRecord)}
	for _, r := range stored.Nodes {
		b.records[base.NodeID(r.NodeId)] = r
	}
	return b, nil
}

// Address implements transport.Resolver.
func (b *book) Address(id base.NodeID) (string, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	r := b.records[id]
	if r == nil || r.State == metapb.NodeState_NODE_STATE_REPLACED {
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

// learn takes records that are not older than those it has.
func (b *book) learn(records ...*metapb.NodeRecord) {
	if changed := b.take(records); changed != nil {
		changed()
	}
}

// take returns who is to be told.
func (b *book) take(records []*metapb.NodeRecord) (changed func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fresh := false
	for _, r := range records {
		id := base.NodeID(r.GetNodeId())
		old := b.records[id]
		if id == 0 || old != nil && (r.Incarnation < old.Incarnation || proto.Equal(r, old)) {
			continue
		}
		// A record that was replaced stays so: its store can never come back.
		if old != nil && old.State == metapb.NodeState_NODE_STATE_REPLACED && r.State != old.State {
			continue
		}
		b.records[id] = r
		fresh = true
	}
	if !fresh {
		return nil
	}
	b.save()
	return b.changed
}

// heard takes the address that a node gave for itself when it connected.
func (b *book) heard(id base.NodeID, inc base.Incarnation, address string) {
	b.mu.RLock()
	old := b.records[id]
	b.mu.RUnlock()
	r := &metapb.NodeRecord{NodeId: uint64(id)}
	if old != nil {
		if old.Address == address || base.Incarnation(old.Incarnation) > inc {
			return
		}
		r = proto.CloneOf(old)
	}
	r.Address, r.Incarnation = address, uint64(inc)
	b.learn(r)
}

// all returns the records, by id. They must not be changed.
func (b *book) all() []*metapb.NodeRecord {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.sorted()
}

func (b *book) sorted() []*metapb.NodeRecord {
	out := make([]*metapb.NodeRecord, 0, len(b.records))
	for _, r := range b.records {
		out = append(out, r)
	}
	slices.SortFunc(out, func(x, y *metapb.NodeRecord) int { return cmp.Compare(x.NodeId, y.NodeId) })
	return out
}

func (b *book) save() {
	if err := store.WriteAddressBook(b.eng, &metapb.AddressBook{Nodes: b.sorted()}); err != nil {
		b.logger.Warn("the address book was not stored", "error", err)
	}
}
