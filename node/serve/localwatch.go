package serve

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// localWatch is the client's end of a stream of the Watch service that does not leave the process: one watch, as any client has it.
type localWatch struct {
	grpc.ServerStream // nil: the service asks for nothing of it but what is here
	ctx               context.Context
	create            *pb.WatchCreateRequest // nil once it was asked for
	take              func(*pb.WatchResponse) (more bool, err error)
	end               context.CancelCauseFunc
	sending           sync.Mutex // whoever sends; the service may still do so when it has returned
}

var errWatched = errors.New("what was watched for has come")

// watchLocally watches until take wants no more, or ctx ends. take is given what a client would be sent.
func watchLocally(ctx context.Context, srv pb.WatchServer, req *pb.WatchCreateRequest, take func(*pb.WatchResponse) (more bool, err error)) error {
	within, end := context.WithCancelCause(ctx)
	defer end(nil)
	w := &localWatch{ctx: within, create: req, take: take, end: end}
	err := srv.Watch(w)
	cause := context.Cause(within)
	end(nil)
	w.sending.Lock() // take is not called any more
	defer w.sending.Unlock()
	switch {
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

// SendMsg implements grpc.ServerStream: the service sends what is encoded already.
func (w *localWatch) SendMsg(m any) error {
	r, ok := m.(encoded)
	if !ok {
		return status.Errorf(codes.Internal, "a response of type %T", m)
	}
	resp := &pb.WatchResponse{}
	if err := proto.Unmarshal(mem.BufferSlice(r).Materialize(), resp); err != nil {
		return err
	}
	return w.Send(resp)
}

// Send implements pb.Watch_WatchServer.
func (w *localWatch) Send(resp *pb.WatchResponse) error {
	w.sending.Lock()
	defer w.sending.Unlock()
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
