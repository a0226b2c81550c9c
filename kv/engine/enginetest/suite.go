// Package enginetest is what every engine must do: one suite for Pebble and for its twin in memory.
package enginetest

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

const ks = base.KeyspaceDefault

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
		{"iterators in both directions within bounds", testIterators},
		{"prefix seeks and next prefix", testPrefix},
		{"the filter by revision hides nothing newer", testMinRevision},
		{"a snapshot and an iterator see one instant", testSnapshot},
		{"tables replace spans as one", testTables},
		{"an ingestion that fails changes nothing", testBadTable},
		{"a closed engine answers with an error", testClosed},
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
	must(t, b.CommitNoSync())
	wantDump(t, e, "d=4 e=5 f=6")
}

func testIterators(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b=2", "c=3", "d=4", "e=5")
	it, err := e.NewIter(engine.IterOptions{Lower: []byte("b"), Upper: []byte("e")})
	must(t, err)
	defer it.Close()
	var seen []string
	for ok := it.Last(); ok; ok = it.Prev() {
		seen = append(seen, string(it.Key()))
	}
	if got := strings.Join(seen, ""); got != "dcb" {
		t.Errorf("backwards: %s", got)
	}
	for _, c := range []struct{ move, at, want string }{
		{"ge", "a", "b"}, {"ge", "bb", "c"}, {"ge", "e", ""}, {"lt", "z", "d"}, {"lt", "c", "b"}, {"lt", "b", ""},
	} {
		ok := false
		if c.move == "ge" {
			ok = it.SeekGE([]byte(c.at))
		} else {
			ok = it.SeekLT([]byte(c.at))
		}
		if ok != (c.want != "") || ok != it.Valid() || ok && string(it.Key()) != c.want {
			t.Errorf("seek %s %s: %v, want %q", c.move, c.at, ok, c.want)
		}
	}
}

func data(key string, rev int64) string {
	return string(keys.Data(nil, ks, []byte(key), base.Revision(rev)))
}

func testPrefix(t *testing.T, e engine.Engine) {
	write(t, e, true, data("a", 1)+"=a1", data("a", 5)+"=a5", data("a\x00b", 3)+"=ab3", data("b", 2)+"=b2", data("b", 4)+"=b4")
	must(t, e.Flush())
	span := keys.KeyspaceSpan(ks)
	it, err := e.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End, Prefix: true})
	must(t, err)
	defer it.Close()
	for _, c := range []struct {
		key  string
		rev  int64
		want string
	}{{"a", 9, "a5"}, {"a", 4, "a1"}, {"a", 0, ""}, {"a\x00b", 9, "ab3"}, {"b", 3, "b2"}, {"absent", 9, ""}} {
		got := ""
		if it.SeekPrefixGE([]byte(data(c.key, c.rev))) {
			v, err := it.Value()
			must(t, err)
			got = string(v)
		}
		if got != c.want {
			t.Errorf("%q at %d: %q, want %q", c.key, c.rev, got, c.want)
		}
		must(t, it.Error())
	}
	walk, err := e.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	must(t, err)
	defer walk.Close()
	var seen []string
	for ok := walk.First(); ok; ok = walk.NextPrefix() {
		v, err := walk.Value()
		must(t, err)
		seen = append(seen, string(v))
	}
	if got := strings.Join(seen, " "); got != "a5 ab3 b4" {
		t.Errorf("newest of each key: %s", got)
	}
}

func testMinRevision(t *testing.T, e engine.Engine) {
	for rev := int64(1); rev <= 2000; rev++ {
		b := e.NewBatch()
		must(t, b.Set([]byte(data(fmt.Sprintf("key%05d", rev), rev)), []byte(strings.Repeat("v", 100))))
		must(t, b.CommitNoSync())
		must(t, b.Close())
	}
	must(t, e.Flush())
	span := keys.KeyspaceSpan(ks)
	it, err := e.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End, MinRevision: 1900})
	must(t, err)
	defer it.Close()
	newer := 0
	for ok := it.First(); ok; ok = it.Next() {
		if rev, ok := keys.DataRevision(it.Key()); ok && rev >= 1900 {
			newer++
		}
	}
	must(t, it.Error())
	if newer != 101 {
		t.Errorf("%d revisions from 1900 on, want 101", newer)
	}
}

func testSnapshot(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b=2")
	s := e.NewSnapshot()
	it, err := e.NewIter(engine.IterOptions{Lower: all.Start, Upper: all.End})
	must(t, err)
	write(t, e, true, "a=9", "-b", "c=3")
	wantDump(t, s, "a=1 b=2")
	if !it.First() || !it.Next() || string(it.Key()) != "b" {
		t.Error("an iterator does not see the instant at which it was made")
	}
	must(t, it.Close())
	must(t, s.Close())
	wantDump(t, e, "a=9 c=3")
}

// table writes a table that deletes spans and sets keys.
func table(t *testing.T, e engine.Engine, name string, ops ...string) string {
	t.Helper()
	path := filepath.Join(e.StagingDir(), "test", name)
	f, err := e.CreateFile(path)
	must(t, err)
	tw, err := e.NewTable(f)
	must(t, err)
	for _, o := range ops {
		if strings.HasPrefix(o, "-[") {
			start, end, _ := strings.Cut(strings.TrimSuffix(o[2:], ")"), ",")
			must(t, tw.DeleteRange([]byte(start), []byte(end)))
			continue
		}
		k, v, _ := strings.Cut(o, "=")
		must(t, tw.Set([]byte(k), []byte(v)))
	}
	must(t, tw.Close())
	return path
}

func testTables(t *testing.T, e engine.Engine) {
	write(t, e, true, "a1=old", "a2=old", "b1=old", "b2=old", "c1=old", "d1=old", "z=old")
	write(t, e, false, "a3=old") // not synced, not flushed
	local := table(t, e, "0", "-[a,b)", "a2=new", "a9=new")
	one, two := table(t, e, "1", "b5=new"), table(t, e, "2", "c2=new", "c3=new")
	must(t, e.Ingest([]string{local, one, two}, engine.Span{Start: []byte("b"), End: []byte("d")}))
	wantDump(t, e, "a2=new a9=new b5=new c2=new c3=new d1=old z=old")
	write(t, e, true, "a2=newer")
	wantDump(t, e, "a2=newer a9=new b5=new c2=new c3=new d1=old z=old")
	must(t, e.RemoveAll(filepath.Join(e.StagingDir(), "test")))
}

func testBadTable(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b=2")
	good := table(t, e, "0", "b=new")
	bad := filepath.Join(e.StagingDir(), "test", "bad")
	f, err := e.CreateFile(bad)
	must(t, err)
	_, err = f.Write([]byte("this is no table of any engine"))
	must(t, err)
	must(t, f.Close())
	if err := e.Ingest([]string{good, bad}, engine.Span{Start: []byte("a"), End: []byte("z")}); err == nil {
		t.Error("a file that is no table was taken in")
	}
	if err := e.Ingest([]string{good, filepath.Join(e.StagingDir(), "test", "absent")}, engine.Span{Start: []byte("a"), End: []byte("z")}); err == nil {
		t.Error("a file that is not there was taken in")
	}
	wantDump(t, e, "a=1 b=2")
}

func testClosed(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1")
	b := e.NewBatch()
	fill(t, b, "b=2")
	must(t, e.Close())
	if _, err := e.Get([]byte("a")); err == nil {
		t.Error("Get")
	}
	if _, err := e.NewIter(engine.IterOptions{Lower: all.Start, Upper: all.End}); err == nil {
		t.Error("NewIter")
	}
	if err := b.CommitNoSync(); err == nil {
		t.Error("CommitNoSync")
	}
	must(t, e.Close())
}
