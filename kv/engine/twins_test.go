package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// twins are both engines under the same operations: whatever is read must be the same, and a crash of Pebble must leave
// what the twin leaves with some number of its unsynced batches.
type twins struct {
	disk   *vfs.MemFS
	p      *engine.Pebble
	m      *engine.Mem
	snaps  []snapPair
	ps     []func() error // waits of Pebble's synced batches that are under way, and the twin's
	tables int
}

type snapPair struct{ p, m engine.Snapshot }

var everything = engine.IterOptions{Lower: []byte{0}, Upper: []byte{0xFF}}

func (w *twins) open(t *rapid.T) {
	p, err := engine.OpenPebble(engine.PebbleConfig{Dir: "store", FS: w.disk})
	if err != nil {
		t.Fatal(err)
	}
	w.p = p
}

func drawKey(t *rapid.T, label string) []byte {
	k := rapid.SampledFrom([]string{"a", "a\x00", "a\x00\xff", "ab", "b", "c\x00\x01", "d"}).Draw(t, label)
	switch rev := rapid.IntRange(-1, 5).Draw(t, label+" revision"); rev {
	case -1:
		return keys.DataPrefix(nil, base.KeyspaceDefault, []byte(k))
	case 0:
		return append([]byte{0x03}, k...)
	default:
		return keys.Data(nil, base.KeyspaceDefault, []byte(k), base.Revision(rev))
	}
}

// drawSpan draws a span that is not empty.
func drawSpan(t *rapid.T, draw func(*rapid.T, string) []byte) engine.Span {
	s := engine.Span{Start: draw(t, "start"), End: draw(t, "end")}
	switch bytes.Compare(s.Start, s.End) {
	case 1:
		s.Start, s.End = s.End, s.Start
	case 0:
		s.End = append(slices.Clone(s.End), 0xFF)
	}
	return s
}

func drawPrefix(t *rapid.T, label string) []byte {
	k := drawKey(t, label)
	return k[:keys.Split(k)]
}

// fill puts the same random writes into both.
func fill(t *rapid.T, most int, ws ...engine.Writer) {
	for range rapid.IntRange(0, most).Draw(t, "writes") {
		kind, k := rapid.IntRange(0, 4).Draw(t, "kind"), drawKey(t, "key")
		v := rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value")
		var span engine.Span
		if kind == 1 {
			span = drawSpan(t, drawKey)
		}
		for _, w := range ws {
			var err error
			switch kind {
			case 0:
				err = w.Delete(k)
			case 1:
				err = w.DeleteRange(span.Start, span.End)
			default:
				err = w.Set(k, v)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (w *twins) commit(t *rapid.T, a, b engine.Batch) {
	if !rapid.Bool().Draw(t, "sync") {
		if err := errors.Join(a.CommitNoSync(), b.CommitNoSync(), a.Close(), b.Close()); err != nil {
			t.Fatal(err)
		}
		return
	}
	wa, erra := a.CommitSync()
	wb, errb := b.CommitSync()
	if err := errors.Join(erra, errb); err != nil {
		t.Fatal(err)
	}
	w.ps = append(w.ps, func() error { return errors.Join(wa(), wb()) })
}

// wait makes durable what was to be: the twin counts a batch as unsynced until then, Pebble maybe not.
func (w *twins) wait(t *rapid.T) {
	for _, f := range w.ps {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	w.ps = nil
}

func (w *twins) batch(t *rapid.T) {
	a, b := w.p.NewBatch(), w.m.NewBatch()
	fill(t, 6, a, b)
	w.commit(t, a, b)
}

// indexed reads a batch between its writes, and once after a write beside it.
func (w *twins) indexed(t *rapid.T) {
	a, b := w.p.NewIndexedBatch(), w.m.NewIndexedBatch()
	for i := range rapid.IntRange(1, 3).Draw(t, "rounds") {
		fill(t, 4, a, b)
		if i == 1 {
			w.batch(t)
		}
		same(t, a, b)
		k := drawKey(t, "get")
		va, erra := a.Get(k)
		vb, errb := b.Get(k)
		if !bytes.Equal(va, vb) || !errors.Is(erra, errb) {
			t.Fatalf("get %s: %q %v, %q %v", keys.Pretty(k), va, erra, vb, errb)
		}
	}
	if rapid.Bool().Draw(t, "commit") {
		w.commit(t, a, b)
	} else if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
}

// same holds the contents of two readers against each other.
func same(t *rapid.T, a, b engine.Reader) {
	if x, y := content(t, a), content(t, b); x != y {
		t.Fatalf("pebble holds\n%sthe twin holds\n%s", x, y)
	}
}

// walk moves an iterator of each about, within random bounds.
func (w *twins) walk(t *rapid.T) {
	span := drawSpan(t, drawKey)
	o := engine.IterOptions{Lower: span.Start, Upper: span.End, Prefix: rapid.Bool().Draw(t, "prefix")}
	a, erra := w.p.NewIter(o)
	b, errb := w.m.NewIter(o)
	if err := errors.Join(erra, errb); err != nil {
		t.Fatal(err)
	}
	moves := []string{"SeekGE", "SeekLT", "First", "Last", "Next", "Prev", "NextPrefix"}
	if o.Prefix {
		moves = []string{"SeekPrefixGE", "Next"}
	}
	positioned, failed, trace := false, false, ""
	for range rapid.IntRange(1, 12).Draw(t, "moves") {
		how := rapid.SampledFrom(moves).Draw(t, "move")
		if !positioned {
			how = moves[0]
		}
		positioned = true
		k := drawKey(t, "at")
		va, vb := move(a, how, k), move(b, how, k)
		trace += fmt.Sprintf("%s(%s) ", how, keys.Pretty(k))
		if (a.Error() == nil) != (b.Error() == nil) {
			t.Fatalf("%s: pebble says %v, the twin %v", trace, a.Error(), b.Error())
		}
		if a.Error() != nil {
			failed = true
			break
		}
		if va != vb || a.Valid() != va || b.Valid() != vb {
			t.Fatalf("%s: pebble %v, twin %v", trace, va, vb)
		}
		if o.Prefix && !va {
			positioned = false
		}
		if !va {
			continue
		}
		x, erra := a.Value()
		y, errb := b.Value()
		if err := errors.Join(erra, errb); err != nil || !bytes.Equal(a.Key(), b.Key()) || !bytes.Equal(x, y) {
			t.Fatalf("%s: pebble %s=%q, twin %s=%q, %v", trace, keys.Pretty(a.Key()), x, keys.Pretty(b.Key()), y, err)
		}
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil && !failed { // Pebble says its error again
		t.Fatal(err)
	}
}

func move(it engine.Iterator, how string, k []byte) bool {
	switch how {
	case "SeekGE":
		return it.SeekGE(k)
	case "SeekLT":
		return it.SeekLT(k)
	case "SeekPrefixGE":
		return it.SeekPrefixGE(k)
	case "First":
		return it.First()
	case "Last":
		return it.Last()
	case "Next":
		return it.Next()
	case "Prev":
		return it.Prev()
	}
	return it.NextPrefix()
}

// newer reads with a lowest revision: what is at or above it must be the same, what is below may differ.
func (w *twins) newer(t *rapid.T) {
	least := base.Revision(rapid.IntRange(1, 6).Draw(t, "least"))
	var got [2]string
	for i, r := range []engine.Reader{w.p, w.m} {
		o := everything
		o.MinRevision = least
		it, err := r.NewIter(o)
		if err != nil {
			t.Fatal(err)
		}
		for ok := it.First(); ok; ok = it.Next() {
			if rev, ok := keys.DataRevision(it.Key()); ok && rev >= least {
				got[i] += keys.Pretty(it.Key()) + "\n"
			}
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if got[0] != got[1] {
		t.Fatalf("from revision %d on pebble has\n%sthe twin\n%s", least, got[0], got[1])
	}
}

func (w *twins) snapshot(t *rapid.T) {
	if len(w.snaps) > 2 {
		same(t, w.snaps[0].p, w.snaps[0].m)
		if err := errors.Join(w.snaps[0].p.Close(), w.snaps[0].m.Close()); err != nil {
			t.Fatal(err)
		}
		w.snaps = w.snaps[1:]
	}
	w.snaps = append(w.snaps, snapPair{w.p.NewSnapshot(), w.m.NewSnapshot()})
}

// ingest takes in up to three tables that split the key space, and excises a span that has nothing to do with them.
func (w *twins) ingest(t *rapid.T) {
	cuts := [][]byte{{0}, drawPrefix(t, "cut"), drawPrefix(t, "cut"), {0xFF}}
	slices.SortFunc(cuts, bytes.Compare)
	var pp, mp []string
	for i := range len(cuts) - 1 {
		in := engine.Span{Start: cuts[i], End: cuts[i+1]}
		if bytes.Compare(in.Start, in.End) >= 0 {
			continue
		}
		var dels []engine.Span
		if rapid.Bool().Draw(t, "delete") {
			d := drawSpan(t, drawKey)
			d.Start, d.End = slices.MaxFunc([][]byte{d.Start, in.Start}, bytes.Compare), slices.MinFunc([][]byte{d.End, in.End}, bytes.Compare)
			if bytes.Compare(d.Start, d.End) < 0 {
				dels = append(dels, d)
			}
		}
		var sets [][]byte
		for range rapid.IntRange(0, 4).Draw(t, "sets") {
			if k := drawKey(t, "key"); bytes.Compare(k, in.Start) >= 0 && bytes.Compare(k, in.End) < 0 {
				sets = append(sets, k)
			}
		}
		slices.SortFunc(sets, bytes.Compare)
		sets = slices.CompactFunc(sets, bytes.Equal)
		w.tables++
		pp, mp = append(pp, writeTable(t, w.p, w.tables, dels, sets)), append(mp, writeTable(t, w.m, w.tables, dels, sets))
	}
	excise := drawSpan(t, drawPrefix)
	excise.End = excise.End[:keys.Split(excise.End)]
	if bytes.Compare(excise.Start, excise.End) >= 0 {
		excise = engine.Span{Start: []byte{1}, End: []byte{2}}
	}
	if err := errors.Join(w.p.Ingest(pp, excise), w.m.Ingest(mp, excise)); err != nil {
		t.Fatal(err)
	}
}

func writeTable(t *rapid.T, e engine.Engine, n int, dels []engine.Span, sets [][]byte) string {
	path := filepath.Join(e.StagingDir(), fmt.Sprint(n))
	f, err := e.CreateFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tw, err := e.NewTable(f)
	for _, d := range dels {
		err = errors.Join(err, tw.DeleteRange(d.Start, d.End))
	}
	for _, k := range sets {
		err = errors.Join(err, tw.Set(k, fmt.Append(nil, n)))
	}
	if err := errors.Join(err, tw.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *twins) flush(t *rapid.T) {
	if err := errors.Join(w.p.Flush(), w.m.Flush()); err != nil {
		t.Fatal(err)
	}
}

func (w *twins) closeViews(t *rapid.T) {
	for _, s := range w.snaps {
		same(t, s.p, s.m)
		if err := errors.Join(s.p.Close(), s.m.Close()); err != nil {
			t.Fatal(err)
		}
	}
	w.snaps = nil
}

// reopen ends both in order: nothing is lost.
func (w *twins) reopen(t *rapid.T) {
	w.closeViews(t)
	w.wait(t)
	if err := w.p.Close(); err != nil {
		t.Fatal(err)
	}
	w.open(t)
	w.m.SyncTo(w.m.Unsynced())
	w.m = w.m.Crash(0)
}

// crash loses what was not synced: all of it, or what Pebble did not write on its own.
func (w *twins) crash(t *rapid.T) {
	image := w.disk.CrashClone(vfs.CrashCloneCfg{})
	w.closeViews(t)
	w.ps = nil // whether they were synced is not known to anybody
	if err := w.p.Close(); err != nil {
		t.Fatal(err)
	}
	w.disk = image
	w.open(t)
	got := content(t, w.p)
	for keep := range w.m.Unsynced() + 1 {
		if m := w.m.Crash(keep); content(t, m) == got {
			w.m = m
			return
		}
	}
	t.Fatalf("after a crash pebble holds\n%swhich is no prefix of what was committed; synced was\n%s", got, content(t, w.m.Crash(0)))
}

func (w *twins) check(t *rapid.T) {
	same(t, w.p, w.m)
	for _, s := range w.snaps {
		same(t, s.p, s.m)
	}
}

// The same operations on both engines give the same answers.
func TestTwins(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &twins{disk: vfs.NewCrashableMem(), m: engine.NewMem()}
		w.open(rt)
		defer func() {
			for _, s := range w.snaps {
				_ = s.p.Close()
			}
			_ = w.p.Close()
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"batch": w.batch, "more batches": w.batch, "indexed": w.indexed, "walk": w.walk, "newer": w.newer,
			"snapshot": w.snapshot, "ingest": w.ingest, "flush": w.flush, "wait": w.wait, "reopen": w.reopen, "crash": w.crash,
			"": w.check,
		})
	})
}

// content is everything that a reader holds, a line for each key.
func content(t interface{ Fatal(...any) }, r engine.Reader) string {
	it, err := r.NewIter(everything)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s = %q\n", keys.Pretty(it.Key()), v)
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
