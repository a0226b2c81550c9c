package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// recent is the end of a log in memory: what is not applied yet, and a little of what is, for followers that are a
// moment behind. Entries come from here on their way from append to apply; the LogStore is read for what is older, after
// a restart or for a follower that was away. It holds consecutive entries up to the log's last.
type recent struct {
	entries []*raftpb.Entry
	bytes   int // of their data
}

// append takes what was appended: what the log held from entries[0] on is gone.
func (r *recent) append(entries []*raftpb.Entry) {
	first := entries[0].GetIndex()
	if n := len(r.entries); n > 0 {
		switch start := r.entries[0].GetIndex(); {
		case first <= start || first > start+uint64(n):
			r.reset()
		case mutant.Is(mutant.RecentKeepsSuffix) && first < start+uint64(n):
			return
		default:
			r.cut(int(first - start))
		}
	}
	r.entries = append(r.entries, entries...)
	for _, e := range entries {
		r.bytes += len(e.GetData())
	}
}

// cut keeps the first n entries.
func (r *recent) cut(n int) {
	for _, e := range r.entries[n:] {
		r.bytes -= len(e.GetData())
	}
	clear(r.entries[n:])
	r.entries = r.entries[:n]
}

func (r *recent) reset() { *r = recent{} }

// shrink drops the oldest applied entries beyond the bound.
func (r *recent) shrink(applied uint64) {
	n := 0
	for ; n < len(r.entries) && r.bytes > base.RecentEntriesBytes && r.entries[n].GetIndex() <= applied; n++ {
		r.bytes -= len(r.entries[n].GetData())
		r.entries[n] = nil
	}
	r.entries = r.entries[n:]
}

// slice returns entries [lo, hi), cut like LogStore.Entries, or nil if it does not hold them all.
func (r *recent) slice(lo, hi, maxBytes uint64) []*raftpb.Entry {
	if len(r.entries) == 0 || lo < r.entries[0].GetIndex() || hi > r.entries[0].GetIndex()+uint64(len(r.entries)) || lo >= hi {
		return nil
	}
	from := lo - r.entries[0].GetIndex()
	held := r.entries[from : from+hi-lo : from+hi-lo]
	var size uint64
	for i, e := range held {
		if size += uint64(proto.Size(e)); size > maxBytes && i > 0 {
			return held[:i:i]
		}
	}
	return held
}
