package engine

import (
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// DiskFaults is a file system below Pebble that can be made unwell while the engine runs: for tests of real processes. An
// engine that is opened without it has nothing of it in its way. Its methods may be called from any goroutine.
type DiskFaults struct {
	mu    sync.Mutex
	cond  sync.Cond
	state DiskState
}

// DiskState is what is wrong with a disk. The zero value is a disk that is well.
type DiskState struct {
	StallSyncs bool          // a sync does not return until this is cleared
	Slow       time.Duration // how much longer each write and each sync takes
	FailReads, FailWrites,
	FailSyncs bool // with an input/output error
	Full bool // writes find no space
}

// NewDiskFaults returns a disk that is well.
func NewDiskFaults() *DiskFaults {
	d := &DiskFaults{}
	d.cond.L = &d.mu
	return d
}

// Set says what is wrong from now on. What waits for a stall to end goes on when it has.
func (d *DiskFaults) Set(s DiskState) {
	d.mu.Lock()
	d.state = s
	d.mu.Unlock()
	d.cond.Broadcast()
}

// wrap puts the faults above a file system.
func (d *DiskFaults) wrap(fs vfs.FS) vfs.FS { return errorfs.Wrap(fs, errorfs.InjectorFunc(d.before)) }

// before is called before each operation, and fails it or makes it wait.
func (d *DiskFaults) before(op errorfs.Op) error {
	sync, write, read := sorts(op.Kind)
	d.mu.Lock()
	for sync && d.state.StallSyncs {
		d.cond.Wait()
	}
	s := d.state
	d.mu.Unlock()
	if s.Slow > 0 && (sync || write) {
		<-time.After(s.Slow) // the fault itself: a disk that takes longer
	}
	switch {
	case s.FailSyncs && sync, s.FailWrites && write, s.FailReads && read:
		return syscall.EIO
	case s.Full && write:
		return syscall.ENOSPC
	}
	return nil
}

func sorts(k errorfs.OpKind) (sync, write, read bool) {
	switch k {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		return true, false, false
	case errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpCreate, errorfs.OpReuseForWrite, errorfs.OpFilePreallocate:
		return false, true, false
	case errorfs.OpFileRead, errorfs.OpFileReadAt:
		return false, false, true
	}
	return false, false, false
}
