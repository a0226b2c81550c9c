package engine_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/engine/enginetest"
)

func openPebble(t *testing.T) engine.Engine {
	e, err := engine.OpenPebble(engine.PebbleConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestPebble(t *testing.T) { enginetest.Run(t, openPebble) }

func TestMem(t *testing.T) {
	enginetest.Run(t, func(*testing.T) engine.Engine { return engine.NewMem() })
}

// crashable is an engine that can be crashed: image opens what a process finds afterwards.
type crashable struct {
	eng   engine.Engine
	image func(seed uint64) engine.Engine
}

func crashables(t *testing.T) map[string]crashable {
	fs := vfs.NewCrashableMem()
	p, err := engine.OpenPebble(engine.PebbleConfig{Dir: "store", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	m := engine.NewMem()
	return map[string]crashable{
		"pebble": {p, func(seed uint64) engine.Engine {
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed * 25), RNG: rand.New(rand.NewPCG(seed, 1))})
			e, err := engine.OpenPebble(engine.PebbleConfig{Dir: "store", FS: clone})
			if err != nil {
				t.Fatalf("the image of a crash does not open: %v", err)
			}
			return e
		}},
		"mem": {m, func(seed uint64) engine.Engine { return m.Crash(int(seed) * m.Unsynced() / 4) }},
	}
}

// A crash keeps everything synced, and a prefix of the batches that were not: never a later one without an earlier one.
func TestCrashKeepsAPrefix(t *testing.T) {
	for name, c := range crashables(t) {
		t.Run(name, func(t *testing.T) {
			defer c.eng.Close()
			synced := 0
			for i := range 60 {
				b := c.eng.NewBatch()
				if err := b.Set(fmt.Appendf(nil, "k%03d", i), fmt.Append(nil, i)); err != nil {
					t.Fatal(err)
				}
				if i%7 != 6 {
					if err := errors.Join(b.CommitNoSync(), b.Close()); err != nil {
						t.Fatal(err)
					}
				} else {
					wait, err := b.CommitSync()
					if err == nil {
						err = wait()
					}
					if err != nil {
						t.Fatal(err)
					}
					synced = i + 1
				}
				if i%5 != 0 {
					continue
				}
				for seed := range uint64(5) {
					img := c.image(seed)
					n := 0
					for ; ; n++ {
						if _, err := img.Get(fmt.Appendf(nil, "k%03d", n)); err != nil {
							break
						}
					}
					if got := strings.Count(content(t, img), "\n"); got != n {
						t.Fatalf("after batch %d: %d keys, but only the first %d without a gap", i, got, n)
					}
					if n < synced || n > i+1 {
						t.Fatalf("after batch %d, %d of them synced: a crash left %d", i, synced, n)
					}
					img.Close()
				}
			}
		})
	}
}

// A store that was closed can be opened again by the same process, with what was in it.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		e, err := engine.OpenPebble(engine.PebbleConfig{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		b := e.NewBatch()
		if err := errors.Join(b.Set(fmt.Append(nil, i), nil), b.CommitNoSync(), b.Close()); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(content(t, e), "\n"); n != i+1 {
			t.Errorf("%d keys after start %d", n, i+1)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
