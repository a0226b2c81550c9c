package node

import (
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// known is what is known of one node, and the rules by which it grows. It is a value: each rule gives the next one.
//
// Two things are known, each with an order of its own, so that it does not matter in which order they are heard:
//
//   - Its record, which the cluster keeps in `sys`: one that is final goes before one that is not, then the higher generation
//     counts, then, for records that do not count generations (0), the later start.
//   - Where it is, which the node itself says when it connects and by gossip, also while `sys` cannot be reached: the later start
//     counts. This changes nothing else of the record.
type known struct {
	record  *metapb.NodeRecord // nil: none was heard
	start   base.Incarnation   // 0: it has said nothing itself
	address string             // where that start of it is
}

// final says whether nothing follows on the state: the node's store can never come back.
func final(r *metapb.NodeRecord) bool {
	return r.State == metapb.NodeState_NODE_STATE_REPLACED || r.State == metapb.NodeState_NODE_STATE_LEFT
}

// newer says whether a goes before b.
func newer(a, b *metapb.NodeRecord) bool {
	switch {
	case final(a) != final(b):
		return final(a)
	case a.Generation != b.Generation:
		return a.Generation > b.Generation
	}
	return a.Incarnation > b.Incarnation
}

// withRecord takes a record of `sys` that is not older. Of two that nothing orders the one that comes later counts: records that
// do not count generations change so.
func (k known) withRecord(r *metapb.NodeRecord) known {
	if k.record == nil || !newer(k.record, r) {
		k.record = r
	}
	return k
}

// withHint takes a record that somebody who does not read `sys` holds to be the newest.
func (k known) withHint(r *metapb.NodeRecord) known {
	if k.record == nil || newer(r, k.record) {
		k.record = r
	}
	return k
}

// withAddress takes what a start of the node says of itself. One start has one address.
func (k known) withAddress(start base.Incarnation, address string) known {
	if start > k.start {
		k.start, k.address = start, address
	}
	return k
}

// speaks says whether the node has said more of its address than its record says.
func (k known) speaks() bool {
	return k.start != 0 && (k.record == nil || uint64(k.start) >= k.record.Incarnation)
}

// merged is all of it as one record.
func (k known) merged(id base.NodeID) *metapb.NodeRecord {
	if !k.speaks() {
		return k.record
	}
	r := &metapb.NodeRecord{NodeId: uint64(id)}
	if k.record != nil {
		r = proto.CloneOf(k.record)
	}
	r.Address, r.Incarnation = k.address, uint64(k.start)
	return r
}
