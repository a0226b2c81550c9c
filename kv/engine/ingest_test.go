package engine_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/kv/engine"
)

// logCounter counts the logs that are begun.
type logCounter struct {
	vfs.FS
	begun atomic.Int64
	news  chan struct{} // set: told of each
}

func (c *logCounter) Create(name string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	c.count(name)
	return c.FS.Create(name, cat)
}

func (c *logCounter) ReuseForWrite(old, name string, cat vfs.DiskWriteCategory) (vfs.File, error) {
	c.count(name)
	return c.FS.ReuseForWrite(old, name, cat)
}

func (c *logCounter) count(name string) {
	if strings.HasSuffix(name, ".log") {
		c.begun.Add(1)
		if c.news != nil {
			c.news <- struct{}{}
		}
	}
}

// Over keys that lie in memory an ingestion begins new logs, and every commit waits meanwhile; over keys that were flushed it begins
// none. Who ingests what nobody waits for flushes before (node/store).
func TestIngestOverFlushed(t *testing.T) {
	disk := &logCounter{FS: vfs.NewMem()}
	p, _, err := openOn(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, flushed := range []bool{false, true} {
		set(t, p, "b")
		if flushed {
			if err := p.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		set(t, p, "z") // another's, beside it
		path := filepath.Join(p.StagingDir(), "table")
		f, err := p.CreateFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tw, err := p.NewTable(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(tw.DeleteRange([]byte("a"), []byte("c")), tw.Set([]byte("a"), []byte("new")), tw.Close()); err != nil {
			t.Fatal(err)
		}
		before := disk.begun.Load()
		if err := p.Ingest([]string{path}, engine.Span{Start: []byte("a"), End: []byte("c")}); err != nil {
			t.Fatal(err)
		}
		if n := disk.begun.Load() - before; (n == 0) != flushed {
			t.Errorf("flushed %v: %d logs were begun", flushed, n)
		}
		if v, err := p.Get([]byte("a")); err != nil || string(v) != "new" {
			t.Errorf("flushed %v: %q, %v", flushed, v, err)
		}
		if _, err := p.Get([]byte("b")); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("flushed %v: what was to be deleted is there: %v", flushed, err)
		}
	}
}
