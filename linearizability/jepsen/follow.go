package jepsen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// A Follow is one watch on the wire, as etcd's clients open it, without anything of a client library's: nothing is resumed, put in
// order or left out on the way to the history. What the server sent is what is checked.

// errNeverCreated: of such a watch nothing is known but that it was asked for.
var errNeverCreated = errors.New("the watch was not created within its time")

// readAhead is how many responses a follower's reader may lie behind before its stream is not read any more: the node is to notice.
const readAhead = 4

// followStream is one stream of watches to one node.
type followStream struct {
	link   *link // its own; nil: the caller's
	in     pb.Watch_WatchClient
	cancel context.CancelFunc
	sends  sync.Mutex // a stream is written to by one at a time

	mu      sync.Mutex
	watches map[int64]*following
	pending []*following // asked for and not answered, in order
	lastID  int64
	ended   bool
}

// following is one watch on a stream.
type following struct {
	id      int64 // 0: the node chooses
	created bool
	got     chan *pb.WatchResponse // closed when the stream has broken
	left    chan struct{}          // closed when nobody reads got any more
}

// openStream opens a stream over a link. It lasts until it breaks or is closed.
func openStream(k *link, own *link) (*followStream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	if k.keyspace.name != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, base.KeyspaceHeader, k.keyspace.name)
	}
	in, err := pb.NewWatchClient(k.conn).Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &followStream{link: own, in: in, cancel: cancel, watches: make(map[int64]*following)}
	go s.receive()
	return s, nil
}

// watch asks for a watch. With chosen the id is this client's choice, and else the node's: etcd's clients do both.
func (s *followStream) watch(req *followpb.FollowRequest, chosen bool) (*following, error) {
	f := &following{got: make(chan *pb.WatchResponse, readAhead), left: make(chan struct{})}
	create := &pb.WatchCreateRequest{
		Key: req.Key, RangeEnd: req.RangeEnd, StartRevision: req.StartRevision, PrevKv: req.PrevKv, ProgressNotify: req.ProgressNotify, Fragment: req.Fragment,
	}
	if req.NoPut {
		create.Filters = append(create.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if req.NoDelete {
		create.Filters = append(create.Filters, pb.WatchCreateRequest_NODELETE)
	}
	s.sends.Lock() // also the order of pending is that of the requests
	defer s.sends.Unlock()
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil, io.EOF
	}
	if chosen {
		s.lastID++
		f.id, create.WatchId = s.lastID, s.lastID
	}
	s.pending = append(s.pending, f)
	s.mu.Unlock()
	if err := s.in.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		s.leave(f)
		return nil, err
	}
	return f, nil
}

func (s *followStream) requestProgress() {
	s.sends.Lock()
	defer s.sends.Unlock()
	_ = s.in.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}) // receive learns of a stream that broke
}

// leave cancels a watch. What still comes for it is nobody's.
func (s *followStream) leave(f *following) {
	close(f.left)
	s.mu.Lock()
	created, ended := f.created, s.ended
	if created {
		delete(s.watches, f.id)
	}
	s.mu.Unlock()
	if !created || ended {
		return // receive cancels what is created and was left
	}
	s.cancelWatch(f.id)
}

func (s *followStream) cancelWatch(id int64) {
	s.sends.Lock()
	defer s.sends.Unlock()
	_ = s.in.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}) // receive learns of a stream that broke
}

// receive hands responses out, in their order, until the stream breaks.
func (s *followStream) receive() {
	for {
		r, err := s.in.Recv()
		if err != nil {
			s.broke()
			return
		}
		for _, f := range s.of(r) {
			select {
			case f.got <- r:
			case <-f.left:
				if r.Created && !r.Canceled {
					s.cancelWatch(r.WatchId)
				}
			}
		}
	}
}

// of are the watches that a response is for: one, or, of a notification that names none, all that were created.
func (s *followStream) of(r *pb.WatchResponse) (out []*following) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Created && len(s.pending) > 0:
		// What a client has named is found by its name. Else answers are taken in the order of the requests.
		i := max(0, slices.IndexFunc(s.pending, func(f *following) bool { return f.id != 0 && f.id == r.WatchId }))
		f := s.pending[i]
		s.pending = slices.Delete(s.pending, i, i+1)
		if !r.Canceled {
			f.id, f.created = r.WatchId, true
			s.watches[f.id] = f
		}
		return []*following{f}
	case r.WatchId < 0 && !r.Canceled:
		for _, f := range s.watches {
			out = append(out, f)
		}
	case s.watches[r.WatchId] != nil:
		out = append(out, s.watches[r.WatchId])
		if r.Canceled {
			delete(s.watches, r.WatchId)
		}
	}
	return out
}

func (s *followStream) broke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, f := range s.pending {
		close(f.got)
	}
	for _, f := range s.watches {
		close(f.got)
	}
	s.pending, s.watches = nil, nil
	s.cancel()
	if s.link != nil {
		s.link.close()
	}
}

func (s *followStream) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// streams are the streams that several clients of a stage share: one to each node and keyspace.
type streams struct {
	mu     sync.Mutex
	shared map[string]*followStream
}

func (x *streams) get(ctx context.Context, address string, ks keyspace) (*followStream, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	name := address + " " + ks.name
	if s := x.shared[name]; s != nil && !s.over() {
		return s, nil
	}
	k, err := dial(ctx, address, ks)
	if err != nil {
		return nil, err
	}
	s, err := openStream(k, k)
	if err != nil {
		k.close()
		return nil, err
	}
	if x.shared == nil {
		x.shared = make(map[string]*followStream)
	}
	x.shared[name] = s
	return s, nil
}

// close ends all streams.
func (x *streams) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.shared {
		s.cancel()
	}
}

// follow carries out a Follow at the caller's node.
func (c *caller) follow(ctx context.Context, req *followpb.FollowRequest) (*followpb.FollowResponse, error) {
	var (
		s   *followStream
		err error
	)
	if req.Shared {
		s, err = c.load.streams.get(ctx, c.link.address, c.keyspace)
	} else if s, err = openStream(c.link, nil); err == nil {
		defer s.cancel()
	}
	if err != nil {
		return nil, err
	}
	f, err := s.watch(req, req.Shared)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNeverCreated, err)
	}
	defer s.leave(f)
	log := linearizability.NewFollower(req.StartRevision)
	if err := c.load.take(ctx, s, f, req, log); err != nil {
		return nil, err
	}
	return log.Response(), nil
}

// take takes what the watch gets until one of the request's ends. An error means that it was never created.
func (l *load) take(ctx context.Context, s *followStream, f *following, req *followpb.FollowRequest, log *linearizability.Follower) error {
	limit := time.NewTimer(patience)
	if req.ForMicros > 0 {
		limit.Reset(micros(req.ForMicros))
	}
	defer limit.Stop()
	var ask <-chan time.Time
	if req.ProgressMicros > 0 {
		t := time.NewTicker(micros(req.ProgressMicros))
		defer t.Stop()
		ask = t.C
	}
	created := false
	for {
		select {
		case r, ok := <-f.got:
			if !ok && !created {
				return fmt.Errorf("%w: its stream broke", errNeverCreated)
			}
			if !ok {
				log.Broken("its stream broke")
				return nil
			}
			if r.Created && r.Canceled {
				return fmt.Errorf("%w: %s", errNeverCreated, r.CancelReason)
			}
			created = created || r.Created
			if l.note(r, log) || log.Reached(req) {
				return nil
			}
			if req.PauseMicros > 0 {
				pause(ctx, nil, micros(req.PauseMicros))
			}
		case <-ask:
			s.requestProgress()
		case <-limit.C:
			if !created {
				return errNeverCreated
			}
			return nil
		case <-ctx.Done():
			if !created {
				return errNeverCreated
			}
			return nil
		}
	}
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// note writes a response down; it says whether it was the watch's last.
func (l *load) note(r *pb.WatchResponse, log *linearizability.Follower) (ended bool) {
	at, revision := l.record.clock(), r.Header.GetRevision()
	switch {
	case r.Canceled && r.CompactRevision > 0:
		log.Compacted(at, r.CompactRevision, r.CancelReason)
		return true
	case r.Canceled:
		log.Broken(r.CancelReason)
		return true
	case r.Created:
		log.Created(at, revision)
	case len(r.Events) == 0:
		log.Progress(at, revision)
	default:
		log.Events(at, revision, r.Events, r.Fragment)
	}
	return false
}
