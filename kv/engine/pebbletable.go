package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/internal/base"
)

// NewTable implements Engine.
func (p *Pebble) NewTable(w io.WriteCloser) (TableWriter, error) {
	if err := p.life.enter(); err != nil {
		return nil, err
	}
	defer p.life.leave()
	f, ok := w.(*stagedFile)
	if !ok {
		return nil, errors.New("a table is written to a file of the engine (CreateFile)")
	}
	o := p.options()
	o.EnsureDefaults()
	wo := o.MakeWriterOptions(6, p.db.TableFormat())
	return &pebbleTable{w: sstable.NewWriter(objstorageprovider.NewFileWritable(f), wo)}, nil
}

type pebbleTable struct{ w *sstable.Writer }

func (t *pebbleTable) DeleteRange(start, end []byte) error { return t.w.DeleteRange(start, end) }
func (t *pebbleTable) Set(key, value []byte) error         { return t.w.Set(key, value) }
func (t *pebbleTable) Size() uint64                        { return t.w.Raw().EstimatedSize() }
func (t *pebbleTable) Close() error                        { return t.w.Close() }

// Ingest implements Engine. Pebble does not sync the log for tables that overlap nothing in memory, so that a crash could
// keep them and lose batches from before: the log is synced first.
func (p *Pebble) Ingest(paths []string, excise Span) error {
	if err := p.life.enter(); err != nil {
		return err
	}
	defer p.life.leave()
	if p.cfg.ReadOnly {
		return pebble.ErrReadOnly
	}
	p.excising.Lock()
	defer p.excising.Unlock()
	if err := p.db.Delete(excisionMark, pebble.Sync); err != nil {
		return wrap("store", err)
	}
	_, err := p.db.IngestAndExcise(context.Background(), paths, nil, nil, pebble.KeyRange{Start: excise.Start, End: excise.End})
	return wrap("ingested table", err)
}

// excisionMark is a key that nobody ever sets. Pebble has the snapshots that an excision concerns hold on to their tables when it
// flushes a memtable with keys in the span that they protect, which it does before it excises; if there is none it does not flush, and
// panics. So there is one.
var excisionMark = []byte{0x01, 0x00}

// StagingDir implements Engine.
func (p *Pebble) StagingDir() string { return filepath.Join(p.cfg.Dir, "staging") }

// stagedFile has what is written to it, in order, brought to disk on the way, and not in one sync at its end: that would hold up for
// as long the syncs of the log, on which writes wait.
type stagedFile struct {
	vfs.File
	end, out int64 // of what was written, and of what is on its way to the disk
	scratch  bool  // it need not be on the disk at all
}

// Sync implements File.
func (f *stagedFile) Sync() error {
	if f.scratch {
		return nil
	}
	return f.File.Sync()
}

// Write implements File.
func (f *stagedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.writeOut(f.end + int64(n))
}

// WriteAt implements File.
func (f *stagedFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	if err != nil {
		return n, err
	}
	return n, f.writeOut(off + int64(n))
}

func (f *stagedFile) writeOut(end int64) error {
	if f.end = end; f.scratch || end-f.out < base.StagedWriteOut {
		return nil
	}
	f.out = end
	_, err := f.File.SyncTo(end) // it waits only for what it began before
	return err
}

// Size implements File.
func (f *stagedFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// enterStaging begins a call that is about a file, which must lie below the staging folder or be it.
func (p *Pebble) enterStaging(path string) error {
	rel, err := filepath.Rel(p.StagingDir(), path)
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("%s is not below the staging folder", path)
	}
	if p.cfg.ReadOnly {
		return pebble.ErrReadOnly
	}
	return p.life.enter()
}

// CreateFile implements Engine.
func (p *Pebble) CreateFile(path string) (File, error) { return p.createFile(path, false) }

// CreateScratch implements Engine.
func (p *Pebble) CreateScratch(path string) (File, error) { return p.createFile(path, true) }

func (p *Pebble) createFile(path string, scratch bool) (File, error) {
	if err := p.enterStaging(path); err != nil {
		return nil, err
	}
	defer p.life.leave()
	if err := p.cfg.FS.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := p.cfg.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &stagedFile{File: f, scratch: scratch}, nil
}

// OpenFile implements Engine.
func (p *Pebble) OpenFile(path string) (File, error) {
	if err := p.enterStaging(path); err != nil {
		return nil, err
	}
	defer p.life.leave()
	f, err := p.cfg.FS.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &stagedFile{File: f}, nil
}

// RemoveAll implements Engine.
func (p *Pebble) RemoveAll(path string) error {
	if err := p.enterStaging(path); err != nil {
		return err
	}
	defer p.life.leave()
	return p.cfg.FS.RemoveAll(path)
}
