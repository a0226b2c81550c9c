package apply

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// A range's versions up to a revision, above a compaction's mark, never change again, and are the same on every replica that has
// applied so far. So replicas can be compared while they are written to, each in its own time, page by page, without having
// applied the same index: a hash of these is what HashVersions makes.

// Position is the place of a version: keys in order, each with its newest version first.
type Position struct {
	Key      []byte
	Revision base.Revision
}

// Page says which versions are to be hashed: those in (After, Until] that a read at Revision may need, in a range that is
// compacted at Compacted.
type Page struct {
	Revision, Compacted base.Revision
	After, Until        *Position // nil: from the first, to the last
	State               []byte    // of the page that this one goes on from; empty: a new sum begins
	Bytes               int       // about how many are looked at
}

// Hashed is the sum so far.
type Hashed struct {
	Sum     uint64
	State   []byte
	End     bool     // nothing of what was asked for is left
	Reached Position // unless it is the end
	// What went into the sum on this page.
	Versions, Bytes int
}

// HashVersions hashes a page of the range d. Before each part that is read, pace is told how large about; an error of it ends
// the page. The reader must show one instant, at which the range has applied Revision and is compacted at most at Compacted.
func HashVersions(r engine.Reader, d *metapb.RangeDescriptor, p Page, pace func(bytes int) error) (out Hashed, err error) {
	h := hasher{h: xxhash.New(), compacted: p.Compacted, limit: p.Revision}
	if len(p.State) > 0 {
		if err := h.h.UnmarshalBinary(p.State); err != nil {
			return out, fmt.Errorf("%w: %w", ErrState, err)
		}
	}
	out, err = h.page(r, d, &p, pace, h.pair)
	if err != nil {
		return out, err
	}
	out.Sum = h.h.Sum64()
	out.State, err = h.h.MarshalBinary()
	return out, err
}

// page gives those versions of a page that count to do, and says how far it came.
func (h *hasher) page(r engine.Reader, d *metapb.RangeDescriptor, p *Page, pace func(bytes int) error, do func(key, value []byte) error) (out Hashed, err error) {
	ks := base.KeyspaceID(d.KeyspaceId)
	span := keys.DataSpan(ks, d.Start, d.End)
	it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return out, err
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	var until []byte
	if p.Until != nil {
		until = keys.Data(nil, ks, p.Until.Key, p.Until.Revision)
	}
	ok := h.seek(it, ks, p.After)
	out.End = true
	var last []byte
	for looked, paced := 0, 0; ok; ok = it.Next() {
		if until != nil && bytes.Compare(it.Key(), until) > 0 {
			break
		}
		if looked >= p.Bytes {
			out.End = false
			break
		}
		if looked >= paced {
			if err := pace(pacePart); err != nil {
				return out, err
			}
			paced = looked + pacePart
		}
		n, took, err := h.take(it, do)
		if err != nil {
			return out, err
		}
		looked += n
		if took {
			out.Versions, out.Bytes = out.Versions+1, out.Bytes+n
		}
		last = append(last[:0], it.Key()...)
	}
	if err := it.Error(); err != nil {
		return out, err
	}
	if !out.End {
		_, key, rev, ok := keys.DecodeData(nil, last)
		if !ok {
			return out, &base.Corruption{Where: keys.Pretty(last), Cause: errNoVersion}
		}
		out.Reached = Position{key, rev}
	}
	return out, nil
}

// ErrState: a page goes on from what is not the state of a sum.
var ErrState = errors.New("a page cannot go on from this")

var errNoVersion = errors.New("it is no version of a key")

// pacePart is how much is read at once: a few blocks of a table.
const pacePart = 64 << 10

// seek goes to the first version behind a position, and knows what was met before it.
func (h *hasher) seek(it engine.Iterator, ks base.KeyspaceID, after *Position) bool {
	if after == nil {
		return it.First()
	}
	at := keys.Data(nil, ks, after.Key, after.Revision)
	h.prefix, h.covered = append(h.prefix, at[:keys.Split(at)]...), after.Revision <= h.compacted
	ok := it.SeekGE(at)
	if ok && bytes.Equal(it.Key(), at) {
		return it.Next()
	}
	return ok
}

// take gives the pair that the iterator is at to do, if it counts, and says how large it is.
func (h *hasher) take(it engine.Iterator, do func(key, value []byte) error) (bytes int, took bool, err error) {
	v, err := it.Value()
	if err != nil {
		return 0, false, err
	}
	counts, err := h.counts(it.Key(), v)
	if counts && err == nil {
		err = do(it.Key(), v)
	}
	return len(it.Key()) + len(v), counts, err
}
