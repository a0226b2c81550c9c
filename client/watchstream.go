package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc/metadata"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
)

// watches are the streams on which a client's watches are: one to each node and keyspace, which many watches share, and one for each
// watch that is slow. A stream is opened by the first watch that needs it, and ended when the last has left it.
type watches struct {
	c *Client

	mu     sync.Mutex // of this, and of the sets of watches of all streams
	shared map[streamKey]*watchStream
}

type streamKey struct{ keyspace, addr string }

// watchStream is one stream. Its goroutines end with it: one receives, one sends.
type watchStream struct {
	of  *watches
	key streamKey
	n   *conn
	in  pb.Watch_WatchClient
	own bool // of a single watch, whose caller it waits for

	ctx    context.Context
	cancel context.CancelFunc

	// Under watches.mu.
	watches map[int64]*watcher // by the id on this stream
	pending []int64            // asked for and not answered, in order
	lastID  int64
	out     []*pb.WatchRequest
	ended   bool

	outNews chan struct{}
}

// join puts a watch on a stream, not to the node last if there is another.
func (x *watches) join(ctx context.Context, w *watcher, last string) (*watchStream, error) {
	key, _ := w.o.wire()
	p := x.c.routes.find(w.kv.keyspace, key)
	if !w.alone && p.Addr == "" {
		if s := x.any(w, last); s != nil {
			return s, nil
		}
	}
	n, err := x.c.choose(ctx, p, last)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	k := streamKey{w.kv.keyspace, n.addr}
	if s := x.shared[k]; s != nil && !w.alone {
		x.c.conns.give(n)
		s.add(w)
		return s, nil
	}
	s, err := x.open(k, n, w.alone)
	if err != nil {
		x.c.conns.give(n)
		return nil, err
	}
	s.add(w)
	return s, nil
}

// any puts a watch on a stream that is there, whichever: who leads its range is not known.
func (x *watches) any(w *watcher, last string) *watchStream {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k, s := range x.shared {
		if k.keyspace == w.kv.keyspace && k.addr != last {
			s.add(w)
			return s
		}
	}
	return nil
}

// open begins a stream over a connection that is there. A node that knows of no leader is to say so: another may know more.
func (x *watches) open(k streamKey, n *conn, own bool) (*watchStream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &watchStream{
		of: x, key: k, n: n, own: own, ctx: ctx, cancel: cancel, watches: make(map[int64]*watcher), outNews: make(chan struct{}, 1),
	}
	var err error
	s.in, err = pb.NewWatchClient(n.cc).Watch(metadata.AppendToOutgoingContext(ctx, base.KeyspaceHeader, k.keyspace,
		rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader))
	if err != nil {
		cancel()
		return nil, outcome(err, false, reads)
	}
	if !own {
		x.shared[k] = s
	}
	go s.send()
	go s.receive()
	return s, nil
}

// add asks for a watch. Ids are the client's and never used twice on a stream, so that what still comes for a watch that has left
// is nobody's.
func (s *watchStream) add(w *watcher) {
	s.lastID++
	w.id = s.lastID
	s.watches[s.lastID] = w
	s.pending = append(s.pending, s.lastID)
	s.queue(w.request(s.lastID))
}

func (s *watchStream) queue(r *pb.WatchRequest) {
	s.out = append(s.out, r)
	wake(s.outNews)
}

// leave takes a watch off the stream, which ends with its last.
func (x *watches) leave(s *watchStream, w *watcher) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s.ended {
		return
	}
	if s.watches[w.id] == w {
		delete(s.watches, w.id)
		s.queue(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: w.id}}})
	}
	if len(s.watches) == 0 {
		s.end()
	}
}

// end ends the stream; watches.mu is held.
func (s *watchStream) end() {
	if s.ended {
		return
	}
	s.ended = true
	if s.of.shared[s.key] == s {
		delete(s.of.shared, s.key)
	}
	s.cancel()
	s.of.c.conns.give(s.n)
}

func (s *watchStream) send() {
	for {
		s.of.mu.Lock()
		out := s.out
		s.out = nil
		s.of.mu.Unlock()
		for _, r := range out {
			if s.in.Send(r) != nil {
				return // receive learns why
			}
		}
		select {
		case <-s.outNews:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *watchStream) receive() {
	for {
		r, err := s.in.Recv()
		if err != nil {
			s.broke(err)
			return
		}
		s.deliver(r)
	}
}

// broke tells all watches that the stream has ended.
func (s *watchStream) broke(err error) {
	if errors.Is(err, io.EOF) {
		err = &Unavailable{Cause: fmt.Errorf("the node at %s has ended the stream", s.key.addr)}
	} else {
		err = outcome(err, true, reads)
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.end()
	for _, w := range s.watches {
		w.end(err)
	}
	clear(s.watches)
}

// deliver gives a response to the watch that it is for.
func (s *watchStream) deliver(r *pb.WatchResponse) {
	id := r.WatchId
	revision := r.Header.GetRevision()
	s.of.mu.Lock()
	if id < 0 && !r.Created && !r.Canceled {
		for _, w := range s.watches {
			w.progress(revision)
		}
		s.of.mu.Unlock()
		return
	}
	if r.Created && len(s.pending) > 0 {
		if id < 0 {
			id = s.pending[0] // refused, which is said in the order of the requests
		}
		s.answered(id)
	}
	w := s.watches[id]
	if r.Canceled {
		delete(s.watches, id)
	}
	s.of.mu.Unlock()
	switch {
	case w == nil: // it has left
	case r.Canceled:
		w.end(cancelled(r))
	case r.Created:
		w.begun(revision)
	case len(r.Events) == 0:
		w.progress(revision)
	case w.receive(r) <= base.ClientWatchBytes:
	case s.own:
		w.hasRoom(s.ctx)
	default:
		s.of.leave(s, w)
		w.end(errSlow)
	}
}

func (s *watchStream) answered(id int64) {
	for i, p := range s.pending {
		if p == id {
			s.pending = append(s.pending[:i], s.pending[i+1:]...)
			return
		}
	}
}

// cancelled is why a node has ended a watch.
func cancelled(r *pb.WatchResponse) error {
	if r.CompactRevision > 0 {
		return &Compacted{Revision: r.CompactRevision}
	}
	if r.CancelReason == rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader) {
		return &Unavailable{Cause: rpctypes.ErrNoLeader}
	}
	return fmt.Errorf("the watch was refused: %s", r.CancelReason)
}
