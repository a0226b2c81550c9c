package serve

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/electionpb"
	"github.com/cairndb/cairn/api/lockpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
)

// openMethods is what a node answers before it is part of a cluster: who it is, and how it becomes part of one.
// Join answers there that it cannot let anybody in yet.
func openMethod(method string) bool {
	switch method {
	case clusterpb.Cluster_Identity_FullMethodName, clusterpb.Cluster_Init_FullMethodName,
		clusterpb.Cluster_Join_FullMethodName, clusterpb.Cluster_Consent_FullMethodName:
		return true
	}
	return strings.HasPrefix(method, "/grpc.health.v1.Health/") || strings.HasPrefix(method, "/grpc.reflection.")
}

// bounded says whether a call is one client request, which etcd bounds if the client did not.
func bounded(method string) bool {
	return strings.HasPrefix(method, "/etcdserverpb.") || contested(method)
}

// long says whether a request takes as long as there is data: whoever asks decides how long to wait, as with etcd.
func long(method string) bool {
	return method == pb.Maintenance_Defragment_FullMethodName || method == pb.Maintenance_HashKV_FullMethodName
}

// contested says whether a call is about a lock or an election.
func contested(method string) bool {
	return strings.HasPrefix(method, "/"+lockpb.Lock_ServiceDesc.ServiceName+"/") ||
		strings.HasPrefix(method, "/"+electionpb.Election_ServiceDesc.ServiceName+"/")
}

// waits says whether a call may wait for other clients without an end. A server that stops does not wait for it: it ends with the
// streams.
func waits(method string) bool {
	return method == lockpb.Lock_Lock_FullMethodName || method == electionpb.Election_Campaign_FullMethodName
}

// admit refuses what only a member of a cluster can answer while this node is none. What clients ask of one that has just started waits
// a little for it to serve: their connections are back before the cluster has taken note of it, and would carry nothing but refusals.
// Cairn's own client is refused at once, for it goes to another node.
func (s *Server) admit(ctx context.Context, method string) error {
	if !s.member.Load() {
		if openMethod(method) {
			return nil
		}
		if s.cfg.Backend.Identity().ClusterID == 0 {
			return join.ErrNotInitialised
		}
		s.member.Store(true) // it stays so for the life of the store
	}
	if !fencedMethod(method) {
		return nil
	}
	err := s.cfg.MayServe()
	if _, _, own := routeHint(ctx); own || err == nil || s.cfg.AwaitService == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, base.FenceWait)
	defer cancel()
	return s.cfg.AwaitService(ctx)
}

// fencedMethod is what a node does not answer while it may not serve: all that reads or changes what clients store, on their behalf.
// It goes on being a node: it tells how it is, others join and announce themselves through it, and frames reach it.
func fencedMethod(method string) bool {
	switch method {
	case clusterpb.Cluster_Announce_FullMethodName, clusterpb.Cluster_Status_FullMethodName, clusterpb.Cluster_NodeStatus_FullMethodName,
		clusterpb.Cluster_ListNodes_FullMethodName:
		return false
	}
	if openMethod(method) {
		return false
	}
	return bounded(method) || strings.HasPrefix(method, "/"+clusterpb.Cluster_ServiceDesc.ServiceName+"/")
}

// unary is the way of every call in and out: the count, the gate, the time-out, the error table, and what Cairn's own client is told.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c := s.counts.begin(info.FullMethod)
	resp, err := s.answer(ctx, req, info, handler)
	c.end(err)
	return resp, err
}

func (s *Server) answer(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if waits(info.FullMethod) {
		var end func()
		ctx, end = s.untilEnding(ctx)
		defer end()
	} else {
		if !s.calls.begin() {
			return nil, failed(ctx, info.FullMethod, base.ErrStopped)
		}
		defer s.calls.end()
	}
	if err := s.admit(ctx, info.FullMethod); err != nil {
		return nil, failed(ctx, info.FullMethod, err)
	}
	if _, has := ctx.Deadline(); !has && bounded(info.FullMethod) && !long(info.FullMethod) && !waits(info.FullMethod) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.cfg.RequestTimeout, errServerTimeout)
		defer cancel()
	}
	resp, err := handler(ctx, req)
	s.cfg.tellRoute(ctx, req)
	if err != nil {
		return nil, failed(ctx, info.FullMethod, timedOut(ctx, err))
	}
	return resp, nil
}

// timedOut names the server's own time-out as the cause where it is. An outcome that is not known stays that.
func timedOut(ctx context.Context, err error) error {
	var ambiguous *base.Ambiguous
	if errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &ambiguous) && context.Cause(ctx) == errServerTimeout {
		return errServerTimeout
	}
	return err
}

// stream is the same for streams, which have no time-out. A range in pieces is a call; all others go on until one
// side ends them.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := s.counts.begin(info.FullMethod)
	err := s.answerStream(srv, ss, info, handler)
	c.end(err)
	return err
}

func (s *Server) answerStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := ss.Context()
	if err := s.admit(ctx, info.FullMethod); err != nil {
		return failed(ctx, info.FullMethod, err)
	}
	if info.FullMethod == pb.Watch_Watch_FullMethodName {
		return ToStatus(handler(srv, ss)) // it sees to its end itself
	}
	if info.FullMethod != pb.KV_RangeStream_FullMethodName {
		return ToStatus(s.runStream(func() error { return handler(srv, ss) }))
	}
	if !s.calls.begin() {
		return failed(ctx, info.FullMethod, base.ErrStopped)
	}
	defer s.calls.end()
	return failed(ctx, info.FullMethod, handler(srv, ss))
}
