package engine

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func openFaulty(t *testing.T) (*Pebble, *DiskFaults, chan error) {
	t.Helper()
	faults, fatal := NewDiskFaults(), make(chan error, 1)
	p, err := OpenPebble(PebbleConfig{Dir: "store", FS: vfs.NewMem(), CacheBytes: 1 << 20, Faults: faults, OnFatal: func(err error) { fatal <- err }})
	if err != nil {
		t.Fatal(err)
	}
	return p, faults, fatal
}

func putSync(t *testing.T, p *Pebble, key string) chan error {
	t.Helper()
	b := p.NewBatch()
	if err := b.Set([]byte(key), []byte("v")); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	wait, err := b.CommitSync()
	if err != nil {
		ended <- err
		return ended
	}
	go func() { ended <- wait() }()
	return ended
}

// A stalled sync ends when the stall does, and not before.
func TestStalledSync(t *testing.T) {
	p, faults, _ := openFaulty(t)
	faults.Set(DiskState{StallSyncs: true})
	ended := putSync(t, p, "a")
	select {
	case err := <-ended:
		t.Fatalf("the sync ended while the disk was stalled: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	faults.Set(DiskState{})
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSlowDisk(t *testing.T) {
	p, faults, _ := openFaulty(t)
	faults.Set(DiskState{Slow: 20 * time.Millisecond})
	began := time.Now()
	if err := <-putSync(t, p, "a"); err != nil || time.Since(began) < 20*time.Millisecond {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	faults.Set(DiskState{})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// A sync or a write that fails is told, once, and nothing is served after it.
func TestFailingDisk(t *testing.T) {
	for name, s := range map[string]DiskState{"sync": {FailSyncs: true}, "write": {FailWrites: true}, "full": {Full: true}} {
		t.Run(name, func(t *testing.T) {
			p, faults, fatal := openFaulty(t)
			faults.Set(s)
			ended := putSync(t, p, "a")
			var err error
			select {
			case err = <-fatal:
			case err = <-ended:
			}
			if !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) && !strings.Contains(err.Error(), "error") {
				t.Errorf("told %v", err)
			}
		})
	}
}

// A compaction that an ingestion has cancelled is no error of the disk: Pebble makes it again. Broken, a node that takes snapshots in
// under load ends (a fill of ten million keys).
func TestCancelledCompactionIsNoError(t *testing.T) {
	p, _, fatal := openFaulty(t)
	defer p.Close()
	p.listener().BackgroundError(fmt.Errorf("compacting: %w", pebble.ErrCancelledCompaction))
	select {
	case err := <-fatal:
		t.Fatal(err)
	default:
	}
	b := p.NewBatch()
	defer b.Close()
	if err := errors.Join(b.Set([]byte("a"), []byte("1")), b.CommitNoSync()); err != nil {
		t.Errorf("the store has stopped: %v", err)
	}
}
