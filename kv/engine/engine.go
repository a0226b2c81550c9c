// Package engine is the one door to the disk: an ordered map of bytes with atomic batches, snapshots, and
// tables that can be exported from one store and taken in by another.
//
// Two engines stand behind the interface: Pebble, and an ordered map in memory with an explicit journal of
// what is synced and what is not, for the simulator. One conformance suite (enginetest) holds for both.
//
// Keys are ordered bytewise. For keys of replicated data (kv/keys) the prefix before the revision is what
// bloom filters are built on, and the revision is a block property.
package engine

import (
	"context"
	"errors"
	"io"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/keys"
)

// ErrNotFound: there is no such key.
var ErrNotFound = errors.New("not found")

// Span is [Start, End) of engine keys; both are set.
type Span = keys.Span

// Reader reads a consistent or a current view; see who hands it out.
type Reader interface {
	// Get returns a copy of the value, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// NewIter returns an iterator, not positioned: a seek comes first. It sees what the reader holds now, and
	// nothing that is written later. The caller closes it; closing it again does nothing.
	NewIter(IterOptions) (Iterator, error)
}

// IterOptions bounds an iterator.
type IterOptions struct {
	Lower, Upper []byte // Upper exclusive; both set
	// Prefix promises that only SeekPrefixGE is called, so that bloom filters can be used.
	Prefix bool
	// MinRevision lets the engine leave out blocks of replicated data in which every revision is below it.
	// Keys of lower revisions may still be seen, even those of them that were deleted. 0: nothing is left out.
	MinRevision base.Revision
	// BelowRevision, if set, lets it also leave out blocks in which every revision is at or above what it points to at that moment:
	// whoever moves the iterator may lower it between two moves. What is not between the two may still be seen, even if it was deleted.
	BelowRevision *base.Revision
}

// Iterator walks keys in order. Key and Value are valid until the next move. An iterator that ran off one end of its
// bounds comes back with a step the other way; after SeekPrefixGE only Next may follow.
type Iterator interface {
	SeekGE(key []byte) bool
	SeekLT(key []byte) bool
	// SeekPrefixGE positions at the first key ≥ key that has key's prefix (keys.Split), or is not valid. It is an
	// error if the key lies outside of the bounds and neither of them has its prefix.
	SeekPrefixGE(key []byte) bool
	First() bool
	Last() bool
	Next() bool
	Prev() bool
	// NextPrefix moves to the first key whose prefix differs from the present one. It is an error if the upper bound
	// lies between versions of a key.
	NextPrefix() bool
	Valid() bool
	Key() []byte
	Value() ([]byte, error)
	// Error is the first error met; an iterator that is not valid may have failed.
	Error() error
	Close() error
}

// Writer collects writes. The arguments are copied.
type Writer interface {
	Set(key, value []byte) error
	Delete(key []byte) error
	DeleteRange(start, end []byte) error
}

// Batch is a set of writes that become visible and durable as one. An indexed batch can be read: the reader
// sees the engine under the batch's own writes. Not safe for concurrent use.
type Batch interface {
	Reader // only if made by NewIndexedBatch; else it panics
	Writer
	// Len is the encoded size in bytes.
	Len() int
	Empty() bool
	// CommitNoSync makes the batch visible; it is durable after some later sync, never before an earlier batch.
	CommitNoSync() error
	// CommitSync makes it visible at once and returns a wait that ends when it is durable. The wait may be
	// called from another goroutine, once; the batch is closed by it.
	CommitSync() (wait func() error, err error)
	// Close drops a batch that was not committed, and releases one that was. It may be called twice.
	Close() error
}

// Snapshot is a view of the engine at one instant: nothing that happens later is seen in it, an ingestion neither. It
// keeps disk space until it is closed; closing it again does nothing.
type Snapshot interface {
	Reader
	Close() error
}

// Engine is one store.
type Engine interface {
	Reader
	NewBatch() Batch
	NewIndexedBatch() Batch
	NewSnapshot() Snapshot

	// NewTable starts a table: sorted keys, and deletions of whole spans below them, that can be ingested here
	// or in another store. Keys come in ascending order.
	NewTable(w io.WriteCloser) (TableWriter, error)
	// Ingest takes the tables at the paths in, all or nothing, durably, and so is what was committed before: first
	// everything in excise is gone, then each table's span deletions, then its keys. The files belong to the
	// engine afterwards. Tables must not overlap each other; an excision begins and ends between keys, never
	// between versions of one. Commits wait for less long if no key in the spans of excise and tables lies in memory (Flush).
	Ingest(paths []string, excise Span) error

	// StagingDir is a folder on the engine's file system for tables that are to be ingested. Its contents do
	// not survive a restart of the engine.
	StagingDir() string
	// CreateFile and OpenFile reach files below StagingDir on the engine's file system (in memory for the twin).
	CreateFile(path string) (File, error)
	// CreateScratch is CreateFile for what is only read again and deleted, and never ingested: its Sync does nothing, and nothing of it
	// goes to the disk as long as the system has the memory for it.
	CreateScratch(path string) (File, error)
	OpenFile(path string) (File, error)
	RemoveAll(path string) error

	// Flush writes what is in memory to tables. Size estimates the bytes on disk of a span.
	Flush() error
	Size(Span) (uint64, error)
	// Compact rewrites a span, so that what was overwritten and deleted in it takes no disk space any more, and returns when that is
	// done. Reads and writes go on meanwhile. If ctx ends before, so does it: what it had begun is finished in the background.
	Compact(ctx context.Context, s Span) error
	Metrics() Metrics
	// Close ends the engine: every later use answers ErrClosed. Iterators and snapshots are closed before it; while
	// some are open it may refuse. It may be called again.
	Close() error
}

// File is a file below the staging folder.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Writer
	io.Closer
	Sync() error
	Size() (int64, error)
}

// TableWriter writes one table.
type TableWriter interface {
	// DeleteRange deletes everything in the span that the receiving store holds when the table is ingested,
	// and nothing that the table itself or its sisters bring.
	DeleteRange(start, end []byte) error
	Set(key, value []byte) error
	// Size is how many bytes were written so far, about.
	Size() uint64
	// Close finishes the table and closes the writer below it.
	Close() error
}

// Metrics are the engine's own counters since it was opened. They are for people, never for decisions of the core.
type Metrics struct {
	Syncs           uint64 // syncs of the log
	BytesWritten    uint64 // to the log and to tables
	DiskBytes       uint64
	LiveBytes       uint64 // of DiskBytes: about what stays when all that was overwritten or deleted is gone
	MemtableBytes   uint64
	BlockCacheBytes uint64
	Compactions     uint64
}
