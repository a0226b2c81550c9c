package dispatch

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// encodeError puts an error into a response, so that decodeError gives the caller's node the same one.
func encodeError(err error) *rangepb.Error {
	e := &rangepb.Error{Message: err.Error()}
	var (
		notLeader *base.NotLeader
		moved     *base.RangeMoved
		stale     *base.StaleGeneration
		ambiguous *base.Ambiguous
		throttled *base.Throttled
		corrupt   *base.Corruption
	)
	switch {
	case errors.As(err, &ambiguous):
		e.Code = rangepb.ErrorCode_ERROR_CODE_AMBIGUOUS
		e.Message = ambiguous.Cause.Error()
	case errors.As(err, &notLeader):
		e.Code = rangepb.ErrorCode_ERROR_CODE_NOT_LEADER
		e.LeaderNode, e.LeaderReplica = uint64(notLeader.HintNode), uint64(notLeader.HintReplica)
	case errors.As(err, &moved):
		e.Code, e.Descriptors, e.Absent = rangepb.ErrorCode_ERROR_CODE_RANGE_MOVED, moved.Descriptors, moved.Absent
	case errors.As(err, &stale):
		e.Code = rangepb.ErrorCode_ERROR_CODE_STALE_GENERATION
		if stale.Current != nil {
			e.Descriptors = append(e.Descriptors, stale.Current)
		}
	case errors.As(err, &throttled):
		e.Code, e.Message = rangepb.ErrorCode_ERROR_CODE_THROTTLED, throttled.What
		e.RetryAfterMicros = uint64(throttled.RetryAfter.Microseconds())
	case errors.Is(err, base.ErrStopped):
		// Nothing was begun: another replica may lead soon.
		e.Code = rangepb.ErrorCode_ERROR_CODE_NOT_LEADER
	case errors.As(err, &corrupt):
		refuse(e, status.Convert(rpctypes.ErrGRPCCorrupt))
	case errors.Is(err, context.DeadlineExceeded):
		refuse(e, status.New(codes.DeadlineExceeded, err.Error()))
	default:
		refuse(e, status.Convert(err))
	}
	return e
}

// refuse makes it the request's own answer: the asker's client gets the same status.
func refuse(e *rangepb.Error, st *status.Status) {
	e.Code = rangepb.ErrorCode_ERROR_CODE_REFUSED
	e.GrpcCode, e.Message = uint32(st.Code()), st.Message()
}

func decodeError(id base.RangeID, e *rangepb.Error) error {
	switch e.Code {
	case rangepb.ErrorCode_ERROR_CODE_NOT_LEADER:
		return &base.NotLeader{Range: id, HintNode: base.NodeID(e.LeaderNode), HintReplica: base.ReplicaID(e.LeaderReplica)}
	case rangepb.ErrorCode_ERROR_CODE_RANGE_MOVED:
		return &base.RangeMoved{Range: id, Descriptors: e.Descriptors, Absent: e.Absent}
	case rangepb.ErrorCode_ERROR_CODE_STALE_GENERATION:
		s := &base.StaleGeneration{Range: id}
		if len(e.Descriptors) > 0 {
			s.Current = e.Descriptors[0]
		}
		return s
	case rangepb.ErrorCode_ERROR_CODE_AMBIGUOUS:
		return &base.Ambiguous{Cause: errors.New(e.Message)}
	case rangepb.ErrorCode_ERROR_CODE_THROTTLED:
		return &base.Throttled{What: e.Message, RetryAfter: time.Duration(e.RetryAfterMicros) * time.Microsecond}
	case rangepb.ErrorCode_ERROR_CODE_REFUSED:
		if code := codes.Code(e.GrpcCode); code != codes.OK {
			return status.Error(code, e.Message)
		}
		return status.Error(codes.Unknown, e.Message) // an error is never a success, whatever it says
	}
	return &base.Ambiguous{Cause: errors.New("an answer that this version does not know: " + e.Message)}
}
