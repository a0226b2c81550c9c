package eval_test

import (
	"testing"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
)

// engineKinds are the engines that every test of evaluation runs on.
var engineKinds = []struct {
	name string
	open func(testing.TB) engine.Engine
}{
	{"mem", openMem},
	{"pebble", openPebble},
}

func openMem(t testing.TB) engine.Engine {
	t.Helper()
	e := engine.NewMem()
	t.Cleanup(func() { noError(t, e.Close()) })
	return e
}

func openPebble(t testing.TB) engine.Engine {
	t.Helper()
	e, err := engine.OpenPebble(engine.PebbleConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { noError(t, e.Close()) })
	return e
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func noError(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// wipe empties the engine, so that one engine serves many runs.
func wipe(t fataler, e engine.Engine) {
	t.Helper()
	b := e.NewBatch()
	noError(t, b.DeleteRange([]byte{0}, []byte{0xFF}))
	noError(t, b.CommitNoSync())
	noError(t, b.Close())
}

func newEnv(ks base.KeyspaceID) *eval.Env {
	return &eval.Env{Range: testRange, Keyspace: ks, Counters: eval.FirstCounters(), WantResponse: true}
}

// pair is what an engine holds under one key.
type pair struct{ key, value string }

// contents reads all data of a keyspace.
func contents(t fataler, r engine.Reader, ks base.KeyspaceID) (all []pair) {
	t.Helper()
	s := keys.KeyspaceSpan(ks)
	it, err := r.NewIter(engine.IterOptions{Lower: s.Start, Upper: s.End})
	noError(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		noError(t, err)
		all = append(all, pair{string(it.Key()), string(v)})
	}
	noError(t, it.Error())
	noError(t, it.Close())
	return all
}
