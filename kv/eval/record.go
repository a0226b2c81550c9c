package eval

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/keys"
)

// Record is one version of a key as it is stored. The revision of the write is in the engine key; the value is
//
//	flags
//	created   uvarint, how many revisions before this one the key was created   ┐ neither for a tombstone
//	version   uvarint                                                           ┘ nor with flagFirst
//	lease     uvarint, with flagLease
//	sub       uvarint, with flagSub
//	the user's bytes, to the end
//
// Each record has exactly one encoding, so that replicas can be compared byte by byte.
type Record struct {
	Create  base.Revision // of the write that began the key's present life
	Mod     base.Revision // of this write
	Version int64         // counts the writes of the present life, from 1
	Lease   int64         // 0: none
	// Sub orders the writes of one revision, from 0.
	Sub uint32
	// Tombstone ends the key's life: only Mod and Sub are set.
	Tombstone bool
	Value     []byte
}

const (
	flagTombstone = 1 << iota
	flagFirst     // created by this write, version 1
	flagLease
	flagSub
	flagsKnown = flagTombstone | flagFirst | flagLease | flagSub
)

// AppendRecord appends the record's stored value.
func AppendRecord(dst []byte, r *Record) []byte {
	var flags byte
	first := r.Create == r.Mod && r.Version == 1
	switch {
	case r.Tombstone:
		flags |= flagTombstone
	case first:
		flags |= flagFirst
	}
	if r.Lease != 0 && !r.Tombstone {
		flags |= flagLease
	}
	if r.Sub != 0 {
		flags |= flagSub
	}
	dst = append(dst, flags)
	if !r.Tombstone && !first {
		dst = binary.AppendUvarint(dst, uint64(r.Mod-r.Create))
		dst = binary.AppendUvarint(dst, uint64(r.Version))
	}
	if flags&flagLease != 0 {
		dst = binary.AppendUvarint(dst, uint64(r.Lease))
	}
	if flags&flagSub != 0 {
		dst = binary.AppendUvarint(dst, uint64(r.Sub))
	}
	if r.Tombstone {
		return dst
	}
	return append(dst, r.Value...)
}

var (
	errRecordFlags  = errors.New("unknown flags in a record")
	errRecordNumber = errors.New("a number in a record is cut off, out of bounds or not in its shortest form")
	errRecordTail   = errors.New("a tombstone with bytes behind it")
)

// DecodeRecord takes a stored value apart; mod is the revision in its engine key. Record.Value is part of b.
func DecodeRecord(mod base.Revision, b []byte) (Record, error) {
	if len(b) == 0 || b[0]&^flagsKnown != 0 || mod < 1 {
		return Record{}, errRecordFlags
	}
	flags := b[0]
	r := Record{Mod: mod, Tombstone: flags&flagTombstone != 0}
	d := recordDecoder{b: b[1:]}
	switch {
	case r.Tombstone:
		if flags&(flagFirst|flagLease) != 0 {
			return Record{}, errRecordFlags
		}
	case flags&flagFirst != 0:
		r.Create, r.Version = mod, 1
	default:
		r.Create = mod - base.Revision(d.number(0, uint64(mod)-1))
		r.Version = int64(d.number(1, 1<<63-1))
		if r.Create == mod && r.Version == 1 {
			return Record{}, errRecordNumber
		}
	}
	if flags&flagLease != 0 {
		r.Lease = int64(d.number(1, 1<<64-1))
	}
	if flags&flagSub != 0 {
		r.Sub = uint32(d.number(1, 1<<32-1))
	}
	if d.bad {
		return Record{}, errRecordNumber
	}
	if r.Tombstone && len(d.b) != 0 {
		return Record{}, errRecordTail
	}
	if !r.Tombstone {
		r.Value = d.b
	}
	return r, nil
}

type recordDecoder struct {
	b   []byte
	bad bool
}

func (d *recordDecoder) number(least, most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v < least || v > most || n > 1 && d.b[n-1] == 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// isTombstone looks at a stored value without decoding it.
func isTombstone(v []byte) bool { return len(v) > 0 && v[0]&flagTombstone != 0 }

// hasLease looks at a stored value without decoding it.
func hasLease(v []byte) bool { return len(v) > 0 && v[0]&flagLease != 0 }

// KeyValue is the version as clients see it. It shares the memory of key and of r.
func (r *Record) KeyValue(key []byte) *mvccpb.KeyValue {
	kv := new(mvccpb.KeyValue)
	r.fill(kv, key)
	return kv
}

func (r *Record) fill(kv *mvccpb.KeyValue, key []byte) {
	kv.Key, kv.Value, kv.Lease = key, r.Value, r.Lease
	kv.CreateRevision, kv.ModRevision, kv.Version = int64(r.Create), int64(r.Mod), r.Version
}

func corruptRecord(engineKey []byte, cause error) error {
	return &base.Corruption{Where: keys.Pretty(engineKey), Cause: cause}
}

// splitVersion takes the key of a version apart into its prefix and its revision.
func splitVersion(k []byte) (prefix []byte, rev base.Revision, err error) {
	n := len(k) - keys.RevisionLen
	if n <= 0 {
		return nil, 0, corruptRecord(k, fmt.Errorf("%d bytes are too short for the key of a version", len(k)))
	}
	return k[:n], base.Revision(^binary.BigEndian.Uint64(k[n:])), nil
}
