package store

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// Size is about how many bytes of disk a range's data takes here. What is in memory yet does not count.
func (s *Store) Size(d *metapb.RangeDescriptor) (int64, error) {
	n, err := s.eng.Size(keys.DataSpan(base.KeyspaceID(d.KeyspaceId), d.Start, d.End))
	return int64(n), err
}

// Smaller says whether what is stored here of a span of keys is less than so many bytes. It reads that much at the most; what is
// deleted and still on disk does not count.
func (s *Store) Smaller(ctx context.Context, d *metapb.RangeDescriptor, limit int64) (bool, error) {
	span := keys.DataSpan(base.KeyspaceID(d.KeyspaceId), d.Start, d.End)
	it, err := s.eng.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return false, err
	}
	defer it.Close()
	total, looked := int64(0), int64(0)
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.Value()
		if err != nil {
			return false, err
		}
		if total += int64(len(it.Key()) + len(value)); total >= limit {
			return false, nil
		}
		if total-looked >= sampleBytes {
			if looked = total; ctx.Err() != nil {
				return false, ctx.Err()
			}
		}
	}
	return true, it.Error()
}

// sampleBytes is how far apart the keys are that Middle keeps on its way, and how often it looks whether it is to stop.
const sampleBytes = 64 << 10

var errNoKey = errors.New("it is no key of a keyspace")

// Middle is a key of the range that has about as many bytes before it as behind it; nil if no key but the first can be one. It
// reads the whole range.
func (s *Store) Middle(ctx context.Context, d *metapb.RangeDescriptor) ([]byte, error) {
	ks := base.KeyspaceID(d.KeyspaceId)
	span := keys.DataSpan(ks, d.Start, d.End)
	snap := s.eng.NewSnapshot()
	defer snap.Close()
	it, err := snap.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	type sample struct {
		key  []byte // of the engine
		upTo int
	}
	var samples []sample
	var last []byte
	total := 0
	for ok := it.First(); ok; ok = it.Next() {
		prefix := it.Key()[:keys.Split(it.Key())]
		if !bytes.Equal(prefix, last) {
			if len(samples) == 0 || total-samples[len(samples)-1].upTo >= sampleBytes {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				samples = append(samples, sample{slices.Clone(it.Key()), total})
			}
			last = append(last[:0], prefix...)
		}
		value, err := it.Value()
		if err != nil {
			return nil, err
		}
		total += len(it.Key()) + len(value)
	}
	if err := it.Error(); err != nil || len(samples) < 2 {
		return nil, err
	}
	at := 1
	for at < len(samples)-1 && samples[at].upTo < total/2 {
		at++
	}
	_, key, _, ok := keys.DecodeData(nil, samples[at].key)
	if !ok {
		return nil, &base.Corruption{Where: keys.Pretty(samples[at].key), Cause: errNoKey}
	}
	return key, nil
}
