package engine

import (
	"bytes"
	"errors"

	"github.com/tidwall/btree"
)

// errBatchDone answers a second commit of a batch.
var errBatchDone = errors.New("the batch was committed or closed already")

// memBatch collects operations.
type memBatch struct {
	m       *Mem
	indexed bool
	ops     []op
	size    int
	done    bool

	// What readers of an indexed batch see: m as it was after its commit number at, under the first applied of ops.
	view    *btree.BTreeG[item]
	at      uint64
	applied int
}

// NewBatch implements Engine.
func (m *Mem) NewBatch() Batch { return &memBatch{m: m} }

// NewIndexedBatch implements Engine.
func (m *Mem) NewIndexedBatch() Batch { return &memBatch{m: m, indexed: true} }

func (b *memBatch) add(kind opKind, x, y []byte) error {
	b.ops = append(b.ops, op{kind, append([]byte{}, x...), append([]byte{}, y...)})
	b.size += len(x) + len(y) + 8
	return nil
}

func (b *memBatch) Set(key, value []byte) error { return b.add(opSet, key, value) }
func (b *memBatch) Delete(key []byte) error     { return b.add(opDelete, key, nil) }
func (b *memBatch) Len() int                    { return b.size }
func (b *memBatch) Empty() bool                 { return len(b.ops) == 0 }

func (b *memBatch) DeleteRange(start, end []byte) error {
	if bytes.Compare(start, end) >= 0 {
		return nil
	}
	return b.add(opDeleteRange, start, end)
}

// merged is the engine under the batch's own writes, kept until either is written.
func (b *memBatch) merged() (*btree.BTreeG[item], error) {
	if !b.indexed {
		panic("engine: a batch that is not indexed cannot be read")
	}
	t, at, err := b.m.own(b.view, b.at)
	if err != nil {
		return nil, err
	}
	if t != b.view {
		b.view, b.at, b.applied = t, at, 0
	}
	applyOps(b.view, b.ops[b.applied:])
	b.applied = len(b.ops)
	return b.view, nil
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
	return newMemIter(t.Copy(), o), nil
}

// commit hands the writes over; the batch keeps none.
func (b *memBatch) commit() (number uint64, err error) {
	if b.done {
		return 0, errBatchDone
	}
	number, err = b.m.commit(b.ops, b.size)
	if err == nil {
		b.done, b.view = true, nil
	}
	return number, err
}

func (b *memBatch) CommitNoSync() error {
	_, err := b.commit()
	return err
}

func (b *memBatch) CommitSync() (func() error, error) {
	number, err := b.commit()
	if err != nil {
		return nil, err
	}
	return func() error { b.m.syncThrough(number); return nil }, nil
}

func (b *memBatch) Close() error {
	b.done, b.view = true, nil
	return nil
}
