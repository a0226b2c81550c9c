package engine_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// loaded is a store on disk with n keys of 16 bytes and values of 128, of revision 5, all in tables.
func loaded(b *testing.B, n int) engine.Engine {
	e, err := engine.OpenPebble(engine.PebbleConfig{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	batch := e.NewBatch()
	for i := range n {
		if err := batch.Set(keys.Data(nil, base.KeyspaceDefault, numberedKey(nil, i), 5), make([]byte, 128)); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(batch.CommitNoSync(), batch.Close(), e.Flush()); err != nil {
		b.Fatal(err)
	}
	return e
}

// numberedKey makes dst a key of 16 bytes.
func numberedKey(dst []byte, i int) []byte {
	return binary.BigEndian.AppendUint64(append(dst[:0], "key:key:"...), uint64(i))
}

// The newest version of a key, as every read of one key finds it: with an iterator made for it, and with one that is kept.
func BenchmarkNewestVersion(b *testing.B) {
	const n = 100_000
	e := loaded(b, n)
	span := keys.KeyspaceSpan(base.KeyspaceDefault)
	open := func() engine.Iterator {
		it, err := e.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End, Prefix: true})
		if err != nil {
			b.Fatal(err)
		}
		return it
	}
	var user, key []byte
	find := func(it engine.Iterator, i int) {
		user = numberedKey(user, i*7919%n)
		key = keys.Data(key[:0], base.KeyspaceDefault, user, 1<<62)
		if !it.SeekPrefixGE(key) {
			b.Fatal("not found")
		}
		if v, err := it.Value(); err != nil || len(v) != 128 {
			b.Fatal(err)
		}
	}
	b.Run("iterator=new", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			it := open()
			find(it, i)
			it.Close()
		}
	})
	b.Run("iterator=kept", func(b *testing.B) {
		it := open()
		defer it.Close()
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			find(it, i)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	const n = 100_000
	e := loaded(b, n)
	var user, key []byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		user = numberedKey(user, i*7919%n)
		key = keys.Data(key[:0], base.KeyspaceDefault, user, 5)
		if _, err := e.Get(key); err != nil {
			b.Fatal(err)
		}
	}
}

// A pass of the applier: 64 sets in one batch, not synced.
func BenchmarkCommit64(b *testing.B) {
	for _, indexed := range []bool{false, true} {
		b.Run(fmt.Sprintf("indexed=%v", indexed), func(b *testing.B) {
			e, err := engine.OpenPebble(engine.PebbleConfig{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			value := make([]byte, 128)
			var user, key []byte
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				begin := e.NewBatch
				if indexed {
					begin = e.NewIndexedBatch
				}
				batch := begin()
				for j := range 64 {
					user = numberedKey(user, i*64+j)
					key = keys.Data(key[:0], base.KeyspaceDefault, user, 5)
					if err := batch.Set(key, value); err != nil {
						b.Fatal(err)
					}
				}
				if err := errors.Join(batch.CommitNoSync(), batch.Close()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
