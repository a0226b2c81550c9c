package serve

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/join"
)

// failed is the status of a failed call. Cairn's own client is told beside it what the code cannot say: whether the request may
// have been carried out.
func failed(ctx context.Context, method string, err error) error {
	st := ToStatus(err)
	if _, _, asks := routeHint(ctx); !asks || err == nil {
		return st
	}
	f := failureOf(err)
	if f.Kind == clusterpb.FailureKind_FAILURE_KIND_NOT_DONE && !strings.HasPrefix(method, "/"+pb.KV_ServiceDesc.ServiceName+"/") {
		f.Kind = clusterpb.FailureKind_FAILURE_KIND_AMBIGUOUS // it was one of several steps
	}
	if s, derr := status.Convert(st).WithDetails(f); derr == nil {
		return s.Err()
	}
	return st
}

// failureOf says how a request ended. What is not known here counts as not known there.
func failureOf(err error) *clusterpb.Failure {
	var (
		ambiguous *base.Ambiguous
		several   *base.SeveralRanges
		throttled *base.Throttled
		none      *base.NoKeyspace
	)
	f := &clusterpb.Failure{Kind: clusterpb.FailureKind_FAILURE_KIND_AMBIGUOUS}
	switch {
	case errors.As(err, &ambiguous): // first: it may wrap another
	case errors.As(err, &several):
		f.Kind, f.Ranges = clusterpb.FailureKind_FAILURE_KIND_SEVERAL_RANGES, several.Descriptors
	case errors.As(err, &throttled):
		f.Kind, f.RetryAfterMicros = clusterpb.FailureKind_FAILURE_KIND_THROTTLED, uint64(throttled.RetryAfter.Microseconds())
	case errors.As(err, &none):
		f.Kind, f.Keyspace = clusterpb.FailureKind_FAILURE_KIND_NO_KEYSPACE, none.Name
	case passes(err):
		f.Kind = clusterpb.FailureKind_FAILURE_KIND_NOT_DONE
		var fenced *base.Fenced
		f.Fenced = errors.As(err, &fenced)
	case refuses(err):
		f.Kind = clusterpb.FailureKind_FAILURE_KIND_REFUSED
	}
	return f
}

// passes says whether the error means that nothing was done, and that it may be once something changes.
func passes(err error) bool {
	var (
		notLeader *base.NotLeader
		moved     *base.RangeMoved
		noRange   *route.NoRange
		fenced    *base.Fenced
	)
	return errors.As(err, &fenced) || errors.As(err, &notLeader) || errors.As(err, &moved) || errors.As(err, &noRange) ||
		errors.Is(err, base.ErrStopped) || errors.Is(err, join.ErrNotInitialised)
}

// refuses says whether the error is the answer to the request as it stands: kv/eval's, from here or from another node.
func refuses(err error) bool {
	var (
		stale   *base.StaleGeneration
		refused *join.Refused
		dropped *base.KeyspaceDropped
		typed   rpctypes.EtcdError
	)
	if errors.As(err, &stale) || errors.As(err, &refused) || errors.As(err, &dropped) {
		return true
	}
	code := codes.Unknown
	if errors.As(err, &typed) {
		code = typed.Code()
	} else if s, ok := status.FromError(err); ok {
		code = s.Code()
	}
	switch code {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}
