package engine

import (
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// countingFS counts the syncs of the write-ahead log: what a put costs the disk is stated in them.
type countingFS struct {
	vfs.FS
	syncs *atomic.Uint64
}

// Create implements vfs.FS.
func (c *countingFS) Create(name string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.Create(name, cat)
	return c.count(name, f), err
}

// ReuseForWrite implements vfs.FS.
func (c *countingFS) ReuseForWrite(old, name string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.ReuseForWrite(old, name, cat)
	return c.count(name, f), err
}

// Unwrap implements vfs.FS.
func (c *countingFS) Unwrap() vfs.FS { return c.FS }

func (c *countingFS) count(name string, f vfs.File) vfs.File {
	if f == nil || !strings.HasSuffix(name, ".log") {
		return f
	}
	return &countedFile{File: f, syncs: c.syncs}
}

type countedFile struct {
	vfs.File
	syncs *atomic.Uint64
}

// Sync implements vfs.File.
func (f *countedFile) Sync() error {
	f.syncs.Add(1)
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f *countedFile) SyncData() error {
	f.syncs.Add(1)
	return f.File.SyncData()
}
