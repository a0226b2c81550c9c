package engine_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
)

// stagedDisk counts what brings files below the staging folder to the disk.
type stagedDisk struct {
	vfs.FS
	asked atomic.Int64
}

func (d *stagedDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	if err == nil && strings.Contains(name, "staging") {
		f = &stagedDiskFile{f, d}
	}
	return f, err
}

type stagedDiskFile struct {
	vfs.File
	of *stagedDisk
}

func (f *stagedDiskFile) Sync() error     { f.of.asked.Add(1); return f.File.Sync() }
func (f *stagedDiskFile) SyncData() error { f.of.asked.Add(1); return f.File.SyncData() }
func (f *stagedDiskFile) SyncTo(n int64) (bool, error) {
	f.of.asked.Add(1)
	return f.File.SyncTo(n)
}

// A table in a scratch file is read again as it was written, and never brought to the disk; one that is to be ingested is brought
// there on the way.
func TestScratchStaysInMemory(t *testing.T) {
	disk := &stagedDisk{FS: vfs.NewMem()}
	p, _, err := openOn(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	write := func(name string, create func(string) (engine.File, error)) (asked int64) {
		before := disk.asked.Load()
		path := filepath.Join(p.StagingDir(), name)
		f, err := create(path)
		if err != nil {
			t.Fatal(err)
		}
		tw, err := p.NewTable(f)
		if err != nil {
			t.Fatal(err)
		}
		value := make([]byte, 64<<10)
		for i := range 3 * base.StagedWriteOut / len(value) {
			for at := range value {
				value[at] = byte(at * at * (i + 1)) // not to be compressed to nothing
			}
			err = errors.Join(err, tw.Set([]byte{byte('a' + i)}, value))
		}
		if err := errors.Join(err, tw.Close()); err != nil {
			t.Fatal(err)
		}
		asked = disk.asked.Load() - before
		back, err := p.OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer back.Close()
		if n, err := back.Size(); err != nil || n == 0 {
			t.Errorf("%s: %d bytes are read again: %v", name, n, err)
		}
		return asked
	}
	if n := write("scratch", p.CreateScratch); n != 0 {
		t.Errorf("the disk was asked %d times for a scratch file", n)
	}
	if n := write("kept", p.CreateFile); n == 0 {
		t.Error("the disk was never asked for a file that is to be kept")
	}
}
