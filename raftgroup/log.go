package raftgroup

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/invariants"
	"github.com/cairndb/cairn/internal/mutant"
)

// logView is a group's log as Raft sees it (raft.Storage): bounds and terms in memory, entries in the LogStore. It moves
// when an Append effect is made, because the driver has the batch readable before the next step.
type logView struct {
	store     LogStore
	id        base.RangeID
	truncated TruncatedState
	last      uint64
	terms     Terms
	hard      *raftpb.HardState // the newest; of a new term or vote it was handed out to be written
	desc      *metapb.RangeDescriptor
	applied   uint64

	recent recent

	bytes uint64    // of the entries that were appended since the replica was started, less those truncated
	marks []logMark // where the bytes lie, roughly
}

// logMark says that the entries after the previous mark up to index hold bytes.
type logMark struct{ index, bytes uint64 }

var _ raft.Storage = (*logView)(nil)

// markBytes is how much of the log one mark stands for at least: truncation by bytes is that coarse.
const markBytes = 64 << 10

// InitialState implements raft.Storage.
func (l *logView) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	cs := ConfState(l.desc)
	if mutant.Is(mutant.JointForgotten) {
		cs.VotersOutgoing = nil
	}
	return l.hard, cs, nil
}

// Entries implements raft.Storage.
func (l *logView) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	if lo <= l.truncated.Index {
		return nil, raft.ErrCompacted
	}
	if hi > l.last+1 {
		return nil, raft.ErrUnavailable
	}
	if held := l.recent.slice(lo, hi, maxSize); held != nil {
		return append([]*raftpb.Entry(nil), held...), nil // Raft may keep it, and the buffer below moves on
	}
	return l.store.Entries(l.id, lo, hi, maxSize, l.terms)
}

// Term implements raft.Storage.
func (l *logView) Term(i uint64) (uint64, error) {
	switch {
	case i == l.truncated.Index:
		return l.truncated.Term, nil
	case i < l.truncated.Index:
		return 0, raft.ErrCompacted
	case i > l.last:
		return 0, raft.ErrUnavailable
	}
	return l.terms.At(i), nil
}

// LastIndex implements raft.Storage.
func (l *logView) LastIndex() (uint64, error) { return l.last, nil }

// FirstIndex implements raft.Storage.
func (l *logView) FirstIndex() (uint64, error) { return l.truncated.Index + 1, nil }

// Snapshot implements raft.Storage: a token that names the present state. The driver takes the real one.
func (l *logView) Snapshot() (*raftpb.Snapshot, error) {
	if l.desc == nil || l.applied < l.truncated.Index {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	term, err := l.Term(l.applied)
	if err != nil {
		return nil, err
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		ConfState: ConfState(l.desc), Index: new(l.applied), Term: new(term),
	}}, nil
}

// append takes entries in, and returns the last index that the log had before.
func (l *logView) append(entries []*raftpb.Entry) (oldLast uint64) {
	oldLast = l.last
	first := entries[0].GetIndex()
	invariants.Check(first > l.truncated.Index && first <= l.last+1,
		"%s: append at %d to a log of %d..%d", l.id, first, l.truncated.Index+1, l.last)
	for len(l.marks) > 0 && l.marks[len(l.marks)-1].index >= first {
		l.bytes -= l.marks[len(l.marks)-1].bytes
		l.marks = l.marks[:len(l.marks)-1]
	}
	for _, e := range entries {
		l.terms.append(e.GetIndex(), e.GetTerm())
		size := uint64(len(e.GetData())) + entryOverhead
		l.bytes += size
		if n := len(l.marks); n > 0 && l.marks[n-1].bytes < markBytes {
			l.marks[n-1].bytes += size
			l.marks[n-1].index = e.GetIndex()
		} else {
			l.marks = append(l.marks, logMark{e.GetIndex(), size})
		}
	}
	l.last = entries[len(entries)-1].GetIndex()
	l.recent.append(entries)
	return oldLast
}

// entryOverhead is about what an entry takes beside its data: key, index, term.
const entryOverhead = 40

// truncate drops the log up to and with index.
func (l *logView) truncate(index uint64) TruncatedState {
	term, err := l.Term(index)
	invariants.Check(err == nil && index <= l.applied, "%s: truncation at %d, applied %d: %v", l.id, index, l.applied, err)
	l.truncated = TruncatedState{index, term}
	l.terms.truncate(index)
	i := 0
	for ; i < len(l.marks) && l.marks[i].index <= index; i++ {
		l.bytes -= l.marks[i].bytes
	}
	l.marks = append(l.marks[:0:0], l.marks[i:]...)
	return l.truncated
}

// reset makes the log empty behind an installed snapshot.
func (l *logView) reset(m *raftpb.SnapshotMetadata) {
	l.truncated = TruncatedState{m.GetIndex(), m.GetTerm()}
	l.last = m.GetIndex()
	l.terms, l.marks, l.bytes = Terms{}, nil, 0
	l.recent.reset()
}

// dropTo returns up to where the log may be truncated so that at most the given entries and bytes that are applied
// stay; 0 if it is too early.
func (l *logView) dropTo(keepEntries, keepBytes uint64) uint64 {
	kept := l.applied - min(l.applied, l.truncated.Index)
	to := uint64(0)
	// A quarter more than is to be kept, so that truncations are few.
	if kept > keepEntries+keepEntries/4 {
		to = l.applied - keepEntries
	}
	if l.bytes > keepBytes+keepBytes/4 {
		over := l.bytes - keepBytes
		for _, m := range l.marks {
			if m.bytes > over {
				break
			}
			over -= m.bytes
			to = max(to, min(m.index, l.applied))
		}
	}
	if to <= l.truncated.Index {
		return 0
	}
	return to
}
