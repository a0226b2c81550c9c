package engine_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

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

// Pebble is crashed before each operation on the disk that writes, and what was not synced is lost, wholly or in part.
func TestPebbleCrash(t *testing.T) {
	for _, percent := range []int{0, 50} {
		t.Run(fmt.Sprintf("unsynced=%d%%", percent), func(t *testing.T) {
			enginetest.RunCrash(t, func(t *testing.T, crash func(func() enginetest.Image)) enginetest.CrashStore {
				disk := enginetest.NewDisk(1)
				p, err := disk.Open()
				if err != nil {
					t.Fatal(err)
				}
				disk.Watch(func() {
					crash(func() enginetest.Image {
						image := disk.Crash(percent)
						return func() (engine.Engine, error) { return image.Open() }
					})
				})
				return enginetest.CrashStore{Engine: p}
			})
		})
	}
}

// The twin is crashed after each step, with every number of its unsynced batches kept.
func TestMemCrash(t *testing.T) {
	enginetest.RunCrash(t, func(_ *testing.T, crash func(func() enginetest.Image)) enginetest.CrashStore {
		m := engine.NewMem()
		return enginetest.CrashStore{Engine: m, Between: func() {
			for keep := range m.Unsynced() + 1 {
				crash(func() enginetest.Image {
					image := m.Crash(keep)
					return func() (engine.Engine, error) { return image, nil }
				})
			}
		}}
	})
}

// A disk that syncs when it likes: what it synced is kept, whatever is lost.
func TestMemSyncTo(t *testing.T) {
	m := engine.NewMem()
	for _, k := range []string{"a", "b", "c"} {
		set(t, m, k)
	}
	m.SyncTo(2)
	if m.Unsynced() != 1 || strings.Count(content(t, m.Crash(0)), "\n") != 2 {
		t.Errorf("%d batches unsynced; a crash leaves %s", m.Unsynced(), content(t, m.Crash(0)))
	}
	m.SyncTo(9) // more than there are: all
	if m.Unsynced() != 0 || strings.Count(content(t, m.Crash(0)), "\n") != 3 {
		t.Errorf("%d batches unsynced; a crash leaves %s", m.Unsynced(), content(t, m.Crash(0)))
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
