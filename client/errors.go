package client

import (
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
)

// Ambiguous: the write may or may not have been carried out, and may still be. Cause is how its answer was lost.
type Ambiguous = base.Ambiguous

// SeveralRanges: a write touches keys of more than one range, and must lie in one. Nothing happened. Descriptors are the range
// of its first key, and what is known of those behind it.
type SeveralRanges = base.SeveralRanges

// Throttled: a node had too much to do, and nothing happened. Try again after RetryAfter.
type Throttled = base.Throttled

// NoKeyspace: there is no keyspace of that name. Nothing happened.
type NoKeyspace = base.NoKeyspace

// Unavailable: no node could carry the request out within its time, and it certainly was not. Cause is why the last one that
// was tried could not.
type Unavailable struct{ Cause error }

func (e *Unavailable) Error() string { return fmt.Sprintf("not carried out: %v", e.Cause) }
func (e *Unavailable) Unwrap() error { return e.Cause }

// For errors.Is.
var (
	// ErrCompacted: the revision that was asked for is no longer kept.
	ErrCompacted = rpctypes.ErrCompacted
	// ErrFutureRevision: the revision that was asked for has not been written yet.
	ErrFutureRevision = rpctypes.ErrFutureRev
	// ErrLeaseNotFound: there is no such lease, any more or at all.
	ErrLeaseNotFound = rpctypes.ErrLeaseNotFound
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("the client is closed")
)
