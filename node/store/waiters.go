package store

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/raftgroup"
)

// Done is told how a proposal or a read ended. It is called exactly once, from a worker or an applier: it must
// not block and must not call back into the store.
type Done func(proto.Message, error)

// waiters holds who waits for which proposal or read. Whoever takes an entry out calls it; so each is called once.
type waiters struct {
	mu      sync.Mutex
	waiting map[uint64]waiter
	stopped bool
}

type waiter struct {
	done     Done
	deadline base.Instant
	write    bool
	latch    *wanted // of one who waits for a latch
}

func newWaiters() *waiters { return &waiters{waiting: make(map[uint64]waiter)} }

// add registers a waiter; false if the store has stopped.
func (w *waiters) add(id uint64, x waiter) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false
	}
	w.waiting[id] = x
	return true
}

// resolve ends one waiter, if it still waits.
func (w *waiters) resolve(id uint64, m proto.Message, err error) {
	w.mu.Lock()
	x, ok := w.waiting[id]
	if ok {
		delete(w.waiting, id)
	}
	w.mu.Unlock()
	if ok {
		if mutant.Is(mutant.AmbiguousAsFailed) {
			err = withoutDoubt(err)
		}
		x.done(m, err)
	}
}

// wanted is what one who waits for a latch wants it for; false if nobody waits.
func (w *waiters) wanted(id uint64) (wanted, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if x, ok := w.waiting[id]; ok && x.latch != nil {
		return *x.latch, true
	}
	return wanted{}, false
}

// resolveReads ends many reads with one hold of the lock.
func (w *waiters) resolveReads(reads []raftgroup.ReadReady) {
	var stack [64]waiter
	found := stack[:0]
	errs := make([]error, 0, 8)
	w.mu.Lock()
	for _, r := range reads {
		if x, ok := w.waiting[uint64(r.ID)]; ok {
			delete(w.waiting, uint64(r.ID))
			found, errs = append(found, x), append(errs, r.Err)
		}
	}
	w.mu.Unlock()
	for i, x := range found {
		x.done(nil, errs[i])
	}
}

// expire ends what has waited past its deadline: a write's outcome is then not known.
func (w *waiters) expire(now base.Instant) {
	w.end(func(x waiter) bool { return x.deadline <= now }, errDeadline)
}

// stop ends everything, and lets nothing more in.
func (w *waiters) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.end(func(waiter) bool { return true }, base.ErrStopped)
}

func (w *waiters) end(which func(waiter) bool, cause error) {
	var ids []uint64
	ended := make(map[uint64]waiter)
	w.mu.Lock()
	for id, x := range w.waiting {
		if which(x) {
			delete(w.waiting, id)
			ids, ended[id] = append(ids, id), x
		}
	}
	w.mu.Unlock()
	slices.Sort(ids) // in the order in which they came: the same at every run of the simulator
	for _, id := range ids {
		x := ended[id]
		if x.write && !mutant.Is(mutant.AmbiguousAsFailed) {
			x.done(nil, &base.Ambiguous{Cause: cause})
		} else {
			x.done(nil, cause)
		}
	}
}
