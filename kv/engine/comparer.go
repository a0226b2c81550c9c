package engine

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/keys"
)

// comparer orders keys by their bytes, as kv/keys is built for, and splits off the revision of replicated data. Its
// name is stored with every table: it must never come to mean another order.
var comparer = func() *pebble.Comparer {
	c := *pebble.DefaultComparer
	c.Name = "cairn.keys.v1"
	c.Split = keys.Split
	c.ComparePointSuffixes, c.CompareRangeSuffixes = bytes.Compare, bytes.Compare
	c.ImmediateSuccessor = immediateSuccessor
	c.FormatKey = func(k []byte) fmt.Formatter { return prettyKey(k) }
	return &c
}()

// immediateSuccessor appends the smallest prefix after the prefix a. A terminated prefix is followed by nothing that
// begins with it and is a prefix itself; any other is followed by itself and a zero byte.
func immediateSuccessor(dst, a []byte) []byte {
	dst = append(dst, a...)
	if keys.EndsAtPrefix(a) {
		dst[len(dst)-1]++
		return dst
	}
	return append(dst, 0x00)
}

type prettyKey []byte

// Format implements fmt.Formatter.
func (k prettyKey) Format(s fmt.State, _ rune) { _, _ = fmt.Fprint(s, keys.Pretty(k)) }

// revisionProperty names the block property that holds the interval of revisions in a block.
const revisionProperty = "cairn.revision"

// revisionMapper maps versions of replicated data to their revision, and everything else to every revision: a filter
// must never leave out what has none.
type revisionMapper struct{}

// MapPointKey implements sstable.IntervalMapper.
func (revisionMapper) MapPointKey(key sstable.InternalKey, _ []byte) (sstable.BlockInterval, error) {
	if rev, ok := keys.DataRevision(key.UserKey); ok {
		return sstable.BlockInterval{Lower: uint64(rev), Upper: uint64(rev) + 1}, nil
	}
	return sstable.BlockInterval{Lower: 0, Upper: 1<<64 - 1}, nil
}

// MapRangeKeys implements sstable.IntervalMapper: there are none.
func (revisionMapper) MapRangeKeys(sstable.Span) (sstable.BlockInterval, error) {
	return sstable.BlockInterval{}, nil
}

func newRevisionCollector() pebble.BlockPropertyCollector {
	return sstable.NewBlockIntervalCollector(revisionProperty, revisionMapper{}, nil)
}

// revisionFilter lets blocks pass with revisions in [least, *below). It is one iterator's, which asks it on the goroutine that moves
// it. That it comes to let less pass does no harm: what it let pass before is only more than is wanted now.
type revisionFilter struct {
	sstable.BlockIntervalFilter
	least uint64
	below *base.Revision
}

func newRevisionFilter(least base.Revision, below *base.Revision) pebble.BlockPropertyFilter {
	f := &revisionFilter{least: uint64(max(0, least)), below: below}
	f.Init(revisionProperty, f.least, 1<<64-1, nil)
	return f
}

// Intersects implements pebble.BlockPropertyFilter.
func (f *revisionFilter) Intersects(prop []byte) (bool, error) {
	if f.below != nil {
		f.SetInterval(f.least, uint64(max(0, *f.below)))
	}
	return f.BlockIntervalFilter.Intersects(prop)
}
