package engine

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// Get implements Reader.
func (p *Pebble) Get(key []byte) ([]byte, error) { return p.get(p.db, key) }

func (p *Pebble) get(r pebble.Reader, key []byte) ([]byte, error) {
	if err := p.life.enter(); err != nil {
		return nil, err
	}
	defer p.life.leave()
	v, closer, err := r.Get(key)
	if err != nil {
		return nil, wrap("store", err)
	}
	out := append([]byte{}, v...)
	return out, wrap("store", closer.Close())
}

// NewIter implements Reader.
func (p *Pebble) NewIter(o IterOptions) (Iterator, error) { return p.newIter(p.db, o) }

func (p *Pebble) newIter(r pebble.Reader, o IterOptions) (Iterator, error) {
	if err := p.life.enter(); err != nil {
		return nil, err
	}
	defer p.life.leave()
	it := &pebbleIter{
		p: p, opts: pebble.IterOptions{LowerBound: o.Lower, UpperBound: o.Upper, UseL6Filters: o.Prefix},
	}
	if o.MinRevision > 0 || o.BelowRevision != nil {
		it.opts.PointKeyFilters = []pebble.BlockPropertyFilter{newRevisionFilter(o.MinRevision, o.BelowRevision)}
	}
	var err error
	if it.Iterator, err = r.NewIter(&it.opts); err != nil {
		return nil, wrap("store", err)
	}
	p.life.views.Add(1)
	return it, nil
}

// pebbleIter is one allocation with its options. It is not pooled, as what it holds is: closing it twice does nothing.
type pebbleIter struct {
	*pebble.Iterator // nil once closed
	p                *Pebble
	opts             pebble.IterOptions
}

// Value implements Iterator.
func (it *pebbleIter) Value() ([]byte, error) {
	v, err := it.ValueAndErr()
	return v, wrap("store", err)
}

// Error implements Iterator.
func (it *pebbleIter) Error() error { return wrap("store", it.Iterator.Error()) }

// Close implements Iterator.
func (it *pebbleIter) Close() error {
	if it.Iterator == nil {
		return nil
	}
	err := it.Iterator.Close()
	it.Iterator = nil
	it.p.life.views.Add(-1)
	return wrap("store", err)
}

// NewSnapshot implements Engine. Pebble's plain snapshots lose what an ingestion excises: these keep it, because an
// excision of the span that they protect, which is everything, first makes them hold on to the tables that there are.
func (p *Pebble) NewSnapshot() Snapshot {
	if p.life.enter() != nil {
		return &pebbleSnapshot{p: p}
	}
	defer p.life.leave()
	p.excising.RLock()
	defer p.excising.RUnlock()
	p.life.views.Add(1)
	return &pebbleSnapshot{p: p, s: p.db.NewEventuallyFileOnlySnapshot([]pebble.KeyRange{{Start: []byte{0}, End: []byte{0xFF}}})}
}

type pebbleSnapshot struct {
	p *Pebble
	s *pebble.EventuallyFileOnlySnapshot // nil once closed, and if the engine was
}

func (s *pebbleSnapshot) Get(key []byte) ([]byte, error) {
	if s.s == nil {
		return nil, ErrClosed
	}
	return s.p.get(s.s, key)
}

func (s *pebbleSnapshot) NewIter(o IterOptions) (Iterator, error) {
	if s.s == nil {
		return nil, ErrClosed
	}
	return s.p.newIter(s.s, o)
}

func (s *pebbleSnapshot) Close() error {
	if s.s == nil {
		return nil
	}
	err := s.s.Close()
	s.s = nil
	s.p.life.views.Add(-1)
	return wrap("store", err)
}

// NewBatch implements Engine.
func (p *Pebble) NewBatch() Batch { return &pebbleBatch{p: p, b: p.db.NewBatch()} }

// NewIndexedBatch implements Engine.
func (p *Pebble) NewIndexedBatch() Batch {
	return &pebbleBatch{p: p, b: p.db.NewIndexedBatch(), indexed: true}
}

type pebbleBatch struct {
	p       *Pebble
	b       *pebble.Batch // nil once closed; then it goes back to Pebble's pool
	indexed bool
}

func (b *pebbleBatch) Get(key []byte) ([]byte, error)          { return b.p.get(b.reader(), key) }
func (b *pebbleBatch) NewIter(o IterOptions) (Iterator, error) { return b.p.newIter(b.reader(), o) }
func (b *pebbleBatch) Set(key, value []byte) error             { return b.b.Set(key, value, nil) }
func (b *pebbleBatch) Delete(key []byte) error                 { return b.b.Delete(key, nil) }
func (b *pebbleBatch) DeleteRange(start, end []byte) error     { return b.b.DeleteRange(start, end, nil) }
func (b *pebbleBatch) Len() int                                { return b.b.Len() }
func (b *pebbleBatch) Empty() bool                             { return b.b.Empty() }

func (b *pebbleBatch) reader() pebble.Reader {
	if !b.indexed {
		panic("engine: a batch that is not indexed cannot be read")
	}
	return b.b
}

// CommitNoSync implements Batch.
func (b *pebbleBatch) CommitNoSync() error {
	if err := b.p.life.enter(); err != nil {
		return err
	}
	defer b.p.life.leave()
	return wrap("store", b.b.Commit(pebble.NoSync))
}

// CommitSync implements Batch.
func (b *pebbleBatch) CommitSync() (func() error, error) {
	if err := b.p.life.enter(); err != nil {
		return nil, err
	}
	defer b.p.life.leave()
	if b.b.Empty() {
		// Something before it may still be on its way: an empty log record is synced behind it.
		if err := b.b.LogData(nil, nil); err != nil {
			return nil, err
		}
	}
	if err := b.p.db.ApplyNoSyncWait(b.b, pebble.Sync); err != nil {
		return nil, wrap("store", err)
	}
	return b.wait, nil
}

// wait ends when the batch is durable. If the sync failed, nobody knows what of the log is on the disk.
func (b *pebbleBatch) wait() error {
	err := b.b.SyncWait()
	if err != nil {
		b.p.fail(err)
	}
	return wrap("store", errors.Join(err, b.Close()))
}

// Close implements Batch.
func (b *pebbleBatch) Close() error {
	if b.b == nil {
		return nil
	}
	err := b.b.Close()
	b.b = nil
	return err
}
