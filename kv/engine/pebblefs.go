package engine

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFS looks at the write-ahead log. It counts the syncs: what a put costs the disk is stated in them. And where Pebble begins another
// log it panics if that cannot be made, or the one before was not written: with a disk that is full, say. The store stops instead, as
// after any other error of the disk, and what met the error stays where it is.
type logFS struct {
	vfs.FS
	syncs *atomic.Uint64
	used  func() bool // the engine is open and is not being closed: a log that ends is followed by another
	stop  func(error) // does not return
}

// Create implements vfs.FS.
func (l *logFS) Create(name string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, cat)
	return l.made(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (l *logFS) ReuseForWrite(old, name string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.ReuseForWrite(old, name, cat)
	return l.made(name, f, err)
}

// Unwrap implements vfs.FS.
func (l *logFS) Unwrap() vfs.FS { return l.FS }

func (l *logFS) made(name string, f vfs.File, err error) (vfs.File, error) {
	if !strings.HasSuffix(name, ".log") {
		return f, err
	}
	if err == nil {
		return &logFile{File: f, fs: l}, nil
	}
	if l.used() {
		l.stop(fmt.Errorf("a log cannot be begun: %w", err))
	}
	return f, err
}

type logFile struct {
	vfs.File
	fs     *logFS
	failed atomic.Pointer[error] // the first that a write or a sync met
}

// Write implements vfs.File.
func (f *logFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.met(err)
}

// Sync implements vfs.File.
func (f *logFile) Sync() error {
	f.fs.syncs.Add(1)
	return f.met(f.File.Sync())
}

// SyncData implements vfs.File.
func (f *logFile) SyncData() error {
	f.fs.syncs.Add(1)
	return f.met(f.File.SyncData())
}

// Close implements vfs.File.
func (f *logFile) Close() error {
	err := f.met(f.File.Close())
	if cause := f.failed.Load(); cause != nil && f.fs.used() {
		f.fs.stop(fmt.Errorf("a log cannot be ended: %w", *cause))
	}
	return err
}

func (f *logFile) met(err error) error {
	if err != nil {
		f.failed.CompareAndSwap(nil, &err)
	}
	return err
}
