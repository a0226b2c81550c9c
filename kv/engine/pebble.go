package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/internal/base"
)

// ErrClosed answers every use of an engine that was closed, or that stopped after a fatal error.
var ErrClosed = errors.New("the store is closed")

// PebbleConfig is what a Pebble engine is opened with.
type PebbleConfig struct {
	Dir        string
	FS         vfs.FS // default: the disk
	CacheBytes int64  // of the block cache
	Logger     *slog.Logger
	// OnFatal is told of an error of the disk or of stored data in the background. The engine then never returns from
	// the write that met it, and serves nothing more.
	OnFatal func(error)
}

// EnsureDefaults fills what was left empty.
func (c *PebbleConfig) EnsureDefaults() {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = base.BlockCacheBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnFatal == nil {
		c.OnFatal = func(err error) { panic(err) }
	}
}

// Validate returns every problem at once.
func (c *PebbleConfig) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no directory"))
	}
	if c.CacheBytes < 0 {
		errs = append(errs, errors.New("a cache cannot have a negative size"))
	}
	return errors.Join(errs...)
}

// Pebble is an Engine on disk. Its methods may be called from any goroutine.
type Pebble struct {
	cfg   PebbleConfig
	db    *pebble.DB
	cache *pebble.Cache
	lock  *pebble.Lock
	syncs atomic.Uint64
	dead  atomic.Bool // closed, or stopped by a fatal error
	fatal atomic.Bool
}

var _ Engine = (*Pebble)(nil)

// memtableBytes: with two memtables and the cache this bounds what the engine holds of the node's 120 MB. Smaller ones
// would write tables too small for the levels below.
const memtableBytes = 8 << 20

// Blocks are small, because most reads are of one key and a block is read and unpacked whole; index blocks are large, so
// that a table's index has one level up to about 250 MB.
const (
	blockBytes      = 8 << 10
	indexBlockBytes = 256 << 10
)

// OpenPebble opens the store in a directory, or makes one. It fails if another process has it open.
func OpenPebble(cfg PebbleConfig) (*Pebble, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Pebble{cfg: cfg}
	if err := cfg.FS.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(cfg.Dir, cfg.FS)
	if err != nil {
		return nil, fmt.Errorf("the store is in use by another process (%w)", err)
	}
	p.cache = pebble.NewCache(cfg.CacheBytes)
	opts := p.options()
	opts.Lock, p.lock = lock, lock
	if p.db, err = pebble.Open(cfg.Dir, opts); err != nil {
		p.cache.Unref()
		return nil, errors.Join(openError(cfg.Dir, err), lock.Close())
	}
	if err := errors.Join(cfg.FS.RemoveAll(p.StagingDir()), cfg.FS.MkdirAll(p.StagingDir(), 0o755)); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Pebble) options() *pebble.Options {
	opts := &pebble.Options{
		FS:                      &countingFS{FS: p.cfg.FS, syncs: &p.syncs},
		Comparer:                comparer,
		Cache:                   p.cache,
		MemTableSize:            memtableBytes,
		FormatMajorVersion:      pebble.FormatNewest,
		BlockPropertyCollectors: []func() pebble.BlockPropertyCollector{newRevisionCollector},
		Logger:                  pebbleLogger{p},
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].BlockSize = blockBytes
		opts.Levels[i].IndexBlockSize = indexBlockBytes
	}
	opts.EventListener = &pebble.EventListener{
		BackgroundError: func(err error) {
			p.cfg.Logger.Error("background work of the store failed", "error", err)
			if pebble.IsCorruptionError(err) {
				p.fail(err)
			}
		},
	}
	return opts
}

func openError(dir string, err error) error {
	switch {
	case pebble.IsCorruptionError(err):
		return &base.Corruption{Where: dir, Cause: err}
	case strings.Contains(err.Error(), "format major version"):
		return fmt.Errorf("the store was written by a newer version of cairn: start that one (%w)", err)
	}
	return err
}

// fail stops the engine for good.
func (p *Pebble) fail(err error) {
	if p.fatal.Swap(true) {
		return
	}
	p.dead.Store(true)
	p.cfg.OnFatal(wrap("store", err))
}

// wrap marks damage as such.
func wrap(where string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pebble.ErrNotFound):
		return ErrNotFound
	case pebble.IsCorruptionError(err):
		return &base.Corruption{Where: where, Cause: err}
	}
	return err
}

// Get implements Reader.
func (p *Pebble) Get(key []byte) ([]byte, error) {
	if p.dead.Load() {
		return nil, ErrClosed
	}
	return get(p.db, key)
}

func get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if err != nil {
		return nil, wrap("store", err)
	}
	out := append([]byte{}, v...)
	return out, closer.Close()
}

// NewIter implements Reader.
func (p *Pebble) NewIter(o IterOptions) (Iterator, error) {
	if p.dead.Load() {
		return nil, ErrClosed
	}
	return newIter(p.db, o)
}

func newIter(r pebble.Reader, o IterOptions) (Iterator, error) {
	po := pebble.IterOptions{LowerBound: o.Lower, UpperBound: o.Upper, UseL6Filters: o.Prefix}
	if o.MinRevision > 0 {
		po.PointKeyFilters = []pebble.BlockPropertyFilter{
			sstable.NewBlockIntervalFilter(revisionProperty, uint64(o.MinRevision), 1<<64-1, nil),
		}
	}
	it, err := r.NewIter(&po)
	if err != nil {
		return nil, wrap("store", err)
	}
	return pebbleIter{it}, nil
}

type pebbleIter struct{ *pebble.Iterator }

// Value implements Iterator.
func (it pebbleIter) Value() ([]byte, error) {
	v, err := it.Iterator.ValueAndErr()
	return v, wrap("store", err)
}

// Error implements Iterator.
func (it pebbleIter) Error() error { return wrap("store", it.Iterator.Error()) }

// NewBatch implements Engine.
func (p *Pebble) NewBatch() Batch { return &pebbleBatch{p: p, b: p.db.NewBatch()} }

// NewIndexedBatch implements Engine.
func (p *Pebble) NewIndexedBatch() Batch { return &pebbleBatch{p: p, b: p.db.NewIndexedBatch()} }

type pebbleBatch struct {
	p *Pebble
	b *pebble.Batch // nil once closed
}

func (b *pebbleBatch) Get(key []byte) ([]byte, error)          { return get(b.b, key) }
func (b *pebbleBatch) NewIter(o IterOptions) (Iterator, error) { return newIter(b.b, o) }
func (b *pebbleBatch) Set(key, value []byte) error             { return b.b.Set(key, value, nil) }
func (b *pebbleBatch) Delete(key []byte) error                 { return b.b.Delete(key, nil) }
func (b *pebbleBatch) DeleteRange(start, end []byte) error     { return b.b.DeleteRange(start, end, nil) }
func (b *pebbleBatch) Len() int                                { return b.b.Len() }
func (b *pebbleBatch) Empty() bool                             { return b.b.Empty() }

// CommitNoSync implements Batch.
func (b *pebbleBatch) CommitNoSync() error {
	if b.p.dead.Load() {
		return ErrClosed
	}
	return wrap("store", b.b.Commit(pebble.NoSync))
}

// CommitSync implements Batch.
func (b *pebbleBatch) CommitSync() (func() error, error) {
	if b.p.dead.Load() {
		return nil, ErrClosed
	}
	if b.b.Empty() {
		// Something before it may still be on its way: an empty log record is synced behind it.
		if err := b.b.LogData(nil, nil); err != nil {
			return nil, err
		}
	}
	if err := b.p.db.ApplyNoSyncWait(b.b, pebble.Sync); err != nil {
		return nil, wrap("store", err)
	}
	return func() error {
		err := b.b.SyncWait()
		return wrap("store", errors.Join(err, b.Close()))
	}, nil
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

// NewSnapshot implements Engine.
func (p *Pebble) NewSnapshot() Snapshot { return pebbleSnapshot{p.db.NewSnapshot()} }

type pebbleSnapshot struct{ s *pebble.Snapshot }

func (s pebbleSnapshot) Get(key []byte) ([]byte, error)          { return get(s.s, key) }
func (s pebbleSnapshot) NewIter(o IterOptions) (Iterator, error) { return newIter(s.s, o) }
func (s pebbleSnapshot) Close() error                            { return s.s.Close() }

// NewTable implements Engine.
func (p *Pebble) NewTable(w io.WriteCloser) (TableWriter, error) {
	f, ok := w.(*stagedFile)
	if !ok {
		return nil, errors.New("a table is written to a file of the engine (CreateFile)")
	}
	o := p.options()
	o.EnsureDefaults()
	wo := o.MakeWriterOptions(6, p.db.TableFormat())
	return &pebbleTable{w: sstable.NewWriter(objstorageprovider.NewFileWritable(f.File), wo)}, nil
}

type pebbleTable struct{ w *sstable.Writer }

func (t *pebbleTable) DeleteRange(start, end []byte) error { return t.w.DeleteRange(start, end) }
func (t *pebbleTable) Set(key, value []byte) error         { return t.w.Set(key, value) }
func (t *pebbleTable) Size() uint64                        { return t.w.Raw().EstimatedSize() }
func (t *pebbleTable) Close() error                        { return t.w.Close() }

// Ingest implements Engine.
func (p *Pebble) Ingest(paths []string, excise Span) error {
	if p.dead.Load() {
		return ErrClosed
	}
	_, err := p.db.IngestAndExcise(context.Background(), paths, nil, nil, pebble.KeyRange{Start: excise.Start, End: excise.End})
	return wrap("ingested table", err)
}

// StagingDir implements Engine.
func (p *Pebble) StagingDir() string { return filepath.Join(p.cfg.Dir, "staging") }

type stagedFile struct{ vfs.File }

// Size implements File.
func (f *stagedFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// CreateFile implements Engine.
func (p *Pebble) CreateFile(path string) (File, error) {
	if err := p.cfg.FS.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := p.cfg.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &stagedFile{f}, nil
}

// OpenFile implements Engine.
func (p *Pebble) OpenFile(path string) (File, error) {
	f, err := p.cfg.FS.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &stagedFile{f}, nil
}

// RemoveAll implements Engine.
func (p *Pebble) RemoveAll(path string) error { return p.cfg.FS.RemoveAll(path) }

// Flush implements Engine.
func (p *Pebble) Flush() error {
	if p.dead.Load() {
		return ErrClosed
	}
	return wrap("store", p.db.Flush())
}

// Size implements Engine.
func (p *Pebble) Size(s Span) (uint64, error) {
	if p.dead.Load() {
		return 0, ErrClosed
	}
	n, err := p.db.EstimateDiskUsage(s.Start, s.End)
	return n, wrap("store", err)
}

// Metrics implements Engine.
func (p *Pebble) Metrics() Metrics {
	if p.dead.Load() {
		return Metrics{}
	}
	m := p.db.Metrics()
	total := m.Total()
	return Metrics{
		Syncs:           p.syncs.Load(),
		BytesWritten:    m.WAL.BytesWritten + total.TableBytesFlushed + total.TableBytesCompacted + total.TableBytesIngested,
		DiskBytes:       m.DiskSpaceUsage(),
		MemtableBytes:   m.MemTable.Size,
		BlockCacheBytes: uint64(m.BlockCache.Size),
		Compactions:     uint64(m.Compact.Count),
	}
}

// Close implements Engine. After a fatal error nothing is closed: background work may hang, and the process is to end.
func (p *Pebble) Close() error {
	if p.dead.Swap(true) {
		return nil
	}
	err := p.db.Close()
	p.cache.Unref()
	return errors.Join(err, p.lock.Close())
}
