package store

import (
	"errors"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/raftgroup"
)

// This file is the shell's part of a split (docs/life-of-a-split.md): what Raft needs of the right part's replica on this node
// goes into the batch that applies the split, and the replica comes to life when that batch is visible.

var errBornTwice = errors.New("it was cut off another range here, and has a log already")

// bear returns the ranges that the results of a pass cut off and that have a replica here, with what Raft needs of them
// in the batch. The caller holds s.births until the batch is visible and raise has been called.
func (s *Store) bear(b engine.Batch, results []apply.Result) (born []*metapb.RangeDescriptor, err error) {
	for i := range results {
		for _, right := range results[i].Splits {
			alive, err := s.bearOne(b, right)
			if err != nil {
				return nil, err
			}
			if alive {
				born = append(born, right)
			}
		}
	}
	return born, nil
}

// bearOne writes the right part's replica id and the beginning of its log; a HardState, if there is one, stays, for the
// replica may have voted before it was here. If the right part's replica has been removed from this node before this node
// got here, what the split left of it is deleted again.
func (s *Store) bearOne(b engine.Batch, right *metapb.RangeDescriptor) (alive bool, err error) {
	id := base.RangeID(right.RangeId)
	dead, err := readUint(s.eng, keys.RaftTombstone(id))
	if err != nil {
		return false, err
	}
	stored, err := readUint(s.eng, keys.RaftReplicaID(id))
	if err != nil {
		return false, err
	}
	mine := desc.ReplicaOn(right, s.node)
	gone := mine == nil || (mine.ReplicaId < dead || mine.ReplicaId < stored) && !mutant.Is(mutant.SplitRaisesDead)
	if gone {
		for _, span := range apply.Spans(right) {
			if err := b.DeleteRange(span.Start, span.End); err != nil {
				return false, err
			}
		}
		return false, nil
	}
	if log, err := readTruncated(s.eng, id); err != nil {
		return false, err
	} else if log.Index != 0 {
		return false, &base.Corruption{Where: id.String(), Cause: errBornTwice}
	}
	a := appender{hard: map[base.RangeID]termVote{}}
	first := raftgroup.Append{
		Range: id, ReplicaID: base.ReplicaID(mine.ReplicaId),
		Truncate: &raftgroup.TruncatedState{Index: apply.InitialIndex, Term: apply.InitialTerm},
	}
	if mutant.Is(mutant.SplitForgetsVote) {
		first.HardState = &raftpb.HardState{Term: new(uint64(apply.InitialTerm)), Vote: new(uint64(0)), Commit: new(uint64(apply.InitialIndex))}
	}
	_, err = a.writeOne(b, &first)
	return err == nil, err
}

// raise shows the ranges that were cut off in a pass, once they are visible in the engine.
func (s *Store) raise(born []*metapb.RangeDescriptor) error {
	for _, d := range born {
		if err := s.load(base.RangeID(d.RangeId)); err != nil {
			return err
		}
	}
	return nil
}

// begun hands the ranges that were cut off one to their loops. The node that leads the one stands for them at once.
func (s *Store) begun(from base.RangeID, cut []*metapb.RangeDescriptor) {
	st, ok := s.State(from)
	for _, d := range cut {
		id := base.RangeID(d.RangeId)
		s.admin(id, raftgroup.Admin{Range: id, Born: true, Campaign: ok && st.Role == raftgroup.Leader})
	}
}

// born returns the replica of a range that is being cut off another at this moment, when it is there; nil if there is none.
func (s *Store) born(id base.RangeID) *replica {
	s.births.Lock()
	defer s.births.Unlock()
	return s.replica(id)
}

// hull is the span of keys that a snapshot of a range replaces here: that of the snapshot, and what the replica holds now, which
// is more if the range was split since, and what the replicas hold that it takes the place of.
func (s *Store) hull(d *metapb.RangeDescriptor, remnants []*metapb.RangeDescriptor) (engine.Span, error) {
	start, end := d.Start, d.End
	held, err := apply.LoadDescriptor(s.eng, base.RangeID(d.RangeId))
	if err != nil {
		return engine.Span{}, err
	}
	if held != nil {
		remnants = append(remnants[:len(remnants):len(remnants)], held)
	}
	for _, r := range remnants {
		if mutant.Is(mutant.ExciseNewSpan) {
			break
		}
		if string(r.Start) < string(start) {
			start = r.Start
		}
		if len(end) > 0 && desc.EndAfter(r.End, end) {
			end = r.End
		}
	}
	return keys.DataSpan(base.KeyspaceID(d.KeyspaceId), start, end), nil
}
