package serve

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// localWatch is the client's end of a stream of the Watch service that does not leave the process: one watch, as any client has it.
type localWatch struct {
	grpc.ServerStream // nil: the service asks for nothing of it but what is here
	ctx               context.Context
	create            *pb.WatchCreateRequest // nil once it was asked for
	take              func(*pb.WatchResponse) (more bool, err error)
	end               context.CancelCauseFunc
}

var errWatched = errors.New("what was watched for has come")

// watchLocally watches until take wants no more, or ctx ends. take is given what a client would be sent.
func watchLocally(ctx context.Context, srv pb.WatchServer, req *pb.WatchCreateRequest, take func(*pb.WatchResponse) (more bool, err error)) error {
	within, end := context.WithCancelCause(ctx)
	defer end(nil)
	err := srv.Watch(&localWatch{ctx: within, create: req, take: take, end: end})
	switch cause := context.Cause(within); {
	case errors.Is(cause, errWatched):
		return nil
	case cause != nil:
		return cause
	case err == nil:
		return status.Error(codes.Unavailable, "the watch ended")
	}
	return err
}

// Context implements pb.Watch_WatchServer.
func (w *localWatch) Context() context.Context { return w.ctx }

// Recv implements pb.Watch_WatchServer: the watch, and then nothing until it ends.
func (w *localWatch) Recv() (*pb.WatchRequest, error) {
	if req := w.create; req != nil {
		w.create = nil
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}, nil
	}
	<-w.ctx.Done()
	return nil, context.Cause(w.ctx)
}

// Send implements pb.Watch_WatchServer.
func (w *localWatch) Send(resp *pb.WatchResponse) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	var more bool
	err := canceled(resp)
	if err == nil {
		more, err = w.take(resp)
	}
	switch {
	case err != nil:
		w.end(err)
	case !more:
		err = errWatched
		w.end(err)
	}
	return err
}

// canceled is why a watch was ended.
func canceled(resp *pb.WatchResponse) error {
	switch {
	case resp.Canceled && resp.CompactRevision > 0:
		return status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
	case resp.Canceled:
		return status.Error(codes.Unavailable, "the watch ended: "+resp.CancelReason)
	}
	return nil
}
