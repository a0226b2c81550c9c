package dispatch

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

func conf() *raftpb.ConfChangeV2 {
	return &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(2))}}}
}

// travel is what the asker gets of an error of the node that was asked.
func travel(t *testing.T, err error) error {
	t.Helper()
	raw := encode(t, encodeError(err))
	e := &rangepb.Error{}
	must(t, proto.Unmarshal(raw, e))
	return decodeError(4, e)
}

func TestErrorsTravel(t *testing.T) {
	d := wrong(3, 1, 2)
	for _, x := range []struct{ err, want error }{
		{&base.NotLeader{Range: 4, HintNode: 2, HintReplica: 7}, nil},
		{&base.NotLeader{Range: 4}, nil},
		{&base.Throttled{What: "proposals", RetryAfter: 1500 * time.Microsecond}, nil},
		{fmt.Errorf("wrapped: %w", &base.NotLeader{Range: 4, HintNode: 2}), &base.NotLeader{Range: 4, HintNode: 2}},
		{base.ErrStopped, &base.NotLeader{Range: 4}},
		{&base.StaleGeneration{Range: 4}, nil},
		{&base.RangeMoved{Range: 4}, nil},
	} {
		want := x.want
		if want == nil {
			want = x.err
		}
		if got := travel(t, x.err); !reflect.DeepEqual(got, want) {
			t.Errorf("%#v arrives as %#v, want %#v", x.err, got, want)
		}
	}
	var moved *base.RangeMoved
	if err := travel(t, &base.RangeMoved{Range: 4, Descriptors: []*metapb.RangeDescriptor{d, d}}); !errors.As(err, &moved) ||
		len(moved.Descriptors) != 2 || !proto.Equal(moved.Descriptors[1], d) || moved.Range != 4 {
		t.Errorf("%v", err)
	}
	var stale *base.StaleGeneration
	if err := travel(t, &base.StaleGeneration{Range: 4, Current: d}); !errors.As(err, &stale) || !proto.Equal(stale.Current, d) {
		t.Errorf("%v", err)
	}
	// Ambiguous stays so, whatever it wraps: its cause must not make it look like a certain failure.
	for _, cause := range []error{errors.New("x"), base.ErrStopped, &base.NotLeader{Range: 4}, context.DeadlineExceeded} {
		err := travel(t, &base.Ambiguous{Cause: cause})
		if !errors.As(err, new(*base.Ambiguous)) || errors.As(err, new(*base.NotLeader)) {
			t.Errorf("%v arrives as %v", cause, err)
		}
	}
}

func TestRefusalsTravel(t *testing.T) {
	for _, err := range []error{
		rpctypes.ErrGRPCCompacted, rpctypes.ErrGRPCFutureRev, rpctypes.ErrGRPCEmptyKey, rpctypes.ErrGRPCKeyNotFound, rpctypes.ErrGRPCValueProvided,
		rpctypes.ErrGRPCDuplicateKey, rpctypes.ErrGRPCTooManyOps, rpctypes.ErrGRPCLeaseNotFound, rpctypes.ErrGRPCRequestTooLarge, rpctypes.ErrGRPCNoSpace,
		status.Error(codes.InvalidArgument, "why"),
	} {
		got := travel(t, err)
		if status.Code(got) != status.Code(err) || status.Convert(got).Message() != status.Convert(err).Message() {
			t.Errorf("%v arrives as %v", err, got)
		}
	}
	for _, x := range []struct {
		err  error
		code codes.Code
	}{
		{&base.Corruption{Where: "here", Cause: errors.New("x")}, codes.DataLoss},
		{fmt.Errorf("its time: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{errors.New("plain"), codes.Unknown},
	} {
		if got := travel(t, x.err); status.Code(got) != x.code {
			t.Errorf("%v arrives as %v", x.err, got)
		}
	}
}

// An error is never taken for a success, nor for a certain failure, because it cannot be read.
func TestErrorsOfAnotherVersion(t *testing.T) {
	if err := decodeError(4, &rangepb.Error{Code: 99, Message: "new"}); !errors.As(err, new(*base.Ambiguous)) {
		t.Errorf("an unknown code is %v", err)
	}
	if err := decodeError(4, &rangepb.Error{}); !errors.As(err, new(*base.Ambiguous)) {
		t.Errorf("no code is %v", err)
	}
	if err := decodeError(4, &rangepb.Error{Code: rangepb.ErrorCode_ERROR_CODE_REFUSED}); err == nil {
		t.Error("a refusal with the code of success is a success")
	}
}
