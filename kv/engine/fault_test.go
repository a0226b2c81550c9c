package engine_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
)

// openOn opens a store in memory; fatal receives what OnFatal is told.
func openOn(fs vfs.FS) (p *engine.Pebble, fatal chan error, err error) {
	fatal = make(chan error, 1) // OnFatal is called once: a second error would block and fail the test
	p, err = engine.OpenPebble(engine.PebbleConfig{Dir: "store", FS: fs, OnFatal: func(err error) { fatal <- err }})
	return p, fatal, err
}

func set(t *testing.T, e engine.Engine, key string) {
	t.Helper()
	b := e.NewBatch()
	if err := errors.Join(b.Set([]byte(key), make([]byte, 1000)), b.CommitNoSync(), b.Close()); err != nil {
		t.Fatal(err)
	}
}

// wantEnded: the engine stopped, and answers so.
func wantEnded(t *testing.T, p *engine.Pebble) {
	t.Helper()
	if _, err := p.Get([]byte("a")); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("a stopped store answers %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("closing it: %v", err)
	}
}

// fills opens a store in which something lies in memory, and whose disk has no room now for that kind of work on such files.
func fills(t *testing.T, kind errorfs.OpKind, suffix string) (*engine.Pebble, chan error) {
	t.Helper()
	full := errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == kind && strings.HasSuffix(op.Path, suffix) {
			return syscall.ENOSPC
		}
		return nil
	})}
	p, fatal, err := openOn(errorfs.Wrap(vfs.NewMem(), &full))
	if err != nil {
		t.Fatal(err)
	}
	set(t, p, "a")
	full.On()
	return p, fatal
}

// A disk that is full when memory is to be flushed stops the store: Pebble alone would try again for ever.
func TestDiskFull(t *testing.T) {
	p, fatal := fills(t, errorfs.OpCreate, ".sst")
	if err := p.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the flush ended with %v", err)
	}
	if err := <-fatal; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("OnFatal was told %v", err)
	}
	wantEnded(t, p)
}

// A disk that is full when another log is to be begun, or that did not take the end of the one before, stops the store: Pebble panics.
func TestNoOtherLog(t *testing.T) {
	for name, kind := range map[string]errorfs.OpKind{"begin": errorfs.OpCreate, "write": errorfs.OpFileWrite} {
		t.Run(name, func(t *testing.T) {
			p, fatal := fills(t, kind, ".log")
			if err := p.Flush(); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the flush ended with %v", err)
			}
			if err := <-fatal; !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the disk is full") {
				t.Errorf("OnFatal was told %v", err)
			}
			wantEnded(t, p)
		})
	}
}

// A batch whose sync failed is not called durable, and the store stops.
func TestSyncFails(t *testing.T) {
	fail := errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.HasSuffix(op.Path, ".log") {
			return syscall.EIO
		}
		return nil
	})}
	p, fatal, err := openOn(errorfs.Wrap(vfs.NewMem(), &fail))
	if err != nil {
		t.Fatal(err)
	}
	fail.On()
	b := p.NewBatch()
	if err := b.Set([]byte("a"), nil); err != nil {
		t.Fatal(err)
	}
	wait, err := b.CommitSync()
	if err != nil {
		t.Fatal(err)
	}
	if err := wait(); !errors.Is(err, syscall.EIO) {
		t.Errorf("the wait ended with %v", err)
	}
	if err := <-fatal; !errors.Is(err, syscall.EIO) {
		t.Errorf("OnFatal was told %v", err)
	}
	wantEnded(t, p)
}

// A disk that fails while the store is being opened makes that fail, and does not hang it.
func TestOpenFails(t *testing.T) {
	for name, kind := range map[string]errorfs.OpKind{"create": errorfs.OpCreate, "sync": errorfs.OpFileSync, "rename": errorfs.OpRename, "write": errorfs.OpFileWrite} {
		t.Run(name, func(t *testing.T) {
			_, _, err := openOn(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == kind && !strings.HasSuffix(op.Path, "LOCK") {
					return syscall.EIO
				}
				return nil
			})))
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("it opened: %v", err)
			}
		})
	}
}

// Damage in a table is base.Corruption for the reader that finds it and for the node, and the store stops.
func TestDamagedTable(t *testing.T) {
	mem := vfs.NewMem()
	p, _, err := openOn(mem)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		set(t, p, fmt.Sprintf("k%02d", i))
	}
	if err := errors.Join(p.Flush(), p.Close()); err != nil {
		t.Fatal(err)
	}
	damage(t, mem)
	p, fatal, err := openOn(mem)
	if err != nil {
		t.Fatal(err)
	}
	var found *base.Corruption
	if _, err := p.Get([]byte("k00")); !errors.As(err, &found) {
		t.Errorf("the reader: %v", err)
	}
	if err := <-fatal; !errors.As(err, &found) || !strings.Contains(found.Where, ".sst") {
		t.Errorf("OnFatal was told %v", err)
	}
	wantEnded(t, p)
}

// damage flips a byte in the first block of each table.
func damage(t *testing.T, disk vfs.FS) {
	names, err := disk.List("store")
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	for _, n := range names {
		if !strings.HasSuffix(n, ".sst") {
			continue
		}
		tables++
		f, err := disk.OpenReadWrite(filepath.Join("store", n), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := f.ReadAt(b[:], 100); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0xFF
		if _, err := f.WriteAt(b[:], 100); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if tables == 0 {
		t.Fatal("there is no table to damage")
	}
}

// A store of a newer Pebble says that a newer cairn wrote it.
func TestNewerStore(t *testing.T) {
	mem := vfs.NewMem()
	p, _, err := openOn(mem)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := mem.List("store")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if marker, ok := strings.CutPrefix(n, "marker.format-version."); ok {
			_, version, _ := strings.Cut(marker, ".")
			v, err := strconv.Atoi(version)
			if err != nil {
				t.Fatal(err)
			}
			newer := strings.TrimSuffix(n, version) + fmt.Sprintf("%03d", v+1)
			if err := mem.Rename(filepath.Join("store", n), filepath.Join("store", newer)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, _, err := openOn(mem); err == nil || !strings.Contains(err.Error(), "newer version of cairn") {
		t.Errorf("it opened: %v", err)
	}
}

func TestStoreInUse(t *testing.T) {
	for name, disk := range map[string]vfs.FS{"disk": vfs.Default, "memory": vfs.NewMem()} {
		t.Run(name, func(t *testing.T) {
			cfg := engine.PebbleConfig{Dir: t.TempDir(), FS: disk}
			e, err := engine.OpenPebble(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if _, err := engine.OpenPebble(cfg); err == nil || !strings.Contains(err.Error(), "in use") {
				t.Errorf("a second open: %v", err)
			}
		})
	}
	_, _, err := openOn(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpLock {
			return &fs.PathError{Op: "open", Path: op.Path, Err: syscall.EACCES}
		}
		return nil
	})))
	if !errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "in use") {
		t.Errorf("a lock without permission: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	mem := vfs.NewMem()
	cfg := engine.PebbleConfig{Dir: "store", FS: mem, ReadOnly: true}
	if _, err := engine.OpenPebble(cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store that is not there: %v", err)
	}
	p, _, err := openOn(mem)
	if err != nil {
		t.Fatal(err)
	}
	set(t, p, "a")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p, err = engine.OpenPebble(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(content(t, p), "\n"); got != 1 {
		t.Errorf("%d keys, want 1", got)
	}
	b := p.NewBatch()
	defer b.Close()
	if err := b.Set([]byte("b"), nil); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.StagingDir(), "f")
	for what, call := range map[string]func() error{
		"commit": b.CommitNoSync, "flush": p.Flush,
		"ingest":  func() error { return p.Ingest(nil, engine.Span{Start: []byte("a"), End: []byte("b")}) },
		"create":  func() error { _, err := p.CreateFile(file); return err },
		"scratch": func() error { _, err := p.CreateScratch(file); return err },
		"remove":  func() error { return p.RemoveAll(file) },
	} {
		if err := call(); !errors.Is(err, pebble.ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// Pebble frees its memory when it is closed: while something may still read there, it is not.
func TestCloseUnderViews(t *testing.T) {
	p, _, err := openOn(vfs.NewMem())
	if err != nil {
		t.Fatal(err)
	}
	set(t, p, "a")
	s := p.NewSnapshot()
	it, err := s.NewIter(engine.IterOptions{Lower: []byte{0}, Upper: []byte{0xFF}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err == nil || !strings.Contains(err.Error(), "2 iterators or snapshots are open") {
		t.Errorf("it was closed: %v", err)
	}
	if !it.First() {
		t.Error("the iterator ended")
	}
	if _, err := s.Get([]byte("a")); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("a snapshot of a store that is being closed: %v", err)
	}
	if err := errors.Join(it.Close(), s.Close(), p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
}

// Reads that run while the store is closed end with their answer or with ErrClosed.
func TestCloseUnderCalls(t *testing.T) {
	p, _, err := openOn(vfs.NewMem())
	if err != nil {
		t.Fatal(err)
	}
	set(t, p, "a")
	const readers = 4
	begun, done := make(chan struct{}, readers), make(chan error, readers)
	for range readers {
		go func() {
			for i := 0; ; i++ {
				if i == 100 {
					begun <- struct{}{}
				}
				if _, err := p.Get([]byte("a")); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for range readers {
		<-begun
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	for range readers {
		if err := <-done; !errors.Is(err, engine.ErrClosed) {
			t.Error(err)
		}
	}
}

func TestConfig(t *testing.T) {
	c := engine.PebbleConfig{CacheBytes: -1}
	c.EnsureDefaults()
	if err := c.Validate(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("both problems at once: %v", err)
	}
}
