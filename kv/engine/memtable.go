package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/keys"
)

// NewTable implements Engine. A table of the twin is a list of operations with lengths before their bytes.
func (m *Mem) NewTable(w io.WriteCloser) (TableWriter, error) { return &memTable{w: w}, nil }

type memTable struct {
	w    io.WriteCloser
	last []byte // key that was set last; nil: none
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

func (t *memTable) Set(key, value []byte) error {
	if t.err == nil && t.last != nil && bytes.Compare(t.last, key) >= 0 {
		t.err = fmt.Errorf("a table's keys must ascend: %x after %x", key, t.last)
	}
	t.last = append(t.last[:0:0], key...)
	return t.add(opSet, key, value)
}

func (t *memTable) Size() uint64 { return t.size }
func (t *memTable) Close() error { return errors.Join(t.err, t.w.Close()) }

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
		ops = append(ops, op{kind, append([]byte{}, x...), append([]byte{}, y...)})
	}
	return ops, nil
}

// tableBounds is the span that a table's writes lie in.
func tableBounds(ops []op) (s Span) {
	for _, o := range ops {
		end := o.b
		if o.kind == opSet {
			end = append(o.a[:len(o.a):len(o.a)], 0)
		}
		if s.Start == nil || bytes.Compare(o.a, s.Start) < 0 {
			s.Start = o.a
		}
		if bytes.Compare(end, s.End) > 0 {
			s.End = end
		}
	}
	return s
}

// readTables reads the tables at paths and returns their deletions of spans and then their keys. Called with mu held.
func (m *Mem) readTables(paths []string) ([]op, error) {
	var dels, sets []op
	var spans []Span
	for _, p := range paths {
		f := m.files[p]
		if f == nil {
			return nil, fmt.Errorf("%s: no such file", p)
		}
		ops, err := readTable(f.content())
		if err != nil {
			return nil, err
		}
		for _, o := range ops {
			if o.kind == opSet {
				sets = append(sets, o)
			} else {
				dels = append(dels, o)
			}
		}
		if len(ops) > 0 {
			spans = append(spans, tableBounds(ops))
		}
	}
	slices.SortFunc(spans, func(a, b Span) int { return bytes.Compare(a.Start, b.Start) })
	for i := range len(spans) - 1 {
		if bytes.Compare(spans[i].End, spans[i+1].Start) > 0 {
			return nil, fmt.Errorf("two tables overlap at %x", spans[i+1].Start)
		}
	}
	return append(dels, sets...), nil
}

// Ingest implements Engine. What was committed before is durable after it, as after any later sync.
func (m *Mem) Ingest(paths []string, excise Span) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	if keys.Split(excise.Start) != len(excise.Start) || keys.Split(excise.End) != len(excise.End) {
		return errors.New("an excision cuts between keys, not between versions of one")
	}
	ops, err := m.readTables(paths)
	if err != nil {
		return err
	}
	m.sync(len(m.journal))
	ops = append([]op{{opDeleteRange, excise.Start, excise.End}}, ops...)
	applyOps(m.durable, ops)
	m.change(ops)
	for _, p := range paths {
		delete(m.files, p)
	}
	return nil
}

// StagingDir implements Engine.
func (m *Mem) StagingDir() string { return "staging" }

// staged says whether the file may be reached. Called with mu held.
func (m *Mem) staged(path string) error {
	if m.closed {
		return ErrClosed
	}
	if rel, err := filepath.Rel(m.StagingDir(), path); err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("%s is not below the staging folder", path)
	}
	return nil
}

// CreateFile implements Engine.
func (m *Mem) CreateFile(path string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.staged(path); err != nil {
		return nil, err
	}
	f := &memFile{}
	m.files[path] = f
	return f, nil
}

// CreateScratch implements Engine.
func (m *Mem) CreateScratch(path string) (File, error) { return m.CreateFile(path) }

// OpenFile implements Engine.
func (m *Mem) OpenFile(path string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.staged(path); err != nil {
		return nil, err
	}
	if f := m.files[path]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("%s: no such file", path)
}

// RemoveAll implements Engine.
func (m *Mem) RemoveAll(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.staged(path); err != nil {
		return err
	}
	for p := range m.files {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(m.files, p)
		}
	}
	return nil
}

// memFile is a file of the twin.
type memFile struct {
	mu   sync.Mutex
	data []byte
}

// content is what was written; it is not changed by later writes that only append.
func (f *memFile) content() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.data
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
