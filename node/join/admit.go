package join

import (
	"cmp"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
)

// newcomer is a node that wants its record made or changed, with everything that the decision rests on.
type newcomer struct {
	node        *metapb.NodeRecord
	replaceLost bool
	member      base.NodeID // who decides
	cluster     uint64      // and for which cluster

	// Who answered at the node's address, or why nobody did. Both are nil if it was not asked.
	answer  *clusterpb.IdentityResponse
	silence error

	unixMicros int64 // the wall clock, for when a node came into its state
}

// change is what is to be done to the records.
type change struct {
	record *metapb.NodeRecord // as it is, or is to be
	writes bool               // false: it is so already
	// addresses: the change gives an id or an address, and so is ordered with all others that do.
	addresses bool
	retire    *metapb.NodeRecord // also to be written: the record whose store was lost
}

// alive says whether the node may come back under its record.
func alive(n *metapb.NodeRecord) bool { return !liveness.Gone(n.State) }

// admit decides on a node that asks for an id. It is pure.
func admit(l *ledger, n *newcomer) (*change, error) {
	if old := l.byStore(n.node.StoreUuid); old != nil {
		if err := mayComeBack(old.record); err != nil {
			return nil, err
		}
		if old.record.Address == n.node.Address {
			return &change{record: old.record}, nil // it asks again: the answer was lost
		}
		if _, err := n.takeAddress(l, old.record.NodeId); err != nil {
			return nil, err
		}
		rec := proto.CloneOf(old.record)
		rec.Address, rec.Locality, rec.Version = n.node.Address, n.node.Locality, n.node.Version
		rec.Attributes, rec.DiskBytes, rec.Cpus = n.node.Attributes, n.node.DiskBytes, n.node.Cpus
		rec.Generation++
		return &change{record: rec, writes: true, addresses: true}, nil
	}
	retire, err := n.takeAddress(l, 0)
	if err != nil {
		return nil, err
	}
	rec := n.fresh(l.nextID(), metapb.NodeState_NODE_STATE_JOINING, fmt.Sprintf("%s let it in", n.member))
	return &change{record: rec, writes: true, addresses: true, retire: retire}, nil
}

// announce decides on a member that started again. It is pure.
func announce(l *ledger, n *newcomer) (*change, error) {
	old := l.byID(n.node.NodeId)
	if old == nil {
		return announceFounder(l, n)
	}
	if !sameStore(old.record.StoreUuid, n.node.StoreUuid) {
		return nil, refusef("%s is another store in this cluster (uuid %x, and this one is %x): this store was "+
			"restored from an old copy or belongs to another cluster; start with an empty store directory",
			base.NodeID(n.node.NodeId), old.record.StoreUuid, n.node.StoreUuid)
	}
	if err := mayComeBack(old.record); err != nil {
		return nil, err
	}
	if n.node.Incarnation < old.record.Incarnation {
		return nil, refusef("%s was started %d times as far as the cluster knows, and its store says %d: the store "+
			"was restored from an old copy and must not be used; start with an empty store directory and --replace-lost",
			base.NodeID(n.node.NodeId), old.record.Incarnation, n.node.Incarnation)
	}
	moved := old.record.Address != n.node.Address
	if moved {
		if _, err := n.takeAddress(l, n.node.NodeId); err != nil {
			return nil, err
		}
	}
	// What others have decided about it (cordoned, draining, leaving, its epoch) outlives its process.
	rec, err := liveness.Announce(old.record, n.node, announced(old.record, n.node), n.unixMicros)
	if err != nil {
		return nil, refusef("%v", err)
	}
	return &change{record: rec, writes: rec != old.record, addresses: moved}, nil
}

// announced is why an announcement has a node come into its state.
func announced(old, said *metapb.NodeRecord) string {
	what := fmt.Sprintf("it announced its start %d", said.Incarnation)
	if old.State == metapb.NodeState_NODE_STATE_FAILED {
		what += " after it was held to be failed: " + old.Reason
	}
	return what
}

// fresh is the first record of a node.
func (n *newcomer) fresh(id uint64, state metapb.NodeState, reason string) *metapb.NodeRecord {
	said := n.node
	return &metapb.NodeRecord{
		NodeId: id, StoreUuid: said.StoreUuid, Address: said.Address, Locality: said.Locality, Version: said.Version,
		Incarnation: said.Incarnation, Attributes: said.Attributes, DiskBytes: said.DiskBytes, Cpus: said.Cpus,
		State: state, Generation: 1, Reason: reason, SinceUnixMicros: n.unixMicros,
	}
}

// announceFounder makes the record of the node that founded the cluster: all others got theirs with their id.
func announceFounder(l *ledger, n *newcomer) (*change, error) {
	if n.node.NodeId != founderID {
		return nil, refusef("%s has no record in this cluster: its store is not one of this cluster's; "+
			"start with an empty store directory", base.NodeID(n.node.NodeId))
	}
	if _, err := n.takeAddress(l, founderID); err != nil {
		return nil, err
	}
	rec := n.fresh(founderID, metapb.NodeState_NODE_STATE_ACTIVE, "it made the cluster")
	return &change{record: rec, writes: true, addresses: true}, nil
}

func mayComeBack(rec *metapb.NodeRecord) error {
	if alive(rec) {
		return nil
	}
	return Ended(rec)
}

// Ended says why a node can never come back under its record, which is one that has ended.
func Ended(rec *metapb.NodeRecord) error {
	switch rec.State {
	case metapb.NodeState_NODE_STATE_REPLACED:
		return refusef("this store was %s, and another store has taken its place at %s since: "+
			"it can never come back; start with an empty store directory", base.NodeID(rec.NodeId), rec.Address)
	case metapb.NodeState_NODE_STATE_LEFT:
		return refusef("%s was removed from the cluster (%s): start with an empty store directory",
			base.NodeID(rec.NodeId), cmp.Or(rec.Reason, "it has left"))
	}
	return nil
}

// takeAddress checks that the node can have its address, and returns the record that is to be retired for it, if
// any. self is the node's own id, 0 if it has none yet.
func (n *newcomer) takeAddress(l *ledger, self uint64) (retire *metapb.NodeRecord, err error) {
	address := n.node.Address
	if n.silence != nil {
		return nil, refusef("%s cannot reach the advertised address %s: %v: give one with --advertise that every "+
			"node can reach", n.member, address, n.silence)
	}
	holder := l.byAddress(address)
	if holder != nil && holder.record.NodeId == self {
		holder = nil
	}
	if holder != nil && sameStore(n.answer.StoreUuid, holder.record.StoreUuid) {
		return nil, refusef("address %s is in use by %s: give every node an address of its own (--advertise)",
			address, base.NodeID(holder.record.NodeId))
	}
	if !sameStore(n.answer.StoreUuid, n.node.StoreUuid) {
		return nil, refusef("address %s is answered by another node (its store's uuid is %x): "+
			"give every node an address of its own (--advertise)", address, n.answer.StoreUuid)
	}
	if id := n.answer.ClusterId; id != 0 && id != n.cluster {
		return nil, refusef("the store at %s belongs to cluster %x, and this is cluster %x: "+
			"start it with an empty store directory", address, id, n.cluster)
	}
	if holder == nil {
		return nil, nil
	}
	if !n.replaceLost {
		return nil, refusef("%s had address %s with another store (uuid %x): if that store is lost for good, start "+
			"this node with --replace-lost, which joins it as a new node and retires %[1]s; if it is not, start "+
			"with its store directory, or with another --advertise",
			base.NodeID(holder.record.NodeId), address, holder.record.StoreUuid)
	}
	why := fmt.Sprintf("its store was said to be lost, and another one has taken its address %s over", address)
	retire, err = liveness.Apply(holder.record, liveness.Replaced, why, n.unixMicros)
	if err != nil {
		return nil, refusef("%v", err)
	}
	return retire, nil
}
