package jepsen

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/serve"
	"github.com/cairndb/cairn/transport"
)

// What the product answers, through its own table, and what gRPC makes up by itself.
func TestOutcome(t *testing.T) {
	const ok, failed, unknown = linearizability.OK, linearizability.Failed, linearizability.Unknown
	put := &pb.PutRequest{}
	get := &pb.RangeRequest{}
	del := &pb.DeleteRangeRequest{}
	putIn := []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}}
	getIn := []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: get}}}
	txnIn := func(t *pb.TxnRequest) []*pb.RequestOp {
		return []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}}
	}
	lost := status.Error(codes.Unavailable, "error reading from server: EOF")
	for _, c := range []struct {
		name string
		req  proto.Message
		err  error
		want linearizability.Outcome
	}{
		{"no error", put, nil, ok},
		{"not the leader, none known", put, serve.ToStatus(&base.NotLeader{}), failed},
		{"not the leader, another is", put, serve.ToStatus(&base.NotLeader{HintNode: 2}), failed},
		{"the leader cannot be reached", put, serve.ToStatus(transport.ErrUnreachable), failed},
		{"the keys moved", put, serve.ToStatus(&base.RangeMoved{}), failed},
		{"no range found", put, serve.ToStatus(&route.NoRange{}), failed},
		{"the descriptor changed", put, serve.ToStatus(&base.StaleGeneration{}), failed},
		{"throttled", put, serve.ToStatus(&base.Throttled{What: "x"}), failed},
		{"the node stops", put, serve.ToStatus(base.ErrStopped), failed},
		{"no cluster yet", put, serve.ToStatus(join.ErrNotInitialised), failed},
		{"refused to join", put, serve.ToStatus(&join.Refused{Reason: "x"}), failed},
		{"empty key", put, serve.ToStatus(rpctypes.ErrEmptyKey), failed},
		{"compacted", put, serve.ToStatus(rpctypes.ErrGRPCCompacted), failed},
		{"too large", put, serve.ToStatus(rpctypes.ErrGRPCRequestTooLarge), failed},
		{"ambiguous", put, serve.ToStatus(&base.Ambiguous{Cause: errors.New("x")}), unknown},
		{"ambiguous for a refusal", put, serve.ToStatus(&base.Ambiguous{Cause: &base.NotLeader{}}), unknown},
		{"ambiguous for a stop", put, serve.ToStatus(&base.Ambiguous{Cause: base.ErrStopped}), unknown},
		{"ambiguous for a cancel", put, serve.ToStatus(&base.Ambiguous{Cause: context.Canceled}), unknown},
		{"the node's time was over", put, serve.ToStatus(context.DeadlineExceeded), unknown},
		{"the node saw a cancel", put, serve.ToStatus(context.Canceled), unknown},
		{"the client's time was over", put, status.Error(codes.DeadlineExceeded, "context deadline exceeded"), unknown},
		{"the connection broke", put, lost, unknown},
		{"the connection was never there", put, status.Error(codes.Unavailable, "connection error: desc = x"), unknown},
		{"the answer was too large", put, status.Error(codes.ResourceExhausted, "grpc: received message larger than max"), unknown},
		{"corrupt", put, serve.ToStatus(&base.Corruption{Where: "x", Cause: errors.New("y")}), unknown},
		{"an error without a name", put, serve.ToStatus(errors.New("x")), unknown},
		{"no status at all", put, errors.New("x"), unknown},
		{"a deletion", del, lost, unknown},
		{"a compaction", &pb.CompactionRequest{}, lost, unknown},
		{"a read", get, lost, failed},
		{"a transaction that reads", &pb.TxnRequest{Success: getIn, Failure: getIn}, lost, failed},
		{"a transaction that does nothing", &pb.TxnRequest{}, lost, failed},
		{"a transaction that writes", &pb.TxnRequest{Success: putIn}, lost, unknown},
		{"a transaction that may write", &pb.TxnRequest{Success: getIn, Failure: putIn}, lost, unknown},
		{"nested, reads", &pb.TxnRequest{Success: txnIn(&pb.TxnRequest{Success: getIn})}, lost, failed},
		{"nested, writes", &pb.TxnRequest{Success: txnIn(&pb.TxnRequest{Failure: putIn})}, lost, unknown},
	} {
		if got := outcomeOf(c.req, c.err); got != c.want {
			t.Errorf("%s (%v): %s, want %s", c.name, c.err, got, c.want)
		}
	}
}

func TestElsewhere(t *testing.T) {
	for err, want := range map[error]bool{
		rpctypes.ErrGRPCNoLeader:  true,
		rpctypes.ErrGRPCTimeout:   true,
		rpctypes.ErrGRPCStopped:   true,
		rpctypes.ErrGRPCEmptyKey:  false,
		rpctypes.ErrGRPCCompacted: false,
	} {
		if elsewhere(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}
