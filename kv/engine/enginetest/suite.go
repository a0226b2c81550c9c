// Package enginetest is what every engine must do: one suite for Pebble and for its twin in memory.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cairndb/cairn/kv/engine"
)

// all is every key.
var all = engine.Span{Start: []byte{0}, End: []byte{0xFF}}

// Run runs the suite; open gives a new, empty engine, which the suite closes.
func Run(t *testing.T, open func(t *testing.T) engine.Engine) {
	for _, c := range []struct {
		name string
		test func(*testing.T, engine.Engine)
	}{
		{"get, set, delete", testBasics},
		{"an indexed batch reads its own writes", testIndexedBatch},
		{"a batch that is not indexed cannot be read", testPlainBatch},
		{"iterators in both directions within bounds", testIterators},
		{"an iterator that ran off an end comes back", testTurns},
		{"prefix seeks and next prefix", testPrefix},
		{"the filter by revision hides nothing newer", testMinRevision},
		{"a snapshot and an iterator see one instant", testSnapshot},
		{"a compaction of a span changes nothing", testCompact},
		{"tables replace spans as one", testTables},
		{"an excision without tables", testExciseOnly},
		{"an ingestion does not reach views from before it", testIngestUnderViews},
		{"snapshots during ingestions", testSnapshotsDuringIngests},
		{"snapshots where nothing is in memory", testSnapshotsOfTables},
		{"an ingestion that fails changes nothing", testBadTable},
		{"tables that overlap are refused", testOverlap},
		{"a table out of order is refused", testDisorder},
		{"staged files", testFiles},
		{"a closed engine answers with an error", testClosed},
		{"what is closed twice is closed once", testCloseTwice},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := open(t)
			defer e.Close()
			c.test(t, e)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write commits "k=v" pairs, "-k" deletions and "-[a,b)" deletions of spans as one batch.
func write(t *testing.T, e engine.Engine, sync bool, ops ...string) {
	t.Helper()
	b := e.NewBatch()
	fill(t, b, ops...)
	if !sync {
		must(t, b.CommitNoSync())
		must(t, b.Close())
		return
	}
	wait, err := b.CommitSync()
	must(t, err)
	must(t, wait())
}

func fill(t *testing.T, w engine.Writer, ops ...string) {
	t.Helper()
	for _, o := range ops {
		switch {
		case strings.HasPrefix(o, "-["):
			start, end, _ := strings.Cut(strings.TrimSuffix(o[2:], ")"), ",")
			must(t, w.DeleteRange([]byte(start), []byte(end)))
		case strings.HasPrefix(o, "-"):
			must(t, w.Delete([]byte(o[1:])))
		default:
			k, v, _ := strings.Cut(o, "=")
			must(t, w.Set([]byte(k), []byte(v)))
		}
	}
}

// dump is everything that a reader holds, as "k=v k=v".
func dump(t *testing.T, r engine.Reader) string {
	t.Helper()
	it, err := r.NewIter(engine.IterOptions{Lower: all.Start, Upper: all.End})
	must(t, err)
	defer it.Close()
	var out []string
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		must(t, err)
		out = append(out, fmt.Sprintf("%s=%s", it.Key(), v))
	}
	must(t, it.Error())
	return strings.Join(out, " ")
}

func wantDump(t *testing.T, r engine.Reader, want string) {
	t.Helper()
	if got := dump(t, r); got != want {
		t.Fatalf("holds %q, want %q", got, want)
	}
}

func testBasics(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b=2", "c=3")
	write(t, e, false, "-b", "d=4", "a=5")
	wantDump(t, e, "a=5 c=3 d=4")
	if _, err := e.Get([]byte("b")); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("a deleted key: %v", err)
	}
	v, err := e.Get([]byte("a"))
	must(t, err)
	v[0] = 'x' // it is a copy
	write(t, e, false, "-[a,d)", "b=6")
	wantDump(t, e, "b=6 d=4")
	b := e.NewBatch()
	if !b.Empty() {
		t.Error("a new batch is not empty")
	}
	fill(t, b, "z=1")
	if b.Empty() || b.Len() == 0 {
		t.Error("a batch with a write is empty")
	}
	must(t, b.Close())
	must(t, b.Close())
	wantDump(t, e, "b=6 d=4")
	empty := e.NewBatch()
	wait, err := empty.CommitSync()
	must(t, err)
	must(t, wait())
}

func testPlainBatch(t *testing.T, e engine.Engine) {
	b := e.NewBatch()
	defer b.Close()
	defer func() {
		if recover() == nil {
			t.Error("it was read")
		}
	}()
	_, _ = b.Get([]byte("a"))
}

func testIndexedBatch(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b=2", "c=3", "d=4")
	b := e.NewIndexedBatch()
	defer b.Close()
	fill(t, b, "b=9", "-c", "e=5")
	wantDump(t, b, "a=1 b=9 d=4 e=5")
	wantDump(t, e, "a=1 b=2 c=3 d=4")
	it, err := b.NewIter(engine.IterOptions{Lower: all.Start, Upper: all.End})
	must(t, err)
	defer it.Close()
	fill(t, b, "-[a,c)", "f=6")
	wantDump(t, b, "d=4 e=5 f=6")
	if !it.First() || string(it.Key()) != "a" {
		t.Error("an iterator sees what was written after it was made")
	}
	write(t, e, true, "a=7", "g=8") // a reader of the batch sees what the engine holds now
	wantDump(t, b, "d=4 e=5 f=6 g=8")
	if v, err := b.Get([]byte("e")); err != nil || string(v) != "5" {
		t.Errorf("the batch's own write: %q, %v", v, err)
	}
	if _, err := b.Get([]byte("a")); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("a key in a span that the batch deletes: %v", err)
	}
	fill(t, b, "a=9", "-[e,f)")
	wantDump(t, b, "a=9 d=4 f=6 g=8")
	must(t, b.CommitNoSync())
	wantDump(t, e, "a=9 d=4 f=6 g=8")
}

func testClosed(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1")
	b, x := e.NewBatch(), e.NewIndexedBatch()
	fill(t, b, "b=2")
	fill(t, x, "b=2")
	path := table(t, e, "0", "b=3")
	must(t, e.Close())
	for what, call := range map[string]func() error{
		"Get":          func() error { _, err := e.Get([]byte("a")); return err },
		"NewIter":      func() error { _, err := e.NewIter(engine.IterOptions{Lower: all.Start, Upper: all.End}); return err },
		"CommitNoSync": b.CommitNoSync,
		"CommitSync":   func() error { _, err := x.CommitSync(); return err },
		"batch Get":    func() error { _, err := x.Get([]byte("b")); return err },
		"batch NewIter": func() error {
			_, err := x.NewIter(engine.IterOptions{Lower: all.Start, Upper: all.End})
			return err
		},
		"new batch":     func() error { return e.NewBatch().CommitNoSync() },
		"snapshot Get":  func() error { _, err := e.NewSnapshot().Get([]byte("a")); return err },
		"Ingest":        func() error { return e.Ingest([]string{path}, engine.Span{Start: []byte("b"), End: []byte("c")}) },
		"CreateFile":    func() error { _, err := e.CreateFile(path); return err },
		"CreateScratch": func() error { _, err := e.CreateScratch(path); return err },
		"OpenFile":      func() error { _, err := e.OpenFile(path); return err },
		"Flush":         e.Flush,
		"Compact":       func() error { return e.Compact(t.Context(), all) },
		"Size":          func() error { _, err := e.Size(all); return err },
	} {
		if err := call(); !errors.Is(err, engine.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, b.Close())
	must(t, x.Close())
	must(t, e.NewSnapshot().Close())
	must(t, e.Close())
	_ = e.Metrics() // answers, whatever
}

func testCompact(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b=2", "c=3")
	must(t, e.Flush())
	write(t, e, true, "b=4", "-c", "d=5")
	s := e.NewSnapshot()
	defer s.Close()
	write(t, e, true, "-a", "b=6")
	must(t, e.Compact(t.Context(), engine.Span{Start: []byte("b"), End: []byte("c")}))
	must(t, e.Compact(t.Context(), all))
	wantDump(t, e, "b=6 d=5")
	wantDump(t, s, "a=1 b=4 d=5")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	write(t, e, true, "e=7")
	if err := e.Compact(ended, all); !errors.Is(err, context.Canceled) {
		t.Errorf("a compaction that nobody waits for: %v", err)
	}
	wantDump(t, e, "b=6 d=5 e=7")
}

func testCloseTwice(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1")
	s, b := e.NewSnapshot(), e.NewIndexedBatch()
	it, err := s.NewIter(engine.IterOptions{Lower: all.Start, Upper: all.End})
	must(t, err)
	for range 2 {
		must(t, it.Close())
		must(t, s.Close())
		must(t, b.Close())
	}
	if _, err := s.Get([]byte("a")); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("a closed snapshot: %v", err)
	}
}
