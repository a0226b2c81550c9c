package engine

import (
	"bytes"
	"errors"

	"github.com/tidwall/btree"

	"github.com/cairndb/cairn/kv/keys"
)

// memIter walks one tree, which nobody else changes.
type memIter struct {
	it     btree.IterG[item]
	o      IterOptions
	prefix []byte // of SeekPrefixGE; nil: none
	at     memPosition
	err    error
}

var (
	errOutside = errors.New("SeekPrefixGE to a prefix outside of the iterator's bounds")
	errUpper   = errors.New("NextPrefix of an iterator whose upper bound lies between versions of a key")
)

type memPosition uint8

const (
	unpositioned memPosition = iota
	onKey
	beforeAll // of the keys within the bounds
	afterAll
)

func newMemIter(t *btree.BTreeG[item], o IterOptions) *memIter { return &memIter{it: t.Iter(), o: o} }

// forward says whether a step that went up ended on a key; it is not below the lower bound.
func (i *memIter) forward(found bool) bool {
	i.at = afterAll
	if found {
		k := i.it.Item().key
		if bytes.Compare(k, i.o.Upper) < 0 && (i.prefix == nil || bytes.Equal(k[:keys.Split(k)], i.prefix)) {
			i.at = onKey
		}
	}
	return i.at == onKey
}

// backward says whether a step that went down ended on a key; it is below the upper bound.
func (i *memIter) backward(found bool) bool {
	i.at = beforeAll
	if found && bytes.Compare(i.it.Item().key, i.o.Lower) >= 0 {
		i.at = onKey
	}
	return i.at == onKey
}

func (i *memIter) seekGE(key []byte) bool {
	if bytes.Compare(key, i.o.Lower) < 0 {
		key = i.o.Lower
	}
	return i.forward(i.it.Seek(item{key: key}))
}

func (i *memIter) SeekGE(key []byte) bool {
	i.prefix = nil
	return i.seekGE(key)
}

func (i *memIter) SeekPrefixGE(key []byte) bool {
	i.prefix = append([]byte{}, key[:keys.Split(key)]...)
	has := func(bound []byte) bool { return bytes.Equal(bound[:keys.Split(bound)], i.prefix) }
	if bytes.Compare(key, i.o.Lower) < 0 && !has(i.o.Lower) || bytes.Compare(key, i.o.Upper) > 0 && !has(i.o.Upper) {
		i.err, i.at = errOutside, afterAll
		return false
	}
	return i.seekGE(key)
}

func (i *memIter) SeekLT(key []byte) bool {
	i.prefix = nil
	if bytes.Compare(key, i.o.Upper) > 0 {
		key = i.o.Upper
	}
	if i.it.Seek(item{key: key}) {
		return i.backward(i.it.Prev())
	}
	return i.backward(i.it.Last())
}

func (i *memIter) First() bool { return i.SeekGE(i.o.Lower) }
func (i *memIter) Last() bool  { return i.SeekLT(i.o.Upper) }

func (i *memIter) Next() bool {
	switch i.at {
	case onKey:
		return i.forward(i.it.Next())
	case beforeAll:
		return i.First()
	}
	return false
}

func (i *memIter) Prev() bool {
	switch i.at {
	case onKey:
		return i.backward(i.it.Prev())
	case afterAll:
		return i.Last()
	}
	return false
}

func (i *memIter) NextPrefix() bool {
	switch {
	case keys.Split(i.o.Upper) != len(i.o.Upper):
		i.err, i.at = errUpper, afterAll
		return false
	case i.at != onKey:
		return i.Next()
	}
	k := i.it.Item().key
	return i.seekGE(immediateSuccessor(nil, k[:keys.Split(k)]))
}

func (i *memIter) Valid() bool            { return i.at == onKey }
func (i *memIter) Key() []byte            { return i.it.Item().key }
func (i *memIter) Value() ([]byte, error) { return i.it.Item().value, nil }
func (i *memIter) Error() error           { return i.err }

// Close implements Iterator. An iterator that is closed holds no key.
func (i *memIter) Close() error {
	i.at = unpositioned
	return nil
}
