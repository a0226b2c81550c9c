package watch

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// An event's bytes on the wire are made here, once, by whoever applies or reads it, and go to clients as they are. The fields are in
// the order of their numbers, as protobuf writes them, so that the version before is the end of the bytes and can be left out.

// The fields of mvccpb.Event and mvccpb.KeyValue.
const (
	eventType, eventKV, eventPrev                              = 1, 2, 3
	kvKey, kvCreate, kvMod, kvVersion, kvValue, kvLease        = 1, 2, 3, 4, 5, 6
	typeDelete                                          uint64 = uint64(mvccpb.Event_DELETE)
)

// EncodeEvent makes the event of a change. It shares no memory with it.
func EncodeEvent(ch *eval.Event) *Event {
	kv := sizeKV(ch.Key, &ch.Record)
	size := 2 + protowire.SizeTag(eventKV) + protowire.SizeBytes(kv)
	prev := 0
	if ch.Prev != nil {
		prev = sizeKV(ch.Key, ch.Prev)
		size += protowire.SizeTag(eventPrev) + protowire.SizeBytes(prev)
	}
	b := make([]byte, 0, size)
	if ch.Record.Tombstone {
		b = protowire.AppendVarint(protowire.AppendTag(b, eventType, protowire.VarintType), typeDelete)
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, eventKV, protowire.BytesType), uint64(kv))
	key := len(b) + protowire.SizeTag(kvKey) + protowire.SizeVarint(uint64(len(ch.Key)))
	b = appendKV(b, ch.Key, &ch.Record)
	ev := &Event{Revision: ch.Record.Mod, Delete: ch.Record.Tombstone, Wire: b[:len(b):len(b)]}
	if len(ch.Key) > 0 {
		ev.Key = b[key : key+len(ch.Key) : key+len(ch.Key)]
	}
	if ch.Prev != nil {
		b = protowire.AppendVarint(protowire.AppendTag(b, eventPrev, protowire.BytesType), uint64(prev))
		ev.WithPrev = appendKV(b, ch.Key, ch.Prev)
	}
	return ev
}

func sizeKV(key []byte, r *eval.Record) (n int) {
	bytes := func(b []byte) {
		if len(b) > 0 {
			n += 1 + protowire.SizeBytes(len(b))
		}
	}
	number := func(v int64) {
		if v != 0 {
			n += 1 + protowire.SizeVarint(uint64(v))
		}
	}
	bytes(key)
	number(int64(r.Create))
	number(int64(r.Mod))
	number(r.Version)
	bytes(r.Value)
	number(r.Lease)
	return n
}

func appendKV(b, key []byte, r *eval.Record) []byte {
	bytes := func(field protowire.Number, v []byte) {
		if len(v) > 0 {
			b = protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
		}
	}
	number := func(field protowire.Number, v int64) {
		if v != 0 {
			b = protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(v))
		}
	}
	bytes(kvKey, key)
	number(kvCreate, int64(r.Create))
	number(kvMod, int64(r.Mod))
	number(kvVersion, r.Version)
	bytes(kvValue, r.Value)
	number(kvLease, r.Lease)
	return b
}

// Whole is the event as it is sent between nodes: with the version before if it is there.
func (e *Event) Whole() []byte {
	if e.WithPrev != nil {
		return e.WithPrev
	}
	return e.Wire
}

var errEvent = errors.New("an event that cannot be read")

// DecodeEvent is the inverse of Whole. The event shares the memory of b.
func DecodeEvent(b []byte) (*Event, error) {
	ev := &Event{Wire: b}
	last := protowire.Number(0)
	for at := 0; at < len(b); {
		field, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 || field <= last { // each once, in order: what follows the event's own is the version before
			return nil, errEvent
		}
		begin := at
		at, last = at+n, field
		switch {
		case field == eventType && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(b[at:])
			if n < 0 || v > typeDelete {
				return nil, errEvent
			}
			at, ev.Delete = at+n, v == typeDelete
		case field == eventKV && typ == protowire.BytesType:
			kv, n := protowire.ConsumeBytes(b[at:])
			if n < 0 || !ev.readKV(kv) {
				return nil, errEvent
			}
			at += n
		case field == eventPrev && typ == protowire.BytesType:
			_, n := protowire.ConsumeBytes(b[at:])
			if n < 0 {
				return nil, errEvent
			}
			at += n
			ev.Wire, ev.WithPrev = b[:begin:begin], b
		default:
			return nil, errEvent
		}
	}
	if ev.Revision <= 0 {
		return nil, errEvent
	}
	return ev, nil
}

// readKV finds the key and the revision.
func (e *Event) readKV(kv []byte) bool {
	for len(kv) > 0 {
		field, typ, n := protowire.ConsumeTag(kv)
		if n < 0 {
			return false
		}
		kv = kv[n:]
		switch {
		case field == kvKey && typ == protowire.BytesType:
			key, n := protowire.ConsumeBytes(kv)
			if n < 0 {
				return false
			}
			e.Key, kv = key[:len(key):len(key)], kv[n:]
		case field == kvMod && typ == protowire.VarintType:
			rev, n := protowire.ConsumeVarint(kv)
			if n < 0 {
				return false
			}
			e.Revision, kv = base.Revision(rev), kv[n:]
		default:
			n := protowire.ConsumeFieldValue(field, typ, kv)
			if n < 0 {
				return false
			}
			kv = kv[n:]
		}
	}
	return true
}

// DecodePage makes the page of a response to a pull. What a node cannot have meant is an error.
func DecodePage(r *rangepb.ChangesResponse) (*Page, error) {
	p := &Page{
		Range: base.RangeID(r.RangeId), Start: r.Start, End: r.End, Next: base.Revision(r.Next), Compacted: base.Revision(r.Compacted),
		Events: make([]*Event, 0, len(r.Events)),
	}
	last := base.Revision(0)
	for _, raw := range r.Events {
		ev, err := DecodeEvent(raw)
		if err != nil {
			return nil, err
		}
		if ev.Revision < last || ev.Revision >= p.Next {
			return nil, errEvent
		}
		last = ev.Revision
		p.Events = append(p.Events, ev)
	}
	return p, nil
}
