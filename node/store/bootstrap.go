package store

import (
	"fmt"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/raftgroup"
)

// Bootstrap writes a new cluster into the store of its first node: the identity, and the first ranges with this node
// as their only replica, as one durable batch. A crash leaves either nothing or all of it.
func Bootstrap(eng engine.Engine, id *metapb.StoreIdentity, self *metapb.NodeRecord) error {
	var ranges []NewRange
	for _, d := range FirstDescriptors(base.NodeID(id.NodeId)) {
		ranges = append(ranges, NewRange{Descriptor: d, Counters: eval.FirstCounters()})
	}
	return BootstrapRanges(eng, id, []*metapb.NodeRecord{self}, ranges)
}

// NewRange is one that a new cluster begins with. If it has data, the store has it already.
type NewRange struct {
	Descriptor *metapb.RangeDescriptor
	Counters   eval.Counters
	Grants     int64 // the highest number of a grant of a lease
}

// BootstrapRanges is Bootstrap with ranges that may have a past; self may be unknown.
func BootstrapRanges(eng engine.Engine, id *metapb.StoreIdentity, self []*metapb.NodeRecord, ranges []NewRange) error {
	b := eng.NewBatch()
	if err := setProto(b, keys.StoreIdentity(), id); err != nil {
		return err
	}
	if err := setProto(b, keys.StoreAddressBook(), &metapb.AddressBook{Nodes: self}); err != nil {
		return err
	}
	for _, r := range ranges {
		if err := apply.BootstrapAt(b, r.Descriptor, r.Counters, r.Grants); err != nil {
			return err
		}
		replica := base.ReplicaID(r.Descriptor.Replicas[0].ReplicaId)
		if err := writeReplica(b, base.RangeID(r.Descriptor.RangeId), replica, apply.InitialIndex, apply.InitialTerm); err != nil {
			return err
		}
	}
	return commitSync(b)
}

// CreateReplica writes a new range's replica: its replicated state, and a log that begins after it. Every replica that
// the descriptor lists must be created alike, and the batch be durable before the store runs it.
func CreateReplica(w engine.Writer, d *metapb.RangeDescriptor, replica base.ReplicaID) error {
	if err := apply.Bootstrap(w, d); err != nil {
		return err
	}
	return writeReplica(w, base.RangeID(d.RangeId), replica, apply.InitialIndex, apply.InitialTerm)
}

// PlaceReplicas creates this node's replicas of new ranges while the store runs. Every node that the descriptors list is to
// do so alike.
func (s *Store) PlaceReplicas(ds []*metapb.RangeDescriptor) error {
	b := s.eng.NewBatch()
	var ids []base.RangeID
	for _, d := range ds {
		for _, r := range d.Replicas {
			if base.NodeID(r.NodeId) != s.node {
				continue
			}
			if s.replica(base.RangeID(d.RangeId)) != nil {
				b.Close()
				return fmt.Errorf("%s has a replica here already", base.RangeID(d.RangeId))
			}
			if err := CreateReplica(b, d, base.ReplicaID(r.ReplicaId)); err != nil {
				b.Close()
				return err
			}
			ids = append(ids, base.RangeID(d.RangeId))
		}
	}
	if err := commitSync(b); err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.load(id); err != nil {
			return err
		}
	}
	s.begin(ids)
	return nil
}

// Place makes this node's replica of a new range while the store runs. Every node that the descriptor lists is to do so alike. It
// may be repeated: a replica that is here stays as it is, and one that is dead stays so.
func (s *Store) Place(d *metapb.RangeDescriptor) error {
	id := base.RangeID(d.RangeId)
	mine := desc.ReplicaOn(d, s.node)
	if mine == nil {
		return fmt.Errorf("%s has no replica on %s", id, s.node)
	}
	made, err := s.place(d, base.ReplicaID(mine.ReplicaId))
	if made {
		s.admin(id, raftgroup.Admin{Range: id, Born: true})
		s.admin(id, raftgroup.Admin{Range: id, Campaign: true})
	}
	return err
}

func (s *Store) place(d *metapb.RangeDescriptor, mine base.ReplicaID) (made bool, err error) {
	id := base.RangeID(d.RangeId)
	s.births.Lock()
	defer s.births.Unlock()
	dead, err := readUint(s.eng, keys.RaftTombstone(id))
	if err != nil {
		return false, err
	}
	stored, err := readUint(s.eng, keys.RaftReplicaID(id))
	if err != nil {
		return false, err
	}
	// One that a leader's word has made is empty, and is sent a snapshot.
	if s.replica(id) != nil || stored != 0 || uint64(mine) < dead {
		return false, nil
	}
	b := s.eng.NewBatch()
	if err := CreateReplica(b, d, mine); err != nil {
		b.Close()
		return false, err
	}
	if err := commitSync(b); err != nil {
		return false, err
	}
	return true, s.load(id)
}

// Drop ends this node's replica of a range that is no more, and no other of it will ever live here.
func (s *Store) Drop(id base.RangeID) {
	if st, ok := s.State(id); ok {
		s.Removed(id, st.Replica, deadForEver)
	}
}

// FirstDescriptors are the ranges of a new cluster: one for each keyspace, over the whole of it.
func FirstDescriptors(node base.NodeID) []*metapb.RangeDescriptor {
	var out []*metapb.RangeDescriptor
	for _, r := range []struct {
		id base.RangeID
		ks base.KeyspaceID
	}{
		{base.RangeRoot, base.KeyspaceRoot}, {base.RangeMeta, base.KeyspaceMeta},
		{base.RangeSys, base.KeyspaceSys}, {base.RangeDefault, base.KeyspaceDefault},
	} {
		out = append(out, FirstDescriptor(r.id, r.ks, node))
	}
	return out
}

// FirstDescriptor is a new range over the whole of a keyspace, with one replica.
func FirstDescriptor(id base.RangeID, ks base.KeyspaceID, node base.NodeID) *metapb.RangeDescriptor {
	return &metapb.RangeDescriptor{
		RangeId: uint64(id), KeyspaceId: uint64(ks), Generation: 1, NextReplicaId: 2,
		Replicas: []*metapb.Replica{{ReplicaId: 1, NodeId: uint64(node), Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}},
	}
}
