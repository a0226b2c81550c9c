package engine_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
)

// stuckTables has tables wait, once it is told to, as on a disk that is busy.
type stuckTables struct {
	vfs.FS
	stuck atomic.Bool
	met   chan struct{}
	free  chan struct{}
}

func (s *stuckTables) Create(name string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	if s.stuck.Load() && strings.HasSuffix(name, ".sst") && !strings.Contains(name, "staging") {
		select {
		case s.met <- struct{}{}:
		default:
		}
		<-s.free
	}
	return s.FS.Create(name, cat)
}

// While one memtable is on its way to the disk, two more may be begun before commits wait for it: snapshots that are taken in at the
// same time each begin one.
func TestCommitsBesideFlushes(t *testing.T) {
	disk := &stuckTables{FS: vfs.NewMem(), met: make(chan struct{}, 1), free: make(chan struct{})}
	logs := &logCounter{FS: disk}
	p, err := engine.OpenPebble(engine.PebbleConfig{Dir: "store", FS: logs})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20_000 { // memtables begin small, and become larger as they fill
		set(t, p, fmt.Sprint("a", i))
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	await := func(what string, done <-chan struct{}) {
		t.Helper()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s waits for a memtable that is being flushed", what)
		}
	}
	release := sync.OnceFunc(func() { close(disk.free) })
	defer release()
	disk.stuck.Store(true)
	set(t, p, "b")
	flushed := make(chan error, 1+base.SnapshotsInFlight)
	logs.news = make(chan struct{}, 8) // many times as many as are begun
	go func() { flushed <- p.Flush() }()
	<-disk.met
	<-logs.news
	for range base.SnapshotsInFlight {
		set(t, p, "c")
		go func() { flushed <- p.Flush() }()
		await("a flush", logs.news)
		put := make(chan struct{})
		go func() {
			set(t, p, "d")
			close(put)
		}()
		await("a commit", put)
	}
	release()
	for range cap(flushed) {
		if err := <-flushed; err != nil {
			t.Error(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
