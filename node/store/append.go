package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/raftgroup"
)

// appender turns a pass's Append effects into one batch: HardState, entries, the deletion of a truncated suffix and
// the replica id of all ranges become durable together.
type appender struct {
	eng  engine.Engine
	hard map[base.RangeID]termVote // the last HardState written, to tell a new term or vote from a new commit
	buf  []byte
}

type termVote struct{ term, vote uint64 }

// write puts the appends into b, and says whether anything in them must be synced before it is spoken of. A commit
// index alone need not be: it can be learned again.
func (a *appender) write(b engine.Writer, appends []raftgroup.Append) (mustSync bool, err error) {
	for i := range appends {
		s, err := a.writeOne(b, &appends[i])
		if err != nil {
			return false, err
		}
		mustSync = mustSync || s
	}
	return mustSync, nil
}

func (a *appender) writeOne(b engine.Writer, ap *raftgroup.Append) (mustSync bool, err error) {
	if ap.Destroy != 0 {
		return true, a.destroy(b, ap)
	}
	if ap.ReplicaID != 0 {
		if err := b.Set(keys.RaftReplicaID(ap.Range), uintBytes(nil, uint64(ap.ReplicaID))); err != nil {
			return false, err
		}
		mustSync = true
	}
	if ap.HardState != nil {
		w := b
		if mutant.Is(mutant.HardStateFirst) && a.eng != nil {
			own := a.eng.NewBatch()
			defer func() { err = errors.Join(err, own.CommitNoSync(), own.Close()) }()
			w = own
		}
		if err := a.setProto(w, keys.RaftHardState(ap.Range), ap.HardState); err != nil {
			return false, err
		}
		tv := termVote{ap.HardState.GetTerm(), ap.HardState.GetVote()}
		old, known := a.hard[ap.Range]
		if mutant.Is(mutant.VoteUnsynced) {
			old.vote = tv.vote
		}
		if !known || old != tv {
			a.hard[ap.Range], mustSync = tv, true
		}
	}
	if n := len(ap.Entries); n > 0 {
		mustSync = true
		if err := a.appendEntries(b, ap); err != nil {
			return false, err
		}
	}
	if t := ap.Truncate; t != nil {
		if mutant.Is(mutant.LostTruncatedState) && a.eng != nil {
			return mustSync, b.DeleteRange(keys.RaftLogSpan(ap.Range).Start, keys.RaftLogEntry(ap.Range, t.Index+1))
		}
		if err := b.Set(keys.RaftTruncated(ap.Range), uintBytes(uintBytes(nil, t.Index), t.Term)); err != nil {
			return false, err
		}
		if err := b.DeleteRange(keys.RaftLogSpan(ap.Range).Start, keys.RaftLogEntry(ap.Range, t.Index+1)); err != nil {
			return false, err
		}
	}
	return mustSync, nil
}

func (a *appender) appendEntries(b engine.Writer, ap *raftgroup.Append) error {
	for _, e := range ap.Entries {
		if err := a.setProto(b, keys.RaftLogEntry(ap.Range, e.GetIndex()), e); err != nil {
			return err
		}
	}
	last := ap.Entries[len(ap.Entries)-1].GetIndex()
	if ap.OldLast > last && !mutant.Is(mutant.ResurrectedSuffix) {
		return b.DeleteRange(keys.RaftLogEntry(ap.Range, last+1), keys.RaftLogEntry(ap.Range, ap.OldLast+1))
	}
	return nil
}

// destroy deletes all that the store holds of a replica and leaves its tombstone, as one.
func (a *appender) destroy(b engine.Writer, ap *raftgroup.Append) error {
	delete(a.hard, ap.Range)
	span := keys.UnreplicatedSpan(ap.Range)
	if err := b.DeleteRange(span.Start, span.End); err != nil {
		return err
	}
	if err := b.Delete(keys.RaftReplicaID(ap.Range)); err != nil {
		return err
	}
	// What the engine holds, not what the loop last heard of: a split may have been applied since, and the keys be another's.
	held, err := apply.LoadDescriptor(a.eng, ap.Range)
	if err != nil {
		return err
	}
	if mutant.Is(mutant.DestroyOldSpan) {
		held = ap.Descriptor
	}
	spans := []keys.Span{keys.RangeLocalSpan(ap.Range)} // of a range that was taken over, or never had a snapshot, all that there can be
	if held != nil {
		spans = apply.Spans(held)
	}
	for _, s := range spans {
		if mutant.Is(mutant.DestroyLeavesState) {
			break
		}
		if err := b.DeleteRange(s.Start, s.End); err != nil {
			return err
		}
	}
	return b.Set(keys.RaftTombstone(ap.Range), uintBytes(nil, uint64(ap.Destroy)))
}

func (a *appender) setProto(b engine.Writer, key []byte, m proto.Message) error {
	var err error
	if a.buf, err = (proto.MarshalOptions{}).MarshalAppend(a.buf[:0], m); err != nil {
		return fmt.Errorf("%s: %w", keys.Pretty(key), err)
	}
	return b.Set(key, a.buf)
}

// writeReplica writes the raft state of a replica that begins at (index, term) with nothing in its log: at bootstrap.
func writeReplica(b engine.Writer, id base.RangeID, replica base.ReplicaID, index, term uint64) error {
	hs := &raftpb.HardState{Term: new(term), Vote: new(uint64), Commit: new(index)}
	a := appender{hard: map[base.RangeID]termVote{}}
	_, err := a.writeOne(b, &raftgroup.Append{
		Range: id, ReplicaID: replica, HardState: hs, Truncate: &raftgroup.TruncatedState{Index: index, Term: term},
	})
	return err
}

// uintBytes appends v as eight bytes, the highest first.
func uintBytes(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

func cutUint(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) < 8 {
		return 0, b, false
	}
	return binary.BigEndian.Uint64(b), b[8:], true
}

// installed remembers the HardState that an installed snapshot brought.
func (a *appender) installed(ap *raftgroup.Append) {
	if ap.HardState != nil {
		a.hard[ap.Range] = termVote{ap.HardState.GetTerm(), ap.HardState.GetVote()}
	}
}
