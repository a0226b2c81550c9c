package enginetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

const ks = base.KeyspaceDefault

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
	below := base.Revision(1800)
	it, err = e.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End, MinRevision: 300, BelowRevision: &below})
	must(t, err)
	defer it.Close()
	within := 0
	for ok := it.First(); ok; ok = it.Next() {
		if rev, ok := keys.DataRevision(it.Key()); ok && rev >= 300 && rev < below {
			if within++; within == 100 {
				below = 500 // from here on
			}
		}
	}
	must(t, it.Error())
	if within != 200 {
		t.Errorf("%d revisions from 300 on below 500, want 200", within)
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

func testTurns(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b=2", "c=3", "d=4")
	it, err := e.NewIter(engine.IterOptions{Lower: []byte("b"), Upper: []byte("d")})
	must(t, err)
	defer it.Close()
	want := func(ok bool, key string) {
		t.Helper()
		if ok != it.Valid() || ok != (key != "") || ok && string(it.Key()) != key {
			t.Errorf("valid %v (%v), want %q", ok, it.Valid(), key)
		}
	}
	want(it.Last(), "c")
	want(it.Next(), "")
	want(it.Next(), "")
	want(it.Prev(), "c")
	want(it.Prev(), "b")
	want(it.Prev(), "")
	want(it.Next(), "b")
	want(it.Prev(), "")
	want(it.SeekGE([]byte("x")), "")
	want(it.Prev(), "c")
	want(it.SeekLT([]byte("a")), "")
	want(it.Next(), "b")
	must(t, it.Error())
}
