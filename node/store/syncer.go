package store

import (
	"sync"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup"
)

// syncer waits, in order, until batches are on disk, and tells the loop. It runs beside the worker so that the
// next pass is made while the last one is being synced: what comes meanwhile shares the next sync.
type syncer struct {
	s   *Store
	box *mailbox

	mu      sync.Mutex
	cond    sync.Cond
	queue   []pendingSync // bounded by what Raft lets be uncommitted
	stopped bool
}

type pendingSync struct {
	seq   uint64
	wait  func() error // nil: nothing to wait for but those before
	began base.Instant // when it was committed
	probe bool         // of supports, and of no loop
	told  func()       // of whoever waits for it, and of no loop
}

// ofLoop says whether a loop is to be told.
func (p *pendingSync) ofLoop() bool { return !p.probe && p.told == nil }

func newSyncer(s *Store, box *mailbox) *syncer {
	y := &syncer{s: s, box: box}
	y.cond.L = &y.mu
	return y
}

func (y *syncer) put(p pendingSync) {
	y.mu.Lock()
	y.queue = append(y.queue, p)
	y.mu.Unlock()
	y.cond.Signal()
}

func (y *syncer) stop() {
	y.mu.Lock()
	y.stopped = true
	y.mu.Unlock()
	y.cond.Signal()
}

// run is the syncer's goroutine. When stopped it ends the waits that are under way first: each holds a batch.
func (y *syncer) run() {
	var spare []pendingSync
	for {
		y.mu.Lock()
		for len(y.queue) == 0 && !y.stopped {
			y.cond.Wait()
		}
		if len(y.queue) == 0 {
			y.mu.Unlock()
			return
		}
		queue := y.queue
		y.queue = spare[:0]
		y.mu.Unlock()
		// Each wait is reported as it ends: the first batch's entries need not wait for the last batch's sync.
		for i, p := range queue {
			if p.wait != nil {
				if err := p.wait(); err != nil {
					y.s.fatal(err)
					return
				}
				y.s.syncs.Record(y.s.Now().Sub(p.began))
				y.s.supports.synced(p.began, p.probe)
			}
			if p.told != nil {
				p.told()
			}
			if !p.ofLoop() {
				continue
			}
			if i+1 < len(queue) && queue[i+1].wait == nil && queue[i+1].ofLoop() {
				continue // told together with the next
			}
			y.box.put(func(ev *raftgroup.Events) { ev.Durable = append(ev.Durable, raftgroup.Durable{Seq: p.seq}) })
		}
		spare = queue
	}
}
