package apply

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
)

// Spans are the engine keys that are replicated in a range, in order and without overlap: its own state, and the data
// of its keys. A snapshot of the range is exactly what they hold.
func Spans(d *metapb.RangeDescriptor) []engine.Span {
	return []engine.Span{
		keys.RangeLocalSpan(base.RangeID(d.GetRangeId())),
		keys.DataSpan(base.KeyspaceID(d.GetKeyspaceId()), d.GetStart(), d.GetEnd()),
	}
}

// Checksum is a hash over what the replicas of a range have in common: replicas that have applied the same index have
// the same one, whatever each of them has removed in the background. So a version that no read can ask for any more,
// because the range was compacted, does not count, be it still there or not. The reader must show one instant, with v
// the ReadView of it.
func Checksum(r engine.Reader, v *View) (uint64, error) {
	h := hasher{h: xxhash.New(), compacted: v.Counters.Compacted, limit: math.MaxInt64}
	for _, span := range Spans(v.Descriptor) {
		if err := h.span(r, span); err != nil {
			return 0, err
		}
	}
	return h.h.Sum64(), nil
}

type hasher struct {
	h         *xxhash.Digest
	compacted base.Revision
	limit     base.Revision // versions above it do not count
	prefix    []byte        // of the key whose versions are being walked, the newest first
	covered   bool          // a version of that key was met that hides older ones from every read
}

func (h *hasher) span(r engine.Reader, span engine.Span) (err error) {
	it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		if _, _, err := h.take(it, h.pair); err != nil {
			return err
		}
	}
	return it.Error()
}

// counts says whether a pair is one that every replica has, wherever its background removal stands (eval.CompactStep):
// of a key's versions up to the compacted revision only the newest, and not if it is a tombstone from before it. What
// is not a version of a key always counts.
func (h *hasher) counts(key, value []byte) (bool, error) {
	rev, ok := keys.DataRevision(key)
	if !ok {
		return true, nil
	}
	if prefix := key[:keys.Split(key)]; !bytes.Equal(prefix, h.prefix) {
		h.prefix, h.covered = append(h.prefix[:0], prefix...), false
	}
	if rev > h.compacted {
		return rev <= h.limit, nil
	}
	if h.covered {
		return false, nil
	}
	h.covered = true
	rec, err := eval.DecodeRecord(rev, value)
	if err != nil {
		return false, corruptState(key, err)
	}
	return !rec.Tombstone || rev == h.compacted, nil
}

// pair hashes a key and its value.
func (h *hasher) pair(key, value []byte) error {
	h.field(key)
	h.field(value)
	return nil
}

// field hashes the length before the bytes, so that no two sequences of fields are the same bytes.
func (h *hasher) field(b []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(b)))
	_, _ = h.h.Write(n[:]) // a Digest does not fail
	_, _ = h.h.Write(b)
}
