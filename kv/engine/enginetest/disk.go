package enginetest

import (
	"math/rand/v2"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/cairndb/cairn/kv/engine"
)

// Disk is a disk in memory for Pebble, on which a process can crash at any operation: what was not synced may then be
// gone, all of it or some.
type Disk struct {
	fs *vfs.MemFS

	mu     sync.Mutex
	rng    *rand.Rand
	before func() // called before each operation that writes
}

// NewDisk returns an empty disk. The seed decides which of the unsynced data a crash leaves.
func NewDisk(seed uint64) *Disk {
	return &Disk{fs: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(seed, 1))}
}

// Open opens the store on the disk, which must not be open.
func (d *Disk) Open() (*engine.Pebble, error) {
	fs := errorfs.Wrap(d.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			d.mu.Lock()
			before := d.before
			d.mu.Unlock()
			if before != nil {
				before()
			}
		}
		return nil
	}))
	return engine.OpenPebble(engine.PebbleConfig{Dir: "store", FS: fs, CacheBytes: 1 << 20})
}

// Watch has f called before each operation that writes, from whatever goroutine does so; nil ends it.
func (d *Disk) Watch(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = f
}

// Crash returns what a crash now leaves: everything synced, and of the rest each part with the given chance.
func (d *Disk) Crash(percent int) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	fs := d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: d.rng})
	return &Disk{fs: fs, rng: rand.New(rand.NewPCG(d.rng.Uint64(), 1))}
}
