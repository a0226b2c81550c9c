package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// ErrSessionLost: a session's lease may have ended, or has. What was held by it may be another's now.
var ErrSessionLost = errors.New("the session is lost: its lease was not kept alive in time")

// errSessionClosed ends what waits in a session that its owner has closed.
var errSessionClosed = errors.New("the session was closed")

// Session is a lease that is kept alive as long as its owner is, and what rests on it: locks and leaderships. All sessions of a
// keyspace are kept alive over one stream.
//
// A session that cannot be kept alive, for nodes cannot be reached, or this program does not get to run, is *lost*: Done is
// closed and Err says so, at the latest a tenth of the TTL before any node may end the lease. That is reckoned by this machine's
// clocks from when the keep-alive that was last answered was sent; a node counts from when it got it. Lost is for good.
//
// It is still no proof against a program that is stopped between looking at its session and doing what it is about to do. What must
// exclude others has to carry the *token* of the lock or leadership (Mutex.Lock) to where it takes effect: there, the largest token that was
// seen is kept, on disk, and what comes with a smaller one is refused. Writes to the keyspace itself carry a comparison (Mutex.Held).
type Session struct {
	kv    KV
	lease Lease

	ctx    context.Context // ends with the session
	cancel context.CancelCauseFunc

	// Under keeper.mu.
	kept instant  // when the keep-alive that was last answered was sent
	sent *instant // the one that is under way; nil: none
}

// NewSession grants a lease and keeps it alive. ttl is how long it lasts once nobody does so: as long as others may have to wait for
// what its owner held. 0: base.ClientSessionTTL, a minute as in etcd.
func (k KV) NewSession(ctx context.Context, ttl time.Duration) (*Session, error) {
	if ttl == 0 {
		ttl = base.ClientSessionTTL
	}
	began := now()
	l, err := k.Grant(ctx, ttl)
	if err != nil {
		return nil, err
	}
	s := &Session{kv: k, lease: l, kept: began}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	k.c.keeper(k).add(s)
	return s, nil
}

// Lease is the session's lease.
func (s *Session) Lease() Lease { return s.lease }

// Done is closed when the session is lost or closed.
func (s *Session) Done() <-chan struct{} { return s.ctx.Done() }

// Err is nil while the lease certainly lives. It looks at the clock: Done may be a moment late where this program was stopped.
func (s *Session) Err() error {
	if k := s.kv.c.keeper(s.kv); s.ctx.Err() == nil && k.left(s) <= 0 {
		k.drop(s, ErrSessionLost)
	}
	return context.Cause(s.ctx)
}

// Close ends the session and its lease; what was held by it is free. An error says that the lease may live on, for its TTL at most.
func (s *Session) Close(ctx context.Context) error {
	s.Orphan()
	err := again(ctx, func() error { return s.kv.Revoke(ctx, s.lease.ID) })
	if errors.Is(err, ErrLeaseNotFound) {
		return nil
	}
	return err
}

// Orphan ends the session and leaves its lease, which ends in its time if nobody else keeps it alive.
func (s *Session) Orphan() { s.kv.c.keeper(s.kv).drop(s, errSessionClosed) }

// while is a context that ends with the session too.
func (s *Session) while(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// because is the error of what was done while a session lasted.
func (s *Session) because(err error) error {
	if cause := s.Err(); err != nil && cause != nil {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}
