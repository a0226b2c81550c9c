package serve

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// WatchStream is a stream of watches as the node has it. Its methods may be called from any goroutine. All but Create return at once;
// Create waits while the node has too much to do. After Close none does anything.
type WatchStream interface {
	Create(id int64, spec watch.Spec)
	Cancel(id int64)
	Progress()
	// Sent says that so many of Out.Bytes are on their way to the client.
	Sent(bytes int)
	Close()
}

// WatchSink takes what a stream's watches get. None of its methods blocks.
type WatchSink interface {
	// Outs is given what is to be sent next; the slice is the caller's again when it returns.
	Outs([]watch.Out)
	// End says that the node serves the stream no longer.
	End(error)
}

// watchService is etcd's Watch service.
type watchService struct {
	pb.UnimplementedWatchServer
	s *Server
}

// Watch serves one stream. While nothing happens it has two goroutines: this one, which ends it, and one that waits for what the client
// asks, which nobody can wake but the end of the stream. One that sends is there as long as there is something to be sent.
func (s *watchService) Watch(stream grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]) error {
	ctx := stream.Context()
	cfg := &s.s.cfg
	ks, err := cfg.keyspace(ctx)
	if err != nil {
		return err
	}
	w := &watchStream{s: s.s, stream: stream, ks: ks, ended: make(chan struct{}), room: make(chan struct{}, 1), leader: wantsLeader(ctx)}
	if w.leader && !ks.Splits() && !cfg.Backend.HasLeader(ks, nil) {
		return rpctypes.ErrGRPCNoLeader
	}
	if w.node, err = cfg.Backend.OpenWatches(w); err != nil {
		return err
	}
	s.s.watching.add(w)
	defer s.s.watching.remove(w)
	defer w.close()
	if err := cfg.MayServe(); err != nil {
		return err // since it was admitted; whoever is told later ends all that are known
	}
	received := make(chan error, 1)
	s.s.streams.Go(func() { received <- w.receive() })
	select {
	case err = <-received:
	case <-ctx.Done():
		err = ctx.Err()
	case <-w.ended:
		return w.why()
	case <-s.s.ending:
		return base.ErrStopped
	}
	if errors.Is(err, context.Canceled) {
		return rpctypes.ErrGRPCWatchCanceled
	}
	return err
}

// wantsLeader says whether a client wants to be told if there is no leader: what WithRequireLeader asks for.
func wantsLeader(ctx context.Context) bool {
	v := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)
	return len(v) > 0 && v[0] == rpctypes.MetadataHasLeader
}

// watchStream is a stream of a client.
type watchStream struct {
	s      *Server
	stream grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]
	ks     base.KeyspaceID
	node   WatchStream
	ended  chan struct{} // closed: the node ended it, and err says why
	room   chan struct{} // capacity 1: less waits to be sent than before

	leader bool // it ends when there is none
	missed int  // how often none was there, in a row; the monitor's own

	mu      sync.Mutex
	queue   []watch.Out
	queued  int  // bytes of it, and of what is being sent
	sending bool // somebody sends
	closed  bool
	err     error
	keys    [][]byte // where watches begin, if it wants a leader
}

// receive carries out what the client asks for until there is nothing more.
func (w *watchStream) receive() error {
	for {
		if !w.waitForRoom() {
			return w.stream.Context().Err()
		}
		req, err := w.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			<-w.stream.Context().Done() // a client that asks for nothing more may go on listening
			return w.stream.Context().Err()
		case err != nil:
			return err
		}
		switch r := req.RequestUnion.(type) {
		case *pb.WatchRequest_CreateRequest:
			if r.CreateRequest != nil {
				w.create(r.CreateRequest)
			}
		case *pb.WatchRequest_CancelRequest:
			if r.CancelRequest != nil {
				w.node.Cancel(r.CancelRequest.WatchId)
			}
		case *pb.WatchRequest_ProgressRequest:
			if r.ProgressRequest != nil {
				w.node.Progress()
			}
		}
	}
}

// waitForRoom lets a client ask for more only as fast as it takes what it is told; false: the stream is over.
func (w *watchStream) waitForRoom() bool {
	for {
		w.mu.Lock()
		full, closed := w.queued > base.WatchStreamBytes, w.closed
		w.mu.Unlock()
		if closed {
			return false
		}
		if !full {
			return true
		}
		select {
		case <-w.room:
		case <-w.stream.Context().Done():
			return false
		}
	}
}

func (w *watchStream) create(r *pb.WatchCreateRequest) {
	spec := watch.Spec{
		Keyspace: w.ks, Start: r.Key, From: base.Revision(r.StartRevision), PrevKV: r.PrevKv, Progress: r.ProgressNotify, Fragment: r.Fragment,
		NoPut: slices.Contains(r.Filters, pb.WatchCreateRequest_NOPUT), NoDelete: slices.Contains(r.Filters, pb.WatchCreateRequest_NODELETE),
	}
	if len(spec.Start) == 0 {
		spec.Start = []byte{0} // the smallest key
	}
	switch {
	case len(r.RangeEnd) == 0:
		spec.End = append(slices.Clone(spec.Start), 0)
	case len(r.RangeEnd) > 1 || r.RangeEnd[0] != 0:
		spec.End = r.RangeEnd
	}
	if w.leader {
		w.mu.Lock()
		if len(w.keys) < base.WatchLeaderKeys && (w.ks.Splits() || len(w.keys) == 0) {
			w.keys = append(w.keys, spec.Start)
		}
		w.mu.Unlock()
	}
	w.node.Create(r.WatchId, spec)
}

// Outs implements WatchSink.
func (w *watchStream) Outs(outs []watch.Out) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	if !w.sending {
		w.sending = true
		plan := w.s.plans.Get().(*plan)
		w.queue, plan.room = plan.room, nil
		w.s.streams.Go(func() { w.send(plan) }) // the stream's other goroutine is not over
	}
	w.queue = append(w.queue, outs...)
	for i := range outs {
		w.queued += outs[i].Bytes
	}
}

// End implements WatchSink.
func (w *watchStream) End(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		close(w.ended)
	}
}

func (w *watchStream) why() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// close ends what the node does for it, and what waits here.
func (w *watchStream) close() {
	w.mu.Lock()
	w.closed, w.queue = true, nil
	w.mu.Unlock()
	w.node.Close()
	w.wake()
}

func (w *watchStream) wake() {
	select {
	case w.room <- struct{}{}:
	default:
	}
}

// send sends what waits until nothing does. It may be held up by the client for as long as the stream lasts.
func (w *watchStream) send(plan *plan) {
	defer w.s.plans.Put(plan)
	defer plan.forget()
	id := w.s.cfg.Backend.Identity()
	from := origin{cluster: id.ClusterID, member: uint64(id.NodeID), term: func() uint64 { return w.s.cfg.Backend.RaftTerm(w.ks) }}
	var outs []watch.Out
	for {
		if outs = w.next(plan, outs); outs == nil {
			return
		}
		plan.take(outs)
		bytes := 0
		for _, at := range plan.begin {
			if w.stream.SendMsg(plan.encode(from, at)) != nil {
				return // the stream is over, and whoever waits for it learns that as well
			}
			if bytes += plan.bytes[at]; bytes >= base.WatchSentBytes {
				w.sent(bytes)
				bytes = 0
			}
		}
		w.sent(bytes)
	}
}

// next takes what waits, and gives back what was sent; nil: nothing waits, and the next that does has another sender.
func (w *watchStream) next(plan *plan, sent []watch.Out) []watch.Out {
	w.mu.Lock()
	defer w.mu.Unlock()
	outs := w.queue
	if len(outs) == 0 {
		w.queue, w.sending = nil, false
		plan.room = base.Emptied(sent)
		return nil
	}
	w.queue = base.Emptied(sent)
	return outs
}

func (w *watchStream) sent(bytes int) {
	if bytes == 0 {
		return
	}
	w.node.Sent(bytes)
	w.mu.Lock()
	w.queued -= bytes
	w.mu.Unlock()
	w.wake()
}
