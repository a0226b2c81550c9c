package engine

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// lifecycle knows who is inside Pebble, which may be closed only when nobody is, because its memory is freed by hand. It
// also holds the fatal error after which nobody enters any more.
type lifecycle struct {
	calls atomic.Int64 // that entered and have not left
	views atomic.Int64 // iterators and snapshots that are open
	ended atomic.Bool  // nobody enters any more

	idle   chan struct{} // closed when it has ended and the last call has left
	drain  sync.Once
	up     atomic.Bool // it has been opened
	closed atomic.Bool

	mu      sync.Mutex
	onFatal func(error)   // nil until the engine is open
	err     error         // the first fatal error
	failed  chan struct{} // closed when err is set
}

func newLifecycle() *lifecycle {
	return &lifecycle{idle: make(chan struct{}), failed: make(chan struct{})}
}

// enter begins a call; leave ends it if enter did not fail.
func (l *lifecycle) enter() error {
	l.calls.Add(1)
	if l.ended.Load() {
		l.leave()
		return ErrClosed
	}
	return nil
}

func (l *lifecycle) leave() {
	if l.calls.Add(-1) == 0 && l.ended.Load() {
		l.drain.Do(func() { close(l.idle) })
	}
}

// end lets nobody enter any more and waits for the calls that are inside. It says whether the caller is to close the
// engine: once, if there is no view left, and never after a fatal error.
func (l *lifecycle) end() (closes bool, err error) {
	l.ended.Store(true)
	if l.calls.Load() == 0 {
		l.drain.Do(func() { close(l.idle) })
	}
	select {
	case <-l.idle:
	case <-l.failed: // what is inside may never come back
	}
	if l.cause() != nil {
		return false, nil
	}
	if n := l.views.Load(); n > 0 {
		return false, fmt.Errorf("the store is not closed: %d iterators or snapshots are open", n)
	}
	return !l.closed.Swap(true), nil
}

// opened says whom to tell of a fatal error from now on, and returns the one that was met already.
func (l *lifecycle) opened(onFatal func(error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onFatal = onFatal
	l.up.Store(true)
	return l.err
}

// used says whether the engine is open, and is not being closed.
func (l *lifecycle) used() bool { return l.up.Load() && !l.closed.Load() }

// fail ends the engine for good. The first error counts, and is told of once.
func (l *lifecycle) fail(err error) {
	l.ended.Store(true)
	l.mu.Lock()
	first, tell := l.err == nil, l.onFatal
	if first {
		l.err = err
		close(l.failed)
	}
	l.mu.Unlock()
	if first && tell != nil {
		tell(err)
	}
}

func (l *lifecycle) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
