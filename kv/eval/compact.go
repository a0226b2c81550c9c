package eval

import (
	"bytes"
	"encoding/binary"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/engine"
)

// Progress is how far a compaction's removal has come.
type Progress struct {
	Cursor  []byte // where the next step goes on; nil when Done
	Done    bool
	Seen    int // versions looked at in this step
	Dropped int // of them removed
}

// CompactStep removes versions from a span of data (keys.DataSpan) that no read at compacted or above can see: of each
// key it keeps what is newer than compacted, and the newest at or below it unless that is a tombstone. A tombstone of
// exactly that revision stays until the next compaction, because a watch may begin there.
//
// A step looks at about budget versions and says where the next one goes on; a nil cursor begins. Its writes must be
// visible to the reader of the next step. A key's tombstone goes with or after everything older than it, so that the
// removal can stop after any step, and begin again anywhere, and never bring a deleted key back.
func CompactStep(r engine.Reader, w engine.Writer, span engine.Span, compacted base.Revision, cursor []byte, budget int) (Progress, error) {
	if compacted < 1 {
		return Progress{Done: true}, nil // no version is that old, and below 0 nothing was compacted
	}
	c := compaction{w: w, compacted: compacted, budget: max(budget, 1)}
	it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		return Progress{}, err
	}
	c.it = it
	if cursor == nil {
		it.First()
	} else {
		it.SeekGE(cursor)
	}
	for err == nil && it.Valid() && c.done.Seen < c.budget {
		err = c.key()
	}
	if err == nil {
		err = it.Error()
	}
	if err == nil && it.Valid() {
		c.done.Cursor = bytes.Clone(it.Key())
	}
	if c.again != nil {
		c.done.Cursor = c.again
	}
	c.done.Done = c.done.Cursor == nil
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Progress{}, err
	}
	return c.done, nil
}

type compaction struct {
	it        engine.Iterator
	w         engine.Writer
	compacted base.Revision
	budget    int
	done      Progress
	again     []byte // the budget ended within this key

	first, seek []byte // scratch
}

// key goes through the versions of the key on which the iterator stands, and leaves it on the next key.
func (c *compaction) key() error {
	prefix, rev, err := splitVersion(c.it.Key())
	if err != nil {
		return err
	}
	c.done.Seen++
	c.seek = append(c.seek[:0], prefix...)
	prefix = c.seek[:len(prefix):len(prefix)]
	if rev > c.compacted {
		c.seek = binary.BigEndian.AppendUint64(c.seek, ^uint64(c.compacted))
		if !c.it.SeekGE(c.seek) || !c.within(prefix) {
			return nil
		}
		if _, rev, err = splitVersion(c.it.Key()); err != nil {
			return err
		}
		c.done.Seen++
	}
	// This is the newest at or below compacted. What is older goes first.
	c.first = append(c.first[:0], c.it.Key()...)
	value, err := c.it.Value()
	if err != nil {
		return err
	}
	goes := isTombstone(value) && rev < c.compacted || mutant.Is(mutant.CompactionTakesNewest)
	for c.it.Next() && c.within(prefix) {
		if c.done.Seen >= c.budget && c.done.Dropped > 0 { // a step that drops nothing would come here again
			c.again = bytes.Clone(c.first)
			return nil
		}
		if mutant.Is(mutant.CompactionRevives) && goes {
			continue
		}
		if err := c.drop(c.it.Key()); err != nil {
			return err
		}
		c.done.Seen++
	}
	if !goes || c.it.Error() != nil {
		return c.it.Error()
	}
	return c.drop(c.first)
}

func (c *compaction) drop(k []byte) error {
	c.done.Dropped++
	return c.w.Delete(k)
}

// within says whether the iterator stands on a version of the key with this prefix.
func (c *compaction) within(prefix []byte) bool {
	p, _, err := splitVersion(c.it.Key())
	return err == nil && bytes.Equal(p, prefix)
}
