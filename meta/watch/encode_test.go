package watch

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

func drawRecord(t *rapid.T, label string) *eval.Record {
	mod := rapid.Int64Range(1, 1<<62).Draw(t, label+" mod")
	return &eval.Record{
		Mod: base.Revision(mod), Create: base.Revision(rapid.Int64Range(1, mod).Draw(t, label+" create")),
		Version: rapid.Int64Range(1, 1<<40).Draw(t, label+" version"), Lease: rapid.Int64().Draw(t, label+" lease"),
		Value: rapid.SliceOf(rapid.Byte()).Draw(t, label+" value"),
	}
}

// An event's bytes are those that protobuf makes, and what was made of it is read from them again.
func TestEventIsWhatProtobufMakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ch := &eval.Event{Key: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "key"), Record: *drawRecord(t, "new")}
		if rapid.Bool().Draw(t, "deleted") {
			ch.Record = eval.Record{Tombstone: true, Mod: ch.Record.Mod, Sub: 3}
		}
		want := &mvccpb.Event{Kv: ch.Record.KeyValue(ch.Key)}
		if ch.Record.Tombstone {
			want.Type = mvccpb.Event_DELETE
		}
		plain, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		full := plain
		if rapid.Bool().Draw(t, "with the version before") {
			ch.Prev = drawRecord(t, "old")
			want.PrevKv = ch.Prev.KeyValue(ch.Key)
			if full, err = (proto.MarshalOptions{Deterministic: true}).Marshal(want); err != nil {
				t.Fatal(err)
			}
		}
		ev := EncodeEvent(ch)
		got, err := DecodeEvent(ev.Whole())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []*Event{ev, got} {
			if !bytes.Equal(e.Wire, plain) || !bytes.Equal(e.Whole(), full) || (e.WithPrev != nil) != (ch.Prev != nil) {
				t.Fatalf("%x with %x, want %x with %x", e.Wire, e.WithPrev, plain, full)
			}
			if !bytes.Equal(e.Key, ch.Key) || e.Revision != ch.Record.Mod || e.Delete != ch.Record.Tombstone {
				t.Fatalf("%q at %d, deleted %v", e.Key, e.Revision, e.Delete)
			}
		}
	})
}

// Whatever bytes come from another node, what is taken for an event is one for protobuf too, and means the same.
func FuzzDecodeEvent(f *testing.F) {
	ch := &eval.Event{Key: []byte("key"), Record: eval.Record{Mod: 9, Create: 4, Version: 3, Lease: 7, Value: []byte("value")}}
	f.Add(EncodeEvent(ch).Whole())
	ch.Prev = &eval.Record{Mod: 5, Create: 4, Version: 2, Value: []byte("old")}
	f.Add(EncodeEvent(ch).Whole())
	f.Add(EncodeEvent(&eval.Event{Key: []byte("key"), Record: eval.Record{Mod: 9, Tombstone: true}}).Whole())
	f.Fuzz(func(t *testing.T, raw []byte) {
		ev, err := DecodeEvent(raw)
		if err != nil {
			return
		}
		whole, plain := &mvccpb.Event{}, &mvccpb.Event{}
		if proto.Unmarshal(raw, whole) != nil || proto.Unmarshal(ev.Wire, plain) != nil {
			return // inside of a value's fields protobuf looks closer; a client does too
		}
		if !bytes.Equal(whole.GetKv().GetKey(), ev.Key) || whole.GetKv().GetModRevision() != int64(ev.Revision) ||
			(whole.Type == mvccpb.Event_DELETE) != ev.Delete || plain.PrevKv != nil || (whole.PrevKv != nil) != (ev.WithPrev != nil) {
			t.Fatalf("%v was read as %q at %d", whole, ev.Key, ev.Revision)
		}
	})
}
