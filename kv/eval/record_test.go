package eval_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mod := rapid.Int64Range(1, math.MaxInt64).Draw(t, "mod")
		r := eval.Record{
			Mod: base.Revision(mod), Create: base.Revision(rapid.Int64Range(1, mod).Draw(t, "create")),
			Version: rapid.Int64Range(1, math.MaxInt64).Draw(t, "version"), Lease: rapid.Int64().Draw(t, "lease"),
			Sub: rapid.Uint32().Draw(t, "sub"), Value: rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
		}
		if rapid.Bool().Draw(t, "tombstone") {
			r = eval.Record{Mod: r.Mod, Sub: r.Sub, Tombstone: true}
		}
		raw := eval.AppendRecord([]byte("before"), &r)
		got, err := eval.DecodeRecord(r.Mod, raw[len("before"):])
		noError(t, err)
		if !bytes.Equal(got.Value, r.Value) {
			t.Fatalf("value %x, want %x", got.Value, r.Value)
		}
		got.Value, r.Value = nil, nil
		if !sameRecord(got, r) {
			t.Fatalf("got %+v, want %+v", got, r)
		}
	})
}

func sameRecord(a, b eval.Record) bool {
	return a.Create == b.Create && a.Mod == b.Mod && a.Version == b.Version && a.Lease == b.Lease && a.Sub == b.Sub &&
		a.Tombstone == b.Tombstone && bytes.Equal(a.Value, b.Value)
}

// A record has one encoding: what is not it is damage.
func TestRecordDamage(t *testing.T) {
	for name, raw := range map[string][]byte{
		"nothing":                        {},
		"unknown flags":                  {0x10, 1, 1},
		"a tombstone with a value":       {0x01, 'x'},
		"a tombstone with a lease":       {0x05, 3},
		"a tombstone that creates":       {0x03},
		"no numbers":                     {0x00},
		"one number":                     {0x00, 1},
		"a number cut off":               {0x00, 0x80},
		"a number with a zero too many":  {0x00, 0x81, 0x00, 2},
		"created before the beginning":   {0x00, 10, 2},
		"version 0":                      {0x00, 1, 0},
		"a first write that is not said": {0x00, 0, 1},
		"no lease in spite of the flag":  {0x06, 0},
		"no sub in spite of the flag":    {0x0A, 0},
		"a sub that is too large":        {0x0A, 0x80, 0x80, 0x80, 0x80, 0x10},
	} {
		if r, err := eval.DecodeRecord(10, raw); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if _, err := eval.DecodeRecord(0, []byte{0x02}); err == nil {
		t.Error("nothing is written at revision 0")
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(int64(2), []byte{0x02, 'v'})
	f.Add(int64(9), []byte{0x0C, 3, 2, 5, 1, 'v'})
	f.Add(int64(9), []byte{0x09, 200, 1})
	f.Fuzz(func(t *testing.T, mod int64, raw []byte) {
		r, err := eval.DecodeRecord(base.Revision(mod), raw)
		if err != nil {
			return
		}
		if again := eval.AppendRecord(nil, &r); !bytes.Equal(again, raw) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", raw, r, again)
		}
		if r.Mod < 1 || !r.Tombstone && (r.Create < 1 || r.Create > r.Mod || r.Version < 1) {
			t.Fatalf("%x decodes to %+v", raw, r)
		}
	})
}

func TestCounters(t *testing.T) {
	for _, c := range []eval.Counters{eval.FirstCounters(), {Revision: 7, Compacted: 7}, {Revision: math.MaxInt64, Compacted: 0}} {
		var got eval.Counters
		noError(t, got.Unmarshal(c.Marshal()))
		if got != c {
			t.Errorf("got %v, want %v", got, c)
		}
	}
}

func FuzzCounters(f *testing.F) {
	f.Add(eval.FirstCounters().Marshal())
	f.Add(eval.Counters{Revision: 3, Compacted: 4}.Marshal())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := eval.Counters{Revision: 5, Compacted: 2}
		c := before
		if err := c.Unmarshal(raw); err != nil {
			if corruption := (*base.Corruption)(nil); !errors.As(err, &corruption) || c != before {
				t.Fatalf("%v, and the counters are %v", err, c)
			}
			return
		}
		if !bytes.Equal(c.Marshal(), raw) {
			t.Fatalf("%x decodes to %v", raw, c)
		}
	})
}
