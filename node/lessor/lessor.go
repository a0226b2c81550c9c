// Package lessor runs the leases of clients (RFC 6) for the ranges that this node leads: it answers what only their leader knows, how long
// each lease lasts, and has those revoked that nobody kept alive.
//
// meta/lessor decides; here is when it is asked. A leadership is followed once the range has applied an entry of its term: all that any
// leader before has acknowledged is then read from the store, and what changes later is told by it. A revoke goes into the log of the
// term in which it was decided, or into none. Nothing is answered, and no lease ends, but while this node holds the range's lease.
//
// A range that no lease lives in costs nothing. One that has some is looked at a few times a second, and kept from going cold: its
// deadlines are in memory, and its leader's lease must be there when one of them comes.
package lessor

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

// Dispatcher carries commands to other ranges; node/dispatch does.
type Dispatcher interface {
	// EndLease evicts a lease that is ending from the ranges where it may hold keys, and ends it.
	EndLease(ctx context.Context, ks base.KeyspaceID, l *kvpb.LeaseRecord) (revision int64, err error)
	// NowMicros is the time since the cluster was made.
	NowMicros() int64
}

// Config is what a Lessor works with.
type Config struct {
	Store    *store.Store
	Dispatch Dispatcher
	Logger   *slog.Logger
	// End, if not nil, carries on with a lease that is ending in place of Dispatch, returns at once, and has done called: for whoever turns
	// the Lessor by hand, and has no goroutine that could wait.
	End func(ks base.KeyspaceID, l *kvpb.LeaseRecord, done func(error))
	// ColdAfter is the store's; 0: base's.
	ColdAfter time.Duration
}

// EnsureDefaults fills what was left empty.
func (c *Config) EnsureDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ColdAfter == 0 {
		c.ColdAfter = base.ColdAfter
	}
}

// Lessor is the component. Its methods may be called from any goroutine.
type Lessor struct {
	cfg    Config
	wake   chan struct{} // capacity 1
	enders chan struct{} // a place for each lease that is being ended in several ranges
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.RWMutex
	homes   map[base.RangeID]*home // of the ranges led here
	busy    map[base.RangeID]*home // of these, those that have leases or are to be read
	stopped bool
	elected atomic.Int64 // homes that wait for the first entry of their term

	expired, kept atomic.Uint64
}

// New makes a Lessor. It may be told of changes at once; Start runs it.
func New(cfg Config) *Lessor {
	cfg.EnsureDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	return &Lessor{
		cfg: cfg, wake: make(chan struct{}, 1), enders: make(chan struct{}, base.LeaseEnders), ctx: ctx, cancel: cancel,
		homes: make(map[base.RangeID]*home), busy: make(map[base.RangeID]*home),
	}
}

// Start runs it.
func (l *Lessor) Start() { l.wg.Go(l.run) }

// Stop ends it. What was begun is finished by whoever leads next.
func (l *Lessor) Stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.cancel()
	l.wg.Wait()
}

// Counts is what the leases of the ranges led here are and were.
type Counts struct {
	Leases        int    // that live here
	Expired, Kept uint64 // since the start: leases whose time was over, and keep-alives
}

// Counts reads the counters.
func (l *Lessor) Counts() Counts {
	c := Counts{Expired: l.expired.Load(), Kept: l.kept.Load()}
	for _, h := range l.work() {
		c.Leases += h.len()
	}
	return c
}

// work is the homes where there is something to do.
func (l *Lessor) work() []*home {
	l.mu.RLock()
	defer l.mu.RUnlock()
	homes := make([]*home, 0, len(l.busy))
	for _, h := range l.busy {
		homes = append(homes, h)
	}
	slices.SortFunc(homes, func(a, b *home) int { return cmp.Compare(a.id, b.id) })
	return homes
}

// attend has a home looked at from now on.
func (l *Lessor) attend(h *home) {
	l.mu.Lock()
	if l.homes[h.id] == h {
		l.busy[h.id] = h
	}
	l.mu.Unlock()
	l.signal()
}

// rest has a home not looked at until it is told of something, if that has not happened meanwhile.
func (l *Lessor) rest(h *home) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[h.id] == h && h.idle() {
		delete(l.busy, h.id)
	}
}

func (l *Lessor) home(id base.RangeID) *home {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.homes[id]
}

// Changed is told of every change of role, term or leader of a local replica. It does not block.
func (l *Lessor) Changed(c raftgroup.StateChange) {
	leads := c.Role == raftgroup.Leader && !c.Destroyed
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.homes[c.Range]
	if h != nil && leads && h.term == c.Term {
		return
	}
	if h != nil {
		if h.over() == elected {
			l.elected.Add(-1)
		}
		delete(l.homes, c.Range)
		delete(l.busy, c.Range)
	}
	if leads && base.KeyspaceID(c.Descriptor.GetKeyspaceId()) >= base.KeyspaceDefault {
		h = &home{id: c.Range, ks: base.KeyspaceID(c.Descriptor.GetKeyspaceId()), term: c.Term}
		l.homes[h.id], l.busy[h.id] = h, h
		l.elected.Add(1)
		l.signal()
	}
}

// Applied is told that something was applied in a range: it may be the first entry of a leader's term. It does not block.
func (l *Lessor) Applied(id base.RangeID) {
	if l.elected.Load() == 0 {
		return // nearly always
	}
	if h := l.home(id); h != nil && h.state.Load() == elected {
		l.signal()
	}
}

// Leases is told by the store what has become of leases that live in a range. It does not block.
func (l *Lessor) Leases(id base.RangeID, changes []apply.LeaseChange, moved bool) {
	h := l.home(id)
	if h == nil {
		return // whoever comes to lead it reads them
	}
	if h.changed(changes, moved, l.cfg.Store.Now()) {
		l.attend(h)
	}
}

func (l *Lessor) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Look steps the homes, and says when they are to be looked at next if nothing is told before (Due). Whoever does not call Start, since it
// turns the Lessor by hand as it does the store, calls it.
func (l *Lessor) Look() base.Instant {
	next := base.Never
	for _, h := range l.work() {
		next = min(next, l.look(h))
	}
	return next
}

// Due says, once, whether something was told since the last look that has to be looked at.
func (l *Lessor) Due() bool {
	select {
	case <-l.wake:
		return true
	default:
		return false
	}
}

// run steps the homes when something is due.
func (l *Lessor) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := l.Look()
		if next == base.Never {
			timer.Stop() // until it is told of something
		} else {
			timer.Reset(max(0, next.Sub(l.cfg.Store.Now())))
		}
		select {
		case <-l.ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
	}
}
