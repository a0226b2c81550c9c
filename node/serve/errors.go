package serve

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/transport"
)

// ToStatus is the one table from a node's errors to what goes over the wire. etcd's clients compare codes and
// texts, so where etcd has an error for what happened, it is that one to the letter:
//
//   - Unavailable tells them that they may try a read again elsewhere; a write they never repeat by themselves;
//   - an outcome that is not known is etcd's time-out, which its users already take for "perhaps";
//   - a refusal (compacted, no such key, …) comes from kv/eval as etcd's own error and passes unchanged.
func ToStatus(err error) error {
	var (
		ambiguous *base.Ambiguous
		notLeader *base.NotLeader
		moved     *base.RangeMoved
		noRange   *route.NoRange
		several   *base.SeveralRanges
		stale     *base.StaleGeneration
		none      *base.NoKeyspace
		dropped   *base.KeyspaceDropped
		throttled *base.Throttled
		fenced    *base.Fenced
		illegal   *liveness.Illegal
		corrupt   *base.Corruption
		refused   *join.Refused
		declined  *base.Refused
		typed     rpctypes.EtcdError
	)
	switch {
	case err == nil:
		return nil
	// Ambiguous is first: whatever its cause, what counts is that the request may still happen.
	case errors.As(err, &ambiguous):
		if errors.Is(err, context.Canceled) {
			return rpctypes.ErrGRPCCanceled
		}
		return rpctypes.ErrGRPCTimeout
	case errors.As(err, &notLeader):
		if notLeader.HintNode == 0 {
			return rpctypes.ErrGRPCNoLeader
		}
		return rpctypes.ErrGRPCLeaderChanged
	case errors.As(err, &several):
		return status.Error(codes.FailedPrecondition, "etcdserver: "+several.Error())
	case errors.As(err, &moved):
		return rpctypes.ErrGRPCUnhealthy // the index has not caught up within the request's time
	case errors.As(err, &noRange):
		return rpctypes.ErrGRPCUnhealthy // no node that could be asked knew where the keys are
	case errors.As(err, &stale):
		return status.Error(codes.Aborted, err.Error())
	case errors.As(err, &none):
		return status.Error(codes.NotFound, none.Error())
	case errors.As(err, &dropped):
		return status.Error(codes.NotFound, dropped.Error())
	case errors.As(err, &throttled):
		return rpctypes.ErrGRPCRequestTooManyRequests
	case errors.As(err, &fenced):
		return status.Error(codes.Unavailable, fenced.Error())
	case errors.As(err, &illegal):
		return status.Error(codes.FailedPrecondition, illegal.Error())
	case errors.As(err, &corrupt):
		return rpctypes.ErrGRPCCorrupt
	case errors.As(err, &refused):
		return status.Error(codes.FailedPrecondition, refused.Reason)
	case errors.As(err, &declined):
		return status.Error(refusal[declined.For], declined.Error())
	case errors.As(err, &typed):
		return status.Error(typed.Code(), typed.Error())
	}
	return plainStatus(err)
}

// plainStatus is for errors that carry nothing.
func plainStatus(err error) error {
	switch {
	case errors.Is(err, join.ErrNotInitialised):
		return status.Error(codes.Unavailable, join.ErrNotInitialised.Error())
	case errors.Is(err, base.ErrStopped), errors.Is(err, transport.ErrClosed):
		return rpctypes.ErrGRPCStopped
	case errors.Is(err, transport.ErrUnreachable):
		return rpctypes.ErrGRPCNoLeader // the leader is known and cannot be reached: there is none for this client
	case errors.Is(err, errServerTimeout):
		return rpctypes.ErrGRPCTimeout
	case errors.Is(err, context.DeadlineExceeded):
		return rpctypes.ErrGRPCDeadlineExceeded
	case errors.Is(err, context.Canceled):
		return rpctypes.ErrGRPCCanceled
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	return status.Error(codes.Unknown, err.Error())
}

// errServerTimeout replaces a context's error when it was the server's own bound that ended the request.
var errServerTimeout = errors.New("the request took longer than the server lets one take")

// refusal is what an operator is told of a request that is refused.
var refusal = map[base.RefusedFor]codes.Code{
	base.RefusedMalformed: codes.InvalidArgument,
	base.RefusedUnknown:   codes.NotFound,
	base.RefusedState:     codes.FailedPrecondition,
	base.RefusedChanged:   codes.Aborted,
}

// unreached says that another node could not be asked: the same may be asked of the next.
func unreached(err error) bool { return status.Code(err) == codes.Unavailable }
