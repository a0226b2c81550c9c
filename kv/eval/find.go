package eval

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// newest is above every revision.
const newest base.Revision = math.MaxInt64

// finder looks single keys up with one iterator, which is opened at the first look and kept: opening costs more than
// looking. If the reader is a batch that is written to, each write is told with wrote; the iterator does not see it,
// and is opened anew when a key is looked up that may have been written since.
type finder struct {
	r   engine.Reader
	it  engine.Iterator
	key []byte // scratch
	// written holds hashes of what was written since the iterator was opened. A collision costs a new iterator and
	// nothing else, so what the hash is does not matter to the result.
	written map[uint64]struct{}
}

// maxWritten bounds written: past it a new iterator is cheaper than the memory.
const maxWritten = 1 << 14

// find returns the newest version of a key at or below a revision, a tombstone or a value, and whether there is one.
// Record.Value is valid until the next call.
func (f *finder) find(ks base.KeyspaceID, key []byte, rev base.Revision) (Record, bool, error) {
	f.key = keys.Data(f.key[:0], ks, key, rev)
	if f.it != nil && len(f.written) > 0 {
		if _, hit := f.written[xxhash.Sum64(f.key[:len(f.key)-keys.RevisionLen])]; hit {
			if err := f.close(); err != nil {
				return Record{}, false, err
			}
		}
	}
	if f.it == nil {
		var err error
		if f.it, err = f.r.NewIter(engine.IterOptions{Lower: allData.Start, Upper: allData.End, Prefix: true}); err != nil {
			return Record{}, false, err
		}
	}
	if !f.it.SeekPrefixGE(f.key) {
		return Record{}, false, f.it.Error()
	}
	_, mod, err := splitVersion(f.it.Key())
	if err != nil {
		return Record{}, false, err
	}
	v, err := f.it.Value()
	if err != nil {
		return Record{}, false, err
	}
	rec, err := DecodeRecord(mod, v)
	if err != nil {
		return Record{}, false, corruptRecord(f.it.Key(), err)
	}
	return rec, true, nil
}

// findLive is find for those to whom a deleted key does not exist.
func (f *finder) findLive(ks base.KeyspaceID, key []byte, rev base.Revision) (Record, bool, error) {
	rec, ok, err := f.find(ks, key, rev)
	return rec, ok && !rec.Tombstone, err
}

// wrote says that a version of the key with this prefix was written to the reader.
func (f *finder) wrote(prefix []byte) error {
	switch {
	case f.it == nil:
		return nil
	case len(f.written) >= maxWritten:
		return f.close()
	case f.written == nil:
		f.written = map[uint64]struct{}{}
	}
	f.written[xxhash.Sum64(prefix)] = struct{}{}
	return nil
}

func (f *finder) close() error {
	clear(f.written)
	if f.it == nil {
		return nil
	}
	it := f.it
	f.it = nil
	return it.Close()
}

var errNotData = errors.New("this is not the key of a version")

// allData holds the data of every keyspace. It is never written to.
var allData = engine.Span{Start: keys.KeyspaceSpan(0).Start, End: keys.KeyspaceSpan(math.MaxUint64).End}

// scanner walks the keys of a span that are alive at a revision, in order.
type scanner struct {
	it    engine.Iterator
	rev   base.Revision
	seek  []byte // scratch
	begun bool

	// Where the scanner stands: the engine key and stored value of a version that is no tombstone. Valid until next.
	key, value []byte
	mod        base.Revision
	err        error
}

func newScanner(r engine.Reader, s engine.Span, rev base.Revision) (*scanner, error) {
	it, err := r.NewIter(engine.IterOptions{Lower: s.Start, Upper: s.End})
	if err != nil {
		return nil, err
	}
	return &scanner{it: it, rev: rev}, nil
}

// stepsBeforeSeek is how many versions newer than asked for are stepped over before a seek is the cheaper way.
const stepsBeforeSeek = 4

// next moves to the next key; at the end, or on an error, it returns false.
func (s *scanner) next() bool {
	var ok bool
	if s.begun {
		ok = s.it.NextPrefix()
	} else {
		s.begun, ok = true, s.it.First()
	}
	for newer := 0; ok; {
		k := s.it.Key()
		var prefix []byte
		if prefix, s.mod, s.err = splitVersion(k); s.err != nil {
			return false
		}
		if s.mod > s.rev {
			if newer++; newer <= stepsBeforeSeek {
				ok = s.it.Next()
				continue
			}
			s.seek = binary.BigEndian.AppendUint64(append(s.seek[:0], prefix...), ^uint64(s.rev))
			ok = s.it.SeekGE(s.seek)
			continue
		}
		if s.value, s.err = s.it.Value(); s.err != nil {
			return false
		}
		if !isTombstone(s.value) {
			s.key = k
			return true
		}
		newer, ok = 0, s.it.NextPrefix()
	}
	s.err = s.it.Error()
	return false
}

// record decodes the version on which the scanner stands. Record.Value is valid until next.
func (s *scanner) record() (Record, error) {
	rec, err := DecodeRecord(s.mod, s.value)
	if err != nil {
		return Record{}, corruptRecord(s.key, err)
	}
	return rec, nil
}

// userKey appends the user's key on which the scanner stands.
func (s *scanner) userKey(dst []byte) ([]byte, error) {
	_, key, _, ok := keys.DecodeData(dst, s.key)
	if !ok {
		return nil, corruptRecord(s.key, errNotData)
	}
	return key, nil
}

// close ends the walk and returns its first error.
func (s *scanner) close() error {
	err := s.it.Close()
	if s.err != nil {
		return s.err
	}
	return err
}
