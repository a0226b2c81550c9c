package store

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/ristretto/v2"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/raftgroup"
)

// logStore reads raft logs from the engine, through a cache of entries. It implements raftgroup.LogStore; the
// writes of a log leave a loop as Append effects (append.go).
type logStore struct {
	eng   engine.Engine
	cache *entryCache
}

var _ raftgroup.LogStore = (*logStore)(nil)

// Load implements raftgroup.LogStore.
func (s *logStore) Load(id base.RangeID) (raftgroup.Loaded, error) {
	var l raftgroup.Loaded
	if tomb, err := s.getUint(keys.RaftTombstone(id)); err != nil {
		return l, err
	} else {
		l.Tombstone = base.ReplicaID(tomb)
	}
	replica, err := s.getUint(keys.RaftReplicaID(id))
	if err != nil || replica == 0 {
		return l, err
	}
	l.ReplicaID = base.ReplicaID(replica)
	l.HardState = &raftpb.HardState{}
	if _, err := getProto(s.eng, keys.RaftHardState(id), l.HardState); err != nil {
		return l, err
	}
	if l.Truncated, err = readTruncated(s.eng, id); err != nil {
		return l, err
	}
	if h := l.HardState; h.GetTerm() < l.Truncated.Term {
		// A range that was cut off another begins without one, or with one of before it was here: split.go.
		l.HardState = &raftpb.HardState{Term: new(l.Truncated.Term), Vote: new(uint64(0)), Commit: new(max(h.GetCommit(), l.Truncated.Index))}
	}
	if l.LastIndex, err = s.lastIndex(id, l.Truncated.Index); err != nil {
		return l, err
	}
	replicated, err := apply.Load(s.eng, id)
	if err != nil {
		return l, err
	}
	if replicated != nil {
		l.Applied = replicated.AppliedIndex()
		l.Descriptor = replicated.Descriptor()
	}
	return l, nil
}

// Descriptor implements raftgroup.LogStore.
func (s *logStore) Descriptor(id base.RangeID) (*metapb.RangeDescriptor, error) {
	return apply.LoadDescriptor(s.eng, id)
}

func (s *logStore) lastIndex(id base.RangeID, truncated uint64) (uint64, error) {
	span := keys.RaftLogSpan(id)
	it, err := s.eng.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	last := truncated
	if it.Last() {
		_, index, ok := keys.DecodeRaftLogEntry(it.Key())
		if !ok {
			return 0, &base.Corruption{Where: "raft log of " + id.String(), Cause: fmt.Errorf("key %s", keys.Pretty(it.Key()))}
		}
		last = max(last, index)
	}
	return last, it.Error()
}

// Entries implements raftgroup.LogStore.
func (s *logStore) Entries(id base.RangeID, lo, hi, maxBytes uint64, terms raftgroup.Terms) ([]*raftpb.Entry, error) {
	out := make([]*raftpb.Entry, 0, min(hi-lo, 1024))
	var bytes uint64
	for i := lo; i < hi; i++ {
		e := s.cache.get(id, i, terms.At(i))
		if e == nil {
			n := len(out)
			out, err := s.readEntries(id, i, hi, maxBytes, bytes, out)
			for _, e := range out[min(n, len(out)):] {
				s.cache.put(id, e) // another follower that was away will ask for it too
			}
			return out, err
		}
		if bytes += uint64(proto.Size(e)); bytes > maxBytes && len(out) > 0 {
			return out, nil
		}
		out = append(out, e)
	}
	return out, nil
}

// readEntries goes on from the first entry that the cache did not have, with bytes already in out.
func (s *logStore) readEntries(id base.RangeID, lo, hi, maxBytes, bytes uint64, out []*raftpb.Entry) ([]*raftpb.Entry, error) {
	it, err := s.eng.NewIter(engine.IterOptions{Lower: keys.RaftLogEntry(id, lo), Upper: keys.RaftLogEntry(id, hi)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	next := lo
	for ok := it.First(); ok; ok = it.Next() {
		e, size, err := decodeEntry(it, id, next)
		if err != nil {
			return nil, err
		}
		if bytes += uint64(size); bytes > maxBytes && len(out) > 0 {
			return out, nil
		}
		out = append(out, e)
		next++
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	if next != hi {
		return nil, &base.Corruption{Where: "raft log of " + id.String(), Cause: fmt.Errorf("entry %d is missing", next)}
	}
	return out, nil
}

func decodeEntry(it engine.Iterator, id base.RangeID, want uint64) (*raftpb.Entry, int, error) {
	value, err := it.Value()
	if err != nil {
		return nil, 0, err
	}
	e := &raftpb.Entry{}
	err = proto.Unmarshal(value, e)
	if err == nil && e.GetIndex() != want {
		err = fmt.Errorf("found entry %d where %d should be", e.GetIndex(), want)
	}
	if err != nil {
		return nil, 0, &base.Corruption{Where: "raft log of " + id.String(), Cause: err}
	}
	return e, len(value), nil
}

// Term implements raftgroup.LogStore.
func (s *logStore) Term(id base.RangeID, index uint64) (uint64, error) {
	es, err := s.readEntries(id, index, index+1, 1, 0, nil)
	if err != nil {
		return 0, err
	}
	return es[0].GetTerm(), nil
}

func (s *logStore) getUint(key []byte) (uint64, error) { return readUint(s.eng, key) }

// readUint reads a number that was written by uintBytes; 0 if there is none.
func readUint(r engine.Reader, key []byte) (uint64, error) {
	v, err := r.Get(key)
	if errors.Is(err, engine.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, rest, ok := cutUint(v)
	if !ok || len(rest) != 0 {
		return 0, &base.Corruption{Where: keys.Pretty(key), Cause: errors.New("not a number")}
	}
	return n, nil
}

func readTruncated(r engine.Reader, id base.RangeID) (raftgroup.TruncatedState, error) {
	key := keys.RaftTruncated(id)
	v, err := r.Get(key)
	if errors.Is(err, engine.ErrNotFound) {
		return raftgroup.TruncatedState{}, nil
	}
	if err != nil {
		return raftgroup.TruncatedState{}, err
	}
	index, rest, ok := cutUint(v)
	term, rest, ok2 := cutUint(rest)
	if !ok || !ok2 || len(rest) != 0 {
		return raftgroup.TruncatedState{}, &base.Corruption{Where: keys.Pretty(key), Cause: errors.New("not two numbers")}
	}
	return raftgroup.TruncatedState{Index: index, Term: term}, nil
}

// getProto reads a message; false if there is none.
func getProto(r engine.Reader, key []byte, m proto.Message) (bool, error) {
	v, err := r.Get(key)
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := proto.Unmarshal(v, m); err != nil {
		return false, &base.Corruption{Where: keys.Pretty(key), Cause: err}
	}
	return true, nil
}

// entryCache keeps raft entries that were read from the engine, by (range, term, index). A loop has the newest entries in
// memory itself; what is read is sent to followers that were away, often to several. What stands under such a key never
// changes, so nothing can be stale, and a Set that ristretto drops only costs a read. The key is a hash; the value says
// which entry it is.
type entryCache struct {
	c *ristretto.Cache[uint64, *cachedEntry]
}

type cachedEntry struct {
	id    base.RangeID
	entry *raftpb.Entry
}

func newEntryCache(bytes int64) (*entryCache, error) {
	c, err := ristretto.NewCache(&ristretto.Config[uint64, *cachedEntry]{
		NumCounters: bytes / 32, // ten times the entries of a common size, as ristretto advises
		MaxCost:     bytes,
		BufferItems: 64,
	})
	if err != nil {
		return nil, err
	}
	return &entryCache{c: c}, nil
}

func entryHash(id base.RangeID, index, term uint64) uint64 {
	return base.NewRand(uint64(id)<<48 ^ term<<32 ^ index).Uint64()
}

func (c *entryCache) put(id base.RangeID, e *raftpb.Entry) {
	c.c.Set(entryHash(id, e.GetIndex(), e.GetTerm()), &cachedEntry{id: id, entry: e}, int64(len(e.GetData()))+200)
}

// get returns the entry, nil if it is not in the cache.
func (c *entryCache) get(id base.RangeID, index, term uint64) *raftpb.Entry {
	x, ok := c.c.Get(entryHash(id, index, term))
	if !ok || x.id != id || x.entry.GetIndex() != index || x.entry.GetTerm() != term {
		return nil
	}
	return x.entry
}

func (c *entryCache) close() { c.c.Close() }
