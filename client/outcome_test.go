package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/meta/route"
)

func with(code codes.Code, text string, f *clusterpb.Failure) error {
	s, err := status.New(code, text).WithDetails(f)
	if err != nil {
		panic(err)
	}
	return s.Err()
}

// What is sent again, what is not, and what the caller is told: for writes and for reads, by who speaks.
func TestOutcome(t *testing.T) {
	const (
		again     = "again"
		ambiguous = "ambiguous"
		final     = "final"
	)
	unavailable := status.Error(codes.Unavailable, "error reading from server: EOF")
	kind := func(k clusterpb.FailureKind) error {
		return with(codes.Unavailable, "etcdserver: leader changed", &clusterpb.Failure{Kind: k})
	}
	for _, c := range []struct {
		name        string
		err         error
		sent        bool
		write, read string
	}{
		{"never left", unavailable, false, again, again},
		{"broke after it left", unavailable, true, ambiguous, again},
		{"time over before it left", status.Error(codes.DeadlineExceeded, ""), false, again, again},
		{"time over after it left", status.Error(codes.DeadlineExceeded, ""), true, ambiguous, again},
		{"given up after it left", status.Error(codes.Canceled, ""), true, ambiguous, again},
		{"answer too large", status.Error(codes.ResourceExhausted, "larger than max"), true, ambiguous, final},
		{"gRPC's own trouble", status.Error(codes.Internal, "stream"), true, ambiguous, final},
		{"no code", status.Error(codes.Unknown, "x"), true, ambiguous, final},
		{"an old node refused", status.Error(codes.InvalidArgument, "x"), true, final, final},
		{"a method that is not there", status.Error(codes.Unimplemented, "x"), true, final, final},
		{"not done", kind(clusterpb.FailureKind_FAILURE_KIND_NOT_DONE), true, again, again},
		{"not known", kind(clusterpb.FailureKind_FAILURE_KIND_AMBIGUOUS), true, ambiguous, again},
		{"said without a kind", kind(0), true, ambiguous, again},
		{"a kind of a newer version", kind(99), true, ambiguous, again},
		{"throttled", with(codes.ResourceExhausted, "x", &clusterpb.Failure{Kind: clusterpb.FailureKind_FAILURE_KIND_THROTTLED}), true, again, again},
		{"refused", kind(clusterpb.FailureKind_FAILURE_KIND_REFUSED), true, final, final},
		{"several ranges", kind(clusterpb.FailureKind_FAILURE_KIND_SEVERAL_RANGES), true, final, final},
		{"no keyspace", kind(clusterpb.FailureKind_FAILURE_KIND_NO_KEYSPACE), true, final, final},
		{"corrupt", with(codes.DataLoss, "x", &clusterpb.Failure{}), true, ambiguous, final},
	} {
		for e, want := range map[effect]string{writes: c.write, reads: c.read} {
			err := outcome(c.err, c.sent, e)
			_, next := route.Retry{}.After(step(err))
			got := again
			switch {
			case errors.As(err, new(*Ambiguous)):
				got = ambiguous
			case next.GiveUp:
				got = final
			}
			if got != want || got == ambiguous && !next.GiveUp {
				t.Errorf("%s, effect %d: %s (%v), want %s", c.name, e, got, err, want)
			}
		}
	}
}

// The errors carry what their makers said.
func TestOutcomeCarries(t *testing.T) {
	err := outcome(with(codes.ResourceExhausted, "x", &clusterpb.Failure{Kind: clusterpb.FailureKind_FAILURE_KIND_THROTTLED, RetryAfterMicros: 1500}), true, writes)
	var throttled *Throttled
	if !errors.As(err, &throttled) || throttled.RetryAfter != 1500*time.Microsecond {
		t.Errorf("throttled: %v", err)
	}
	ds := []*metapb.RangeDescriptor{{RangeId: 7, End: []byte("k")}, {RangeId: 8, Start: []byte("k")}}
	err = outcome(with(codes.FailedPrecondition, "x", &clusterpb.Failure{Kind: clusterpb.FailureKind_FAILURE_KIND_SEVERAL_RANGES, Ranges: ds}), true, writes)
	var several *SeveralRanges
	if !errors.As(err, &several) || len(several.Descriptors) != 2 || several.Descriptors[1].RangeId != 8 {
		t.Errorf("several ranges: %v", err)
	}
	refusal := &clusterpb.Failure{Kind: clusterpb.FailureKind_FAILURE_KIND_REFUSED}
	for want, err := range map[error]error{
		ErrCompacted:             with(codes.OutOfRange, rpctypes.ErrCompacted.Error(), refusal),
		ErrFutureRevision:        with(codes.OutOfRange, rpctypes.ErrFutureRev.Error(), refusal),
		context.DeadlineExceeded: status.Error(codes.DeadlineExceeded, "x"),
		context.Canceled:         status.Error(codes.Canceled, "x"),
	} {
		if got := outcome(err, true, writes); !errors.Is(got, want) {
			t.Errorf("%v became %v", err, got)
		}
	}
}
