package engine_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// What was deleted takes no disk space any more once the span is compacted.
func TestCompactGivesSpaceBack(t *testing.T) {
	e := openPebble(t)
	defer e.Close()
	span := keys.KeyspaceSpan(5)
	const pairs = 2000
	for _, drop := range []bool{false, true} {
		b := e.NewBatch()
		for i := range pairs {
			k := keys.Data(nil, 5, fmt.Appendf(nil, "k%06d", i*7919%pairs), 1)
			v := make([]byte, 500)
			for j := range v {
				v[j] = byte(i * (j + 3) * 2654435761 >> 13) // it shrinks but little
			}
			var err error
			if drop {
				err = b.Delete(k)
			} else {
				err = b.Set(k, v)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(b.CommitNoSync(), b.Close(), e.Flush()); err != nil {
			t.Fatal(err)
		}
		if live := e.Metrics().LiveBytes; !drop && live < pairs*100 {
			t.Errorf("%d bytes are said to be in use", live)
		}
	}
	before, err := e.Size(span)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Compact(t.Context(), span); err != nil {
		t.Fatal(err)
	}
	after, err := e.Size(span)
	if err != nil {
		t.Fatal(err)
	}
	if after != 0 {
		t.Errorf("%d bytes before and %d after, with nothing in it", before, after)
	}
	if live := e.Metrics().LiveBytes; live > pairs*10 {
		t.Errorf("%d bytes are said to be in use, with nothing in it", live)
	}
}

// A compaction that meets an error of the disk ends, and so does the store.
func TestCompactOnABadDisk(t *testing.T) {
	p, fatal := fills(t, errorfs.OpCreate, ".sst")
	if err := p.Compact(t.Context(), engine.Span{Start: []byte("a"), End: []byte("b")}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the compaction ended with %v", err)
	}
	if err := <-fatal; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("OnFatal was told %v", err)
	}
	wantEnded(t, p)
}
