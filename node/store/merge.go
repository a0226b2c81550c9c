package store

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/emptypb"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/raftgroup"
)

// This file is the shell's part of a merge (docs/life-of-a-split.md). The right range's replica on this node ends in the batch
// that applies the merge here: its tombstone is in it. Everybody knows that the range's keys are here, all of them, because this
// node has said so (Confirm) before the merge was proposed, and on disk.

const deadForEver = raftgroup.DeadForEver

var errUnconfirmed = errors.New("a merge takes over a range of which this node does not have all")

// absorb ends, in the batch of a pass, the replicas of the ranges that its results took over. The caller holds s.births until the
// batch is visible and forgetAbsorbed has been called.
func (s *Store) absorb(b engine.Batch, results []apply.Result) error {
	for i := range results {
		for _, right := range results[i].Merges {
			if err := s.absorbOne(b, results[i].Applied.Range, right); err != nil {
				return err
			}
		}
	}
	return nil
}

// absorbOne looks at what the engine holds, not at what is shown: a replica that is being destroyed is shown no more, and its
// keys are there as long as s.births is held.
func (s *Store) absorbOne(b engine.Batch, left base.RangeID, right *kvpb.FrozenRange) error {
	id := base.RangeID(right.Descriptor_.RangeId)
	held, err := apply.ReadView(s.eng, id)
	var none *base.RangeMoved
	switch {
	case errors.As(err, &none):
		if dead, err := readUint(s.eng, keys.RaftTombstone(id)); err != nil || base.ReplicaID(dead) == deadForEver {
			return err // its keyspace was dropped here a moment ago, and so will this one be
		}
		return &base.Corruption{Where: id.String(), Cause: fmt.Errorf("%w: nothing", errUnconfirmed)}
	case err != nil:
		return err
	case held.AppliedIndex < right.AppliedIndex || !desc.Equal(held.Descriptor, right.Descriptor_):
		if !mutant.Is(mutant.MergeUnconfirmed) {
			return &base.Corruption{Where: id.String(), Cause: fmt.Errorf("%w: index %d of %d, %s", errUnconfirmed, held.AppliedIndex, right.AppliedIndex, desc.Format(held.Descriptor))}
		}
	}
	if mutant.Is(mutant.MergeLeavesReplica) {
		return nil
	}
	// Versions of the right one's that its compaction hid may be here still, below a mark that the left one had reached.
	if err := b.Delete(keys.RaftCompacted(left)); err != nil {
		return err
	}
	return b.Set(keys.RaftTombstone(id), uintBytes(nil, uint64(deadForEver)))
}

// forgetAbsorbed no longer shows the replicas that a pass took over. It comes before the left ones' new spans are shown.
func (s *Store) forgetAbsorbed(results []apply.Result) {
	for i := range results {
		for _, right := range results[i].Merges {
			s.hideAbsorbed(base.RangeID(right.Descriptor_.RangeId))
		}
	}
}

func (s *Store) hideAbsorbed(id base.RangeID) {
	if mutant.Is(mutant.MergeLeavesReplica) {
		return
	}
	s.mu.Lock()
	if s.replicas[id] != nil {
		delete(s.replicas, id)
		s.absorbed[id] = struct{}{}
	}
	s.mu.Unlock()
	s.replaced(id)
}

// isAbsorbed says whether a range was taken over here whose loop has not ended it yet.
func (s *Store) isAbsorbed(id base.RangeID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.absorbed[id]
	return ok
}

// ended tells the loops of the ranges that were taken over.
func (s *Store) ended(merges []*kvpb.FrozenRange) {
	for _, right := range merges {
		s.endAbsorbed(right.Descriptor_)
	}
}

func (s *Store) endAbsorbed(d *metapb.RangeDescriptor) {
	if mutant.Is(mutant.MergeLeavesReplica) {
		return
	}
	id := base.RangeID(d.RangeId)
	s.admin(id, raftgroup.Admin{Range: id, Absorbed: &raftgroup.Absorbed{Descriptor: d, Tombstone: deadForEver}})
}

// Confirm tells done when the local replica of a range has applied all that is committed now, its descriptor is at least of the
// given generation, and all that is on disk: a crash takes nothing of it back.
func (s *Store) Confirm(id base.RangeID, generation base.Generation, deadline base.Instant, done Done) {
	s.ReadIndex(id, deadline, func(_ proto.Message, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		v := s.View(id)
		if v == nil || desc.Generation(v.Descriptor) < generation {
			done(nil, &base.NotLeader{Range: id}) // what leads it is not what the asker knows of: ask again
			return
		}
		if mutant.Is(mutant.ConfirmUnsynced) {
			done(&emptypb.Empty{}, nil)
			return
		}
		// A commit may wait for others, which a worker does not.
		s.supports.start(func() { s.syncWrite(pendingSync{told: func() { done(&emptypb.Empty{}, nil) }}) })
	})
}

// syncWrite makes a small synced write: when it is on disk, all that was in the engine before is too. The count of starts is
// written as it is. An error stops the store.
func (s *Store) syncWrite(p pendingSync) {
	b := s.eng.NewBatch()
	err := b.Set(keys.StoreIncarnation(), uintBytes(nil, uint64(s.cfg.Incarnation)))
	p.began = s.Now()
	if err == nil {
		p.wait, err = b.CommitSync()
	}
	if err != nil {
		b.Close()
		s.fatal(err)
		return
	}
	s.workers[0].syncer.put(p)
}

// Left is the descriptor of the replica here of the range for which another is frozen; nil if there is none.
func (s *Store) Left(right *metapb.RangeDescriptor) *metapb.RangeDescriptor {
	if v := s.View(base.RangeID(right.GetFrozen().GetIntoRangeId())); v != nil {
		return v.Descriptor
	}
	return nil
}

// remnants are the replicas here of ranges that a snapshot's range has taken over, and of which this node missed the merge: the
// snapshot brings all that they had. Anybody else's keys are not to be touched.
func (s *Store) remnants(d *metapb.RangeDescriptor) (out []*metapb.RangeDescriptor, err error) {
	for _, id := range s.Ranges() {
		v := s.View(id)
		if v == nil || id == base.RangeID(d.RangeId) || !desc.Overlap(v.Descriptor, d) || mutant.Is(mutant.SnapshotOverNeighbour) {
			continue
		}
		if f := v.Descriptor.GetFrozen(); f == nil || f.IntoRangeId != d.RangeId || desc.Fate(v.Descriptor, d) != desc.Merged {
			return nil, &refusedError{fmt.Sprintf("%s holds keys of it here", id)}
		}
		out = append(out, v.Descriptor)
	}
	return out, nil
}
