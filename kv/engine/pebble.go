package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/internal/base"
)

// PebbleConfig is what a Pebble engine is opened with.
type PebbleConfig struct {
	Dir string
	FS  vfs.FS // default: the disk
	// Faults, if set, lies above FS: see DiskFaults.
	Faults     *DiskFaults
	CacheBytes int64 // of the block cache
	// ReadOnly opens a store that is there and changes nothing in it but its lock; every write answers with an error.
	ReadOnly bool
	Logger   *slog.Logger
	// OnFatal is told, once, of an error of the disk or of stored data after which the engine serves nothing more. What
	// met the error in the background or in a write never returns, so OnFatal must not wait for the engine's users.
	OnFatal func(error)
}

// EnsureDefaults fills what was left empty.
func (c *PebbleConfig) EnsureDefaults() {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Faults != nil {
		c.FS = c.Faults.wrap(c.FS)
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
	life  *lifecycle
	db    *pebble.DB
	cache *pebble.Cache
	lock  *pebble.Lock
	syncs atomic.Uint64

	// excising keeps snapshots from being made while an ingestion excises: Pebble looks for those that its excision concerns when it
	// begins, and panics about one that was made between that and its end.
	excising sync.RWMutex
}

var _ Engine = (*Pebble)(nil)

// memtableBytes: the cache bounds what the engine holds of the node's 120 MB, for Pebble takes its memtables off it. Smaller ones would
// write tables too small for the levels below.
//
// memtables is how many there may be, of the full size, before every commit waits for a flush: one that fills, one that is flushed,
// and one for each snapshot that is being taken in (base.SnapshotsInFlight), which begins another however empty its own is. Only what
// was written of them takes memory.
const (
	memtableBytes = 8 << 20
	memtables     = 2 + base.SnapshotsInFlight
)

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
	p := &Pebble{cfg: cfg, life: newLifecycle()}
	if err := p.takeDir(); err != nil {
		return nil, err
	}
	p.cache = pebble.NewCache(cfg.CacheBytes)
	if err := p.openDB(); err != nil {
		if p.life.cause() != nil {
			return nil, err // what hangs still holds the cache and the lock
		}
		p.cache.Unref()
		return nil, errors.Join(err, p.lock.Close())
	}
	if cfg.ReadOnly {
		return p, nil
	}
	if err := errors.Join(cfg.FS.RemoveAll(p.StagingDir()), cfg.FS.MkdirAll(p.StagingDir(), 0o755)); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// takeDir makes the directory this process's own.
func (p *Pebble) takeDir() (err error) {
	if !p.cfg.ReadOnly {
		if err := p.cfg.FS.MkdirAll(p.cfg.Dir, 0o755); err != nil {
			return err
		}
	} else if _, err := p.cfg.FS.Stat(p.cfg.Dir); err != nil {
		return fmt.Errorf("there is no store to read: %w", err)
	}
	p.lock, err = pebble.LockDirectory(p.cfg.Dir, p.cfg.FS)
	var path *fs.PathError
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.As(err, &path), errors.As(err, &errno) && errno != syscall.EAGAIN && errno != syscall.EACCES:
		return fmt.Errorf("the store cannot be locked: %w", err)
	}
	return fmt.Errorf("the store is in use (%w)", err)
}

// openDB opens Pebble. A fatal error on the way hangs the goroutine that met it, which therefore is not the caller's.
func (p *Pebble) openDB() error {
	opened := make(chan error, 1)
	go func() {
		opts := p.options()
		opts.Lock, opts.ReadOnly, opts.ErrorIfNotExists = p.lock, p.cfg.ReadOnly, p.cfg.ReadOnly
		db, err := pebble.Open(p.cfg.Dir, opts)
		p.db = db
		opened <- err
	}()
	select {
	case err := <-opened:
		if err == nil {
			err = p.life.opened(p.cfg.OnFatal)
		}
		return openError(p.cfg.Dir, err)
	case <-p.life.failed:
		return openError(p.cfg.Dir, p.life.cause())
	}
}

func (p *Pebble) options() *pebble.Options {
	opts := &pebble.Options{
		FS:                      &logFS{FS: p.cfg.FS, syncs: &p.syncs, used: p.life.used, stop: p.stop},
		Comparer:                comparer,
		Cache:                   p.cache,
		MemTableSize:            memtableBytes,
		FormatMajorVersion:      pebble.FormatNewest,
		BlockPropertyCollectors: []func() pebble.BlockPropertyCollector{newRevisionCollector},
		Logger:                  pebbleLogger{p},
		EventListener:           p.listener(),

		MemTableStopWritesThreshold: memtables,
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].BlockSize = blockBytes
		opts.Levels[i].IndexBlockSize = indexBlockBytes
	}
	return opts
}

// Flush implements Engine. It ends if the engine fails meanwhile.
func (p *Pebble) Flush() error {
	if err := p.life.enter(); err != nil {
		return err
	}
	defer p.life.leave()
	flushed := make(chan error, 1)
	go func() { flushed <- p.db.Flush() }() // where another log cannot be begun it does not come back
	select {
	case err := <-flushed:
		return wrap("store", err)
	case <-p.life.failed:
		return p.life.cause()
	}
}

// Compact implements Engine. It ends if the engine fails meanwhile.
func (p *Pebble) Compact(ctx context.Context, s Span) error {
	if err := p.life.enter(); err != nil {
		return err
	}
	defer p.life.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.life.failed:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := p.db.Compact(ctx, s.Start, s.End, false)
	select {
	case <-p.life.failed:
		return p.life.cause()
	default:
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // it is no error of the store's
	}
	return wrap("store", err)
}

// Size implements Engine.
func (p *Pebble) Size(s Span) (uint64, error) {
	if err := p.life.enter(); err != nil {
		return 0, err
	}
	defer p.life.leave()
	n, err := p.db.EstimateDiskUsage(s.Start, s.End)
	return n, wrap("store", err)
}

// Metrics implements Engine.
func (p *Pebble) Metrics() Metrics {
	if p.life.enter() != nil {
		return Metrics{}
	}
	defer p.life.leave()
	m := p.db.Metrics()
	total := m.Total()
	disk := m.DiskSpaceUsage()
	garbage := m.WAL.ObsoletePhysicalSize + m.Table.Local.ObsoleteSize + m.Table.Local.ZombieSize + m.BlobFiles.Local.ObsoleteSize +
		m.BlobFiles.Local.ZombieSize + m.Table.Garbage.PointDeletionsBytesEstimate + m.Table.Garbage.RangeDeletionsBytesEstimate
	return Metrics{
		Syncs:           p.syncs.Load(),
		BytesWritten:    m.WAL.BytesWritten + total.TableBytesFlushed + total.TableBytesCompacted + total.TableBytesIngested,
		DiskBytes:       disk,
		LiveBytes:       disk - min(disk, garbage),
		MemtableBytes:   m.MemTable.Size,
		BlockCacheBytes: uint64(m.BlockCache.Size),
		Compactions:     uint64(m.Compact.Count),
	}
}

// Close implements Engine. It waits for calls that are under way. Pebble frees its memory by hand, so while iterators or
// snapshots are open nothing is closed and the error says so; Close may then be called again. After a fatal error nothing
// is closed either: background work may hang, and the process is to end.
func (p *Pebble) Close() error {
	closes, err := p.life.end()
	if !closes {
		return err
	}
	err = p.db.Close()
	p.cache.Unref()
	return errors.Join(wrap("store", err), p.lock.Close())
}
