package engine

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/tidwall/btree"
)

// Mem is the ordered-map twin of Pebble: everything in memory, the same at every run, with an explicit journal of what
// is synced and what is not. A crash keeps what is synced and any prefix of the rest. Its methods may be called from any
// goroutine, but it starts none.
type Mem struct {
	mu      sync.Mutex
	visible *btree.BTreeG[item] // what readers see
	durable *btree.BTreeG[item] // what is synced
	version uint64              // counts the changes of visible
	journal [][]op              // committed and not synced, in order
	first   uint64              // number of journal[0]
	files   map[string]*memFile
	syncs   uint64
	bytes   uint64
	closed  bool

	shared *btree.BTreeG[item] // a copy of visible that nobody writes, for iterators and snapshots; nil: none yet
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

// Synced returns a copy of the value that a crash now would leave if it kept nothing unsynced, or ErrNotFound.
func (m *Mem) Synced(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return treeGet(m.durable, key)
}

// SyncTo makes the first n unsynced batches durable, as a disk does that syncs when it likes.
func (m *Mem) SyncTo(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sync(min(n, len(m.journal)))
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

// change applies ops to what readers see.
func (m *Mem) change(ops []op) {
	applyOps(m.visible, ops)
	m.version++
	m.shared = nil
}

// commit makes ops visible and returns their number in the journal.
func (m *Mem) commit(ops []op, size int) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, ErrClosed
	}
	m.change(ops)
	m.journal = append(m.journal, ops)
	m.bytes += uint64(size)
	return m.first + uint64(len(m.journal)) - 1, nil
}

// syncThrough makes durable everything up to and with the batch of that number.
func (m *Mem) syncThrough(number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if number >= m.first {
		m.sync(int(number - m.first + 1))
	}
}

// sync makes the first n batches of the journal durable.
func (m *Mem) sync(n int) {
	for _, ops := range m.journal[:n] {
		applyOps(m.durable, ops)
	}
	m.journal = slices.Delete(m.journal, 0, n)
	m.first += uint64(n)
	m.syncs++
}

// view is what readers see now, and is never written.
func (m *Mem) view() (*btree.BTreeG[item], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	if m.shared == nil {
		m.shared = m.visible.Copy()
	}
	return m.shared, nil
}

// own is a copy of what readers see now, for the caller to write in, unless old of version at is that but for what the
// caller wrote.
func (m *Mem) own(old *btree.BTreeG[item], at uint64) (*btree.BTreeG[item], uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, 0, ErrClosed
	case old != nil && at == m.version:
		return old, at, nil
	}
	return m.visible.Copy(), m.version, nil
}

// Get implements Reader.
func (m *Mem) Get(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	return treeGet(m.visible, key)
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
	t, _ := m.view() // of a closed engine: none
	return &memSnapshot{m, t}
}

type memSnapshot struct {
	m *Mem
	t *btree.BTreeG[item] // nil once closed, and if the engine was
}

// open says whether the snapshot and its engine can be read.
func (s *memSnapshot) open() bool {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.t != nil && !s.m.closed
}

func (s *memSnapshot) Get(key []byte) ([]byte, error) {
	if !s.open() {
		return nil, ErrClosed
	}
	return treeGet(s.t, key)
}

func (s *memSnapshot) NewIter(o IterOptions) (Iterator, error) {
	if !s.open() {
		return nil, ErrClosed
	}
	return newMemIter(s.t, o), nil
}

func (s *memSnapshot) Close() error {
	s.t = nil
	return nil
}

// Compact implements Engine: nothing is kept that was overwritten.
func (m *Mem) Compact(ctx context.Context, _ Span) error {
	if err := m.Flush(); err != nil {
		return err
	}
	return ctx.Err()
}

// Flush implements Engine: there is nothing to flush.
func (m *Mem) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	return nil
}

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
