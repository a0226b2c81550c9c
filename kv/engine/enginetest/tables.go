package enginetest

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cairndb/cairn/kv/engine"
)

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

func testExciseOnly(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b=2", "c=3")
	must(t, e.Flush())
	write(t, e, false, "b2=4", "d=5")
	must(t, e.Ingest(nil, engine.Span{Start: []byte("b"), End: []byte("d")}))
	wantDump(t, e, "a=1 d=5")
	empty := table(t, e, "empty")
	must(t, e.Ingest([]string{empty}, engine.Span{Start: []byte("d"), End: []byte("e")}))
	wantDump(t, e, "a=1")
}

// What an ingestion takes away is still there for snapshots and iterators that were made before it, on disk or in
// memory: a snapshot of a range that is being sent is not torn by one that comes in.
func testIngestUnderViews(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b1=2")
	must(t, e.Flush())
	onDisk := e.NewSnapshot()
	defer onDisk.Close()
	write(t, e, true, "b2=3", "c=4")
	inMemory := e.NewSnapshot()
	defer inMemory.Close()
	it, err := inMemory.NewIter(engine.IterOptions{Lower: all.Start, Upper: all.End})
	must(t, err)
	defer it.Close()
	write(t, e, false, "b3=5")
	for i := range 3 {
		set := fmt.Sprintf("b9=%d", i)
		must(t, e.Ingest([]string{table(t, e, "t", set)}, engine.Span{Start: []byte("b"), End: []byte("c")}))
		wantDump(t, e, "a=1 "+set+" c=4")
		wantDump(t, onDisk, "a=1 b1=2")
		wantDump(t, inMemory, "a=1 b1=2 b2=3 c=4")
		must(t, e.Flush())
	}
	var seen []string
	for ok := it.First(); ok; ok = it.Next() {
		seen = append(seen, string(it.Key()))
	}
	must(t, it.Error())
	if got := strings.Join(seen, " "); got != "a b1 b2 c" {
		t.Errorf("an iterator of the snapshot sees %s", got)
	}
	if v, err := onDisk.Get([]byte("b1")); err != nil || string(v) != "2" {
		t.Errorf("a get from the snapshot: %q, %v", v, err)
	}
}

func testOverlap(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b=2")
	span := engine.Span{Start: []byte("a"), End: []byte("z")}
	for _, two := range [][2][]string{
		{{"b=x", "d=x"}, {"c=y"}},
		{{"-[b,d)", "b=x"}, {"c=y"}},
		{{"b=x"}, {"b=y"}},
	} {
		one, other := table(t, e, "1", two[0]...), table(t, e, "2", two[1]...)
		if err := e.Ingest([]string{one, other}, span); err == nil {
			t.Errorf("%v were taken in", two)
		}
		wantDump(t, e, "a=1 b=2")
	}
	touching := []string{table(t, e, "1", "-[b,c)", "b=x"), table(t, e, "2", "c=y")}
	must(t, e.Ingest(touching, span))
	wantDump(t, e, "b=x c=y")
}

func testDisorder(t *testing.T, e engine.Engine) {
	for _, ks := range [][]string{{"b", "a"}, {"a", "a"}} {
		f, err := e.CreateFile(filepath.Join(e.StagingDir(), "disorder"))
		must(t, err)
		tw, err := e.NewTable(f)
		must(t, err)
		must(t, tw.Set([]byte(ks[0]), nil))
		err = tw.Set([]byte(ks[1]), nil)
		if closed := tw.Close(); err == nil && closed == nil {
			t.Errorf("%v were written", ks)
		}
	}
}

func testFiles(t *testing.T, e engine.Engine) {
	dir := filepath.Join(e.StagingDir(), "in")
	path := filepath.Join(dir, "f")
	f, err := e.CreateFile(path)
	must(t, err)
	_, err = f.Write([]byte("hello "))
	must(t, err)
	_, err = f.WriteAt([]byte("world"), 6)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	f, err = e.OpenFile(path)
	must(t, err)
	size, err := f.Size()
	must(t, err)
	got := make([]byte, size)
	_, err = f.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, []byte("hello world")) {
		t.Errorf("the file holds %q", got)
	}
	if n, err := f.ReadAt(got, 6); n != 5 || err != io.EOF {
		t.Errorf("a read over the end: %d, %v", n, err)
	}
	must(t, f.Close())
	must(t, e.RemoveAll(dir))
	must(t, e.RemoveAll(dir)) // nothing is there: nothing to do
	if _, err := e.OpenFile(path); err == nil {
		t.Error("a removed file is there")
	}
	for _, outside := range []string{filepath.Dir(e.StagingDir()), e.StagingDir() + "/../x"} {
		if err := e.RemoveAll(outside); err == nil {
			t.Errorf("%s was removed", outside)
		}
	}
}

// Snapshots are made while ingestions go on: each sees all of an ingestion or nothing of it.
func testSnapshotsDuringIngests(t *testing.T, e engine.Engine) {
	write(t, e, true, "a=1", "b=0")
	stop := make(chan struct{})
	var makers sync.WaitGroup
	for range 4 {
		makers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s := e.NewSnapshot()
				if _, err := s.Get([]byte("b")); err != nil {
					t.Errorf("a snapshot without a key that was always there: %v", err)
				}
				_ = s.Close() // nothing is read of it any more
			}
		})
	}
	for i := range 100 {
		must(t, e.Ingest([]string{table(t, e, "t", fmt.Sprintf("b=%d", i))}, engine.Span{Start: []byte("b"), End: []byte("c")}))
		write(t, e, false, fmt.Sprintf("b1=%d", i))
	}
	close(stop)
	makers.Wait()
	wantDump(t, e, "a=1 b=99 b1=99")
}

// testSnapshotsOfTables: a snapshot keeps what an ingestion excises, also where all that there is came with ingestions: nothing is in
// memory then that would have to be written out first.
func testSnapshotsOfTables(t *testing.T, e engine.Engine) {
	span := engine.Span{Start: []byte("b"), End: []byte("c")}
	for i := range 4 {
		must(t, e.Ingest([]string{table(t, e, "t", fmt.Sprintf("b=%d", i))}, span))
		s := e.NewSnapshot()
		must(t, e.Ingest([]string{table(t, e, "t", "b=new")}, span))
		if v, err := s.Get([]byte("b")); err != nil || string(v) != fmt.Sprint(i) {
			t.Errorf("the snapshot shows %q, %v, not %d", v, err, i)
		}
		must(t, s.Close())
	}
	wantDump(t, e, "b=new")
}
