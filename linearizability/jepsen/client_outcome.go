package jepsen

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/askpb"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/node/join"
)

// outcomeOf is what a client may conclude from how its call ended. A read that was not answered has no effect, whatever
// became of it. A write failed only if the node said in words of its own that nothing happened and nothing will; all that
// gRPC made up on the way (a broken connection, a time that was over, a message that was too large to come back) leaves
// it unknown. Too much Unknown hides mistakes, too little invents them, so the words are compared and not only the codes.
func outcomeOf(req proto.Message, err error) linearizability.Outcome {
	switch {
	case err == nil:
		return linearizability.OK
	case reads(req), refused(err):
		return linearizability.Failed
	}
	return linearizability.Unknown
}

// refused says whether an error is a node's word that the request had no effect and never will. It is node/serve's table
// of errors, read backwards.
func refused(err error) bool {
	s, ok := status.FromError(err)
	if !ok {
		return false
	}
	switch s.Code() {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition,
		codes.Aborted, codes.OutOfRange, codes.Unauthenticated:
		return true // gRPC makes none of these by itself: a handler decided on them before it wrote anything
	case codes.Unavailable, codes.ResourceExhausted:
		for _, e := range nothingHappened() {
			if s.Message() == e {
				return true
			}
		}
	}
	return false
}

// nothingHappened are the texts that a node gives with codes that gRPC uses too.
func nothingHappened() []string {
	text := func(err error) string { return status.Convert(err).Message() }
	return []string{
		text(rpctypes.ErrGRPCNoLeader),      // not the leader, and none is known or can be reached: it was not proposed
		text(rpctypes.ErrGRPCLeaderChanged), // not the leader: it was not proposed
		text(rpctypes.ErrGRPCUnhealthy),     // no node was found that has the keys
		text(rpctypes.ErrGRPCStopped),       // the node is stopping, and took it no more
		text(rpctypes.ErrGRPCRequestTooManyRequests),
		join.ErrNotInitialised.Error(),
	}
}

// elsewhere says whether another node may do better: an error that is about the request itself is the same everywhere.
func elsewhere(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.InvalidArgument, codes.NotFound, codes.OutOfRange, codes.FailedPrecondition, codes.AlreadyExists:
		return false
	}
	return true
}

// reads says whether a request can change nothing.
func reads(req proto.Message) bool {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return true
	case *pb.TxnRequest:
		return readsOnly(r.Success) && readsOnly(r.Failure)
	case *clusterpb.ListNodesRequest, *clusterpb.ListRangesRequest, *askpb.AskRequest:
		return true
	case *followpb.FollowRequest, *pb.LeaseTimeToLiveRequest, *pb.LeaseLeasesRequest:
		return true
	}
	return false
}

func readsOnly(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
		case *pb.RequestOp_RequestTxn:
			if !reads(r.RequestTxn) {
				return false
			}
		default:
			return false
		}
	}
	return true
}
