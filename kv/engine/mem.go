package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/tidwall/btree"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/keys"
)

// Mem is the ordered-map twin of Pebble: everything in memory, the same at every run, with an explicit journal of what
// is synced and what is not. A crash keeps what is synced and any prefix of the rest. Its methods may be called from any
// goroutine, but it starts none.
type Mem struct {
	mu      sync.Mutex
	visible *btree.BTreeG[item] // what readers see
	durable *btree.BTreeG[item] // what is synced
	journal [][]op              // committed and not synced, in order
	first   uint64              // number of journal[0]
	files   map[string]*memFile
	syncs   uint64
	bytes   uint64
	closed  bool
}

var _ Engine = (*Mem)(nil)

type item struct{ key, value []byte }

type opKind uint8

const (
	opSet opKind = iota + 1
	opDelete
	opDeleteRange
)

// op is one write; b is the value or the end of the span.
type op struct {
	kind opKind
	a, b []byte
}

func newTree() *btree.BTreeG[item] {
	return btree.NewBTreeGOptions(func(a, b item) bool { return bytes.Compare(a.key, b.key) < 0 }, btree.Options{NoLocks: true})
}

// NewMem returns an empty engine.
func NewMem() *Mem {
	return &Mem{visible: newTree(), durable: newTree(), files: make(map[string]*memFile)}
}

// Crash returns an engine as a process finds it after a crash that kept the first keep unsynced batches. m itself is as
// it was.
func (m *Mem) Crash(keep int) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := NewMem()
	n.durable = m.durable.Copy()
	for _, ops := range m.journal[:min(keep, len(m.journal))] {
		applyOps(n.durable, ops)
	}
	n.visible = n.durable.Copy()
	return n
}

// Unsynced is the number of committed batches that a crash may lose.
func (m *Mem) Unsynced() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.journal)
}

func applyOps(t *btree.BTreeG[item], ops []op) {
	for _, o := range ops {
		switch o.kind {
		case opSet:
			t.Set(item{o.a, o.b})
		case opDelete:
			t.Delete(item{key: o.a})
		case opDeleteRange:
			var gone []item
			t.Ascend(item{key: o.a}, func(i item) bool {
				if bytes.Compare(i.key, o.b) >= 0 {
					return false
				}
				gone = append(gone, i)
				return true
			})
			for _, i := range gone {
				t.Delete(i)
			}
		}
	}
}

// commit makes ops visible and returns their number in the journal.
func (m *Mem) commit(ops []op, size int) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, ErrClosed
	}
	applyOps(m.visible, ops)
	m.journal = append(m.journal, ops)
	m.bytes += uint64(size)
	return m.first + uint64(len(m.journal)) - 1, nil
}

// syncTo makes durable everything up to and with the batch of that number.
func (m *Mem) syncTo(number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if number < m.first {
		return
	}
	n := int(number - m.first + 1)
	for _, ops := range m.journal[:n] {
		applyOps(m.durable, ops)
	}
	m.journal = slices.Delete(m.journal, 0, n)
	m.first += uint64(n)
	m.syncs++
}

// view is a copy of what readers see now; it costs nothing until either side is written.
func (m *Mem) view() (*btree.BTreeG[item], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	return m.visible.Copy(), nil
}

// Get implements Reader.
func (m *Mem) Get(key []byte) ([]byte, error) {
	t, err := m.view()
	if err != nil {
		return nil, err
	}
	return treeGet(t, key)
}

func treeGet(t *btree.BTreeG[item], key []byte) ([]byte, error) {
	i, ok := t.Get(item{key: key})
	if !ok {
		return nil, ErrNotFound
	}
	return append([]byte{}, i.value...), nil
}

// NewIter implements Reader.
func (m *Mem) NewIter(o IterOptions) (Iterator, error) {
	t, err := m.view()
	if err != nil {
		return nil, err
	}
	return newMemIter(t, o), nil
}

// NewSnapshot implements Engine.
func (m *Mem) NewSnapshot() Snapshot {
	t, err := m.view()
	return memSnapshot{t, err}
}

type memSnapshot struct {
	t   *btree.BTreeG[item]
	err error
}

func (s memSnapshot) Get(key []byte) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	return treeGet(s.t, key)
}

func (s memSnapshot) NewIter(o IterOptions) (Iterator, error) {
	if s.err != nil {
		return nil, s.err
	}
	return newMemIter(s.t.Copy(), o), nil
}

func (s memSnapshot) Close() error { return nil }

// memIter walks one tree, which nobody else changes.
type memIter struct {
	it     btree.IterG[item]
	o      IterOptions
	prefix []byte // of SeekPrefixGE; nil: none
	valid  bool
}

func newMemIter(t *btree.BTreeG[item], o IterOptions) *memIter { return &memIter{it: t.Iter(), o: o} }

// settle says whether the iterator is within its bounds now.
func (i *memIter) settle(ok bool) bool {
	i.valid = ok
	if !ok {
		return false
	}
	k := i.it.Item().key
	i.valid = bytes.Compare(k, i.o.Lower) >= 0 && bytes.Compare(k, i.o.Upper) < 0 &&
		(i.prefix == nil || bytes.Equal(k[:keys.Split(k)], i.prefix))
	return i.valid
}

func (i *memIter) seekGE(key []byte) bool {
	if bytes.Compare(key, i.o.Lower) < 0 {
		key = i.o.Lower
	}
	return i.settle(i.it.Seek(item{key: key}))
}

func (i *memIter) SeekGE(key []byte) bool {
	i.prefix = nil
	return i.seekGE(key)
}

func (i *memIter) SeekPrefixGE(key []byte) bool {
	i.prefix = append([]byte{}, key[:keys.Split(key)]...)
	return i.seekGE(key)
}

func (i *memIter) SeekLT(key []byte) bool {
	i.prefix = nil
	if bytes.Compare(key, i.o.Upper) > 0 {
		key = i.o.Upper
	}
	if i.it.Seek(item{key: key}) {
		return i.settle(i.it.Prev())
	}
	return i.settle(i.it.Last())
}

func (i *memIter) First() bool { return i.SeekGE(i.o.Lower) }
func (i *memIter) Last() bool  { return i.SeekLT(i.o.Upper) }

func (i *memIter) Next() bool {
	if !i.valid {
		return false
	}
	return i.settle(i.it.Next())
}

func (i *memIter) Prev() bool {
	if !i.valid {
		return false
	}
	return i.settle(i.it.Prev())
}

func (i *memIter) NextPrefix() bool {
	if !i.valid {
		return false
	}
	k := i.it.Item().key
	return i.seekGE(immediateSuccessor(nil, k[:keys.Split(k)]))
}

func (i *memIter) Valid() bool            { return i.valid }
func (i *memIter) Key() []byte            { return i.it.Item().key }
func (i *memIter) Value() ([]byte, error) { return i.it.Item().value, nil }
func (i *memIter) Error() error           { return nil }
func (i *memIter) Close() error           { return nil }

// memBatch collects operations.
type memBatch struct {
	m       *Mem
	indexed bool
	ops     []op
	size    int
	done    bool
}

// NewBatch implements Engine.
func (m *Mem) NewBatch() Batch { return &memBatch{m: m} }

// NewIndexedBatch implements Engine.
func (m *Mem) NewIndexedBatch() Batch { return &memBatch{m: m, indexed: true} }

func (b *memBatch) add(kind opKind, x, y []byte) error {
	b.ops = append(b.ops, op{kind, bytes.Clone(x), append([]byte{}, y...)})
	b.size += len(x) + len(y) + 8
	return nil
}

func (b *memBatch) Set(key, value []byte) error         { return b.add(opSet, key, value) }
func (b *memBatch) Delete(key []byte) error             { return b.add(opDelete, key, nil) }
func (b *memBatch) DeleteRange(start, end []byte) error { return b.add(opDeleteRange, start, end) }
func (b *memBatch) Len() int                            { return b.size }
func (b *memBatch) Empty() bool                         { return len(b.ops) == 0 }

// merged is the engine under the batch's own writes.
func (b *memBatch) merged() (*btree.BTreeG[item], error) {
	if !b.indexed {
		panic("engine: a batch that is not indexed cannot be read")
	}
	t, err := b.m.view()
	if err == nil {
		applyOps(t, b.ops)
	}
	return t, err
}

func (b *memBatch) Get(key []byte) ([]byte, error) {
	t, err := b.merged()
	if err != nil {
		return nil, err
	}
	return treeGet(t, key)
}

func (b *memBatch) NewIter(o IterOptions) (Iterator, error) {
	t, err := b.merged()
	if err != nil {
		return nil, err
	}
	return newMemIter(t, o), nil
}

func (b *memBatch) CommitNoSync() error {
	if b.done {
		return errors.New("the batch was committed or closed already")
	}
	b.done = true
	_, err := b.m.commit(b.ops, b.size)
	return err
}

func (b *memBatch) CommitSync() (func() error, error) {
	if b.done {
		return nil, errors.New("the batch was committed or closed already")
	}
	b.done = true
	number, err := b.m.commit(b.ops, b.size)
	if err != nil {
		return nil, err
	}
	return func() error { b.m.syncTo(number); return nil }, nil
}

func (b *memBatch) Close() error {
	b.done = true
	return nil
}

// NewTable implements Engine. A table of the twin is a list of operations with lengths before their bytes.
func (m *Mem) NewTable(w io.WriteCloser) (TableWriter, error) { return &memTable{w: w}, nil }

type memTable struct {
	w    io.WriteCloser
	size uint64
	err  error
}

func (t *memTable) add(kind opKind, a, b []byte) error {
	if t.err != nil {
		return t.err
	}
	rec := []byte{byte(kind)}
	rec = append(binary.AppendUvarint(rec, uint64(len(a))), a...)
	rec = append(binary.AppendUvarint(rec, uint64(len(b))), b...)
	t.size += uint64(len(rec))
	_, t.err = t.w.Write(rec)
	return t.err
}

func (t *memTable) DeleteRange(start, end []byte) error { return t.add(opDeleteRange, start, end) }
func (t *memTable) Set(key, value []byte) error         { return t.add(opSet, key, value) }
func (t *memTable) Size() uint64                        { return t.size }
func (t *memTable) Close() error                        { return errors.Join(t.err, t.w.Close()) }

func readTable(b []byte) ([]op, error) {
	var ops []op
	cut := func() ([]byte, bool) {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return nil, false
		}
		x := b[w : w+int(n)]
		b = b[w+int(n):]
		return x, true
	}
	for len(b) > 0 {
		kind := opKind(b[0])
		b = b[1:]
		x, ok := cut()
		y, ok2 := cut()
		if !ok || !ok2 || kind != opSet && kind != opDeleteRange {
			return nil, &base.Corruption{Where: "ingested table", Cause: errors.New("it is cut short")}
		}
		ops = append(ops, op{kind, bytes.Clone(x), append([]byte{}, y...)})
	}
	return ops, nil
}

// Ingest implements Engine. What was committed before is durable after it, as after any later sync.
func (m *Mem) Ingest(paths []string, excise Span) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	all := []op{{opDeleteRange, excise.Start, excise.End}}
	var sets []op
	for _, p := range paths {
		f := m.files[p]
		if f == nil {
			return fmt.Errorf("%s: no such file", p)
		}
		ops, err := readTable(f.data)
		if err != nil {
			return err
		}
		for _, o := range ops {
			if o.kind == opSet {
				sets = append(sets, o)
			} else {
				all = append(all, o)
			}
		}
	}
	all = append(all, sets...)
	for _, ops := range append(m.journal, all) {
		applyOps(m.durable, ops)
	}
	m.first += uint64(len(m.journal))
	m.journal = nil
	applyOps(m.visible, all)
	for _, p := range paths {
		delete(m.files, p)
	}
	return nil
}

// StagingDir implements Engine.
func (m *Mem) StagingDir() string { return "staging" }

// CreateFile implements Engine.
func (m *Mem) CreateFile(path string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &memFile{}
	m.files[path] = f
	return f, nil
}

// OpenFile implements Engine.
func (m *Mem) OpenFile(path string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.files[path]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("%s: no such file", path)
}

// RemoveAll implements Engine.
func (m *Mem) RemoveAll(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.files {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(m.files, p)
		}
	}
	return nil
}

// Flush implements Engine: there is nothing to flush.
func (m *Mem) Flush() error { return nil }

// Size implements Engine: the bytes of keys and values.
func (m *Mem) Size(s Span) (uint64, error) {
	t, err := m.view()
	if err != nil {
		return 0, err
	}
	var n uint64
	t.Ascend(item{key: s.Start}, func(i item) bool {
		if bytes.Compare(i.key, s.End) >= 0 {
			return false
		}
		n += uint64(len(i.key) + len(i.value))
		return true
	})
	return n, nil
}

// Metrics implements Engine.
func (m *Mem) Metrics() Metrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Metrics{Syncs: m.syncs, BytesWritten: m.bytes}
}

// Close implements Engine.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// memFile is a file of the twin.
type memFile struct {
	mu   sync.Mutex
	data []byte
}

func (f *memFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.data = append(f.data, p...)
	return len(p), nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if need := int(off) + len(p); need > len(f.data) {
		f.data = append(f.data, make([]byte, need-len(f.data))...)
	}
	return copy(f.data[off:], p), nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Sync() error { return nil }

func (f *memFile) Close() error { return nil }

func (f *memFile) Size() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.data)), nil
}
