package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
)

// effect is what a request may do to the cluster.
type effect int

const (
	reads  effect = iota // nothing: it may be sent as often as one likes
	writes               // something: it may be sent again only if it certainly was not carried out
)

// outcome is the one table from a failed RPC to the package's errors. What counts is who speaks. A node says with a
// clusterpb.Failure how the request ended there. Without one it is gRPC that speaks: of a request that never got a stream on a
// connection (not sent), nothing can have happened; of any other write that is not known, and a code that looks harmless
// (Unavailable, Canceled, ResourceExhausted for an answer that was too large) says nothing about it.
//
// The result is *Unavailable or *Throttled if the request may be sent again, *Ambiguous if it may not, or what it was refused
// with.
func outcome(err error, sent bool, e effect) error {
	st := status.Convert(err)
	for _, d := range st.Details() {
		if f, ok := d.(*clusterpb.Failure); ok {
			return told(f, st, e)
		}
	}
	cause := plain(st)
	switch st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		if !sent || e == reads {
			return &Unavailable{Cause: cause}
		}
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return cause // a node of an older version, or something before it, refused
	}
	if !sent || e == reads {
		return cause // it would fail again
	}
	return &Ambiguous{Cause: cause}
}

// told is what a node said of the request's end.
func told(f *clusterpb.Failure, st *status.Status, e effect) error {
	cause := plain(st)
	switch f.Kind {
	case clusterpb.FailureKind_FAILURE_KIND_NOT_DONE:
		return &Unavailable{Cause: cause}
	case clusterpb.FailureKind_FAILURE_KIND_THROTTLED:
		return &Throttled{What: cause.Error(), RetryAfter: time.Duration(f.RetryAfterMicros) * time.Microsecond}
	case clusterpb.FailureKind_FAILURE_KIND_REFUSED:
		return cause
	case clusterpb.FailureKind_FAILURE_KIND_SEVERAL_RANGES:
		return &SeveralRanges{Descriptors: f.Ranges}
	case clusterpb.FailureKind_FAILURE_KIND_NO_KEYSPACE:
		return &NoKeyspace{Name: f.Keyspace}
	}
	switch {
	case e == writes:
		return &Ambiguous{Cause: cause}
	case st.Code() == codes.Unavailable, st.Code() == codes.DeadlineExceeded, st.Code() == codes.Canceled:
		return &Unavailable{Cause: cause}
	}
	return cause // a read that a node could not do for a reason of its own: corruption, say
}

// plain is the error behind a status: the context's, etcd's, or the status itself.
func plain(st *status.Status) error {
	switch st.Code() {
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	}
	var typed rpctypes.EtcdError
	if errors.As(rpctypes.Error(st.Err()), &typed) {
		return typed
	}
	return st.Err()
}

// step is what route.Retry is to make of an outcome.
func step(err error) error {
	var unavailable *Unavailable
	if errors.As(err, &unavailable) {
		return &base.NotLeader{}
	}
	return err
}
