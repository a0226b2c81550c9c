package sim

import (
	"bytes"
	"errors"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/engine/enginetest"
	"github.com/cairndb/cairn/kv/keys"
)

// disk is what survives a node's process.
type disk interface {
	open() (engine.Engine, error)
	// crash ends the engine and keeps what is synced, and of the unsynced batches a part: lose is the percentage that is
	// lost from the end. 0 is what a kill of the process alone leaves.
	crash(r *base.Rand, lose int64) error
	// image is what a crash now would leave, without ending anything; nil if this disk cannot tell.
	image(r *base.Rand, lose int64) *engine.Mem
}

// mapDisk is the ordered map: it knows what is synced and what is not.
type mapDisk struct{ eng *engine.Mem }

func (d *mapDisk) open() (engine.Engine, error) { return d.eng, nil }

func (d *mapDisk) crash(r *base.Rand, lose int64) error {
	d.eng = d.image(r, lose)
	return nil
}

func (d *mapDisk) image(r *base.Rand, lose int64) *engine.Mem {
	unsynced := d.eng.Unsynced()
	keep := unsynced
	if lose > 0 {
		// Any prefix can be what is left; lose is how much of it may go.
		least := int64(unsynced) * (100 - min(lose, 100)) / 100
		keep = int(least + r.Int63n(int64(unsynced)-least+1))
	}
	return d.eng.Crash(keep)
}

// pebbleDisk is the product's engine on a file system in memory. What its background work has written at an instant is not
// the same at every run, so it syncs only when the simulation says so, and a crash keeps all or nothing of the rest.
type pebbleDisk struct {
	disk *enginetest.Disk
	eng  *engine.Pebble
}

func (d *pebbleDisk) open() (engine.Engine, error) {
	if d.eng == nil {
		eng, err := d.disk.Open()
		if err != nil {
			return nil, err
		}
		d.eng = eng
	}
	return d.eng, nil
}

func (d *pebbleDisk) crash(_ *base.Rand, lose int64) error {
	if lose < 50 {
		// The process is gone and the machine is not: what was written is with the system.
		if err := syncNow(d.eng); err != nil {
			return err
		}
	}
	d.disk = d.disk.Crash(0)
	err := d.eng.Close()
	d.eng = nil
	return err
}

func (d *pebbleDisk) image(*base.Rand, int64) *engine.Mem { return nil }

func syncNow(eng engine.Engine) error {
	wait, err := eng.NewBatch().CommitSync()
	if err != nil {
		return err
	}
	return wait()
}

// faulty is an engine as a process sees it: syncs end when the simulated disk says so, and operations fail when a fault
// says so. before and after are told of the points at which a crash may come.
type faulty struct {
	engine.Engine
	lazy  bool // sync at the end of the wait: the engine below would begin at once
	fail  error
	point func(name string)
	born  func(id base.RangeID, replica uint64)
	sworn func(id base.RangeID, hard []byte)
}

var errDisk = errors.New("input/output error (simulated)")

// NewBatch implements engine.Engine.
func (f *faulty) NewBatch() engine.Batch { return &faultyBatch{Batch: f.Engine.NewBatch(), f: f} }

// NewIndexedBatch implements engine.Engine.
func (f *faulty) NewIndexedBatch() engine.Batch {
	return &faultyBatch{Batch: f.Engine.NewIndexedBatch(), f: f, applies: true}
}

// Ingest implements engine.Engine.
func (f *faulty) Ingest(paths []string, excise engine.Span) error {
	f.point("before ingest")
	if f.fail != nil {
		return f.fail
	}
	err := f.Engine.Ingest(paths, excise)
	f.point("after ingest")
	return err
}

type faultyBatch struct {
	engine.Batch
	f       *faulty
	applies bool
	splits  bool // a replica is born in it
	merges  bool // one is taken over in it
	bornID  base.RangeID
}

// Set implements engine.Writer.
func (b *faultyBatch) Set(key, value []byte) error {
	if id, ok := keys.DecodeRaftReplicaID(key); ok && b.applies {
		b.splits, b.bornID = true, id
		b.f.born(id, be64(value))
	}
	b.merges = b.merges || b.applies && keys.IsRaftTombstone(key)
	if b.splits && bytes.Equal(key, keys.RaftHardState(b.bornID)) {
		b.f.sworn(b.bornID, value)
	}
	return b.Batch.Set(key, value)
}

// CommitNoSync implements engine.Batch.
func (b *faultyBatch) CommitNoSync() error {
	b.f.point("before apply")
	if b.splits {
		b.f.point("before split")
	}
	if b.merges {
		b.f.point("before merge")
	}
	if b.f.fail != nil {
		return b.f.fail
	}
	err := b.Batch.CommitNoSync()
	b.f.point("after apply")
	if b.splits {
		b.f.point("after split")
	}
	if b.merges {
		b.f.point("after merge")
	}
	return err
}

// CommitSync implements engine.Batch.
func (b *faultyBatch) CommitSync() (func() error, error) {
	b.f.point("before append")
	if b.f.fail != nil {
		return nil, b.f.fail
	}
	if !b.f.lazy {
		wait, err := b.Batch.CommitSync()
		b.f.point("after append")
		return wait, err
	}
	if err := b.Batch.CommitNoSync(); err != nil {
		return nil, err
	}
	return func() error {
		defer b.Batch.Close()
		return syncNow(b.f.Engine)
	}, nil
}
