package serve

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/dispatch"
)

// A stream of keep-alives. What a client has sent meanwhile is asked for together: a client with ten thousand leases waits for a few
// answers, and not for ten thousand. A lease that is ending is answered for when it has ended, and holds up none of the others.

// keepStream is one stream.
type keepStream struct {
	s      *leaseService
	stream pb.Lease_LeaseKeepAliveServer
	leases Leases
	ks     base.KeyspaceID
	work   *errgroup.Group // the first that fails ends the stream
	sends  sync.Mutex
}

// LeaseKeepAlive keeps leases alive, one for each message. It answers in their order, but for those that are ending. As in etcd a stream
// ends of which a lease could not be answered for in time.
func (s *leaseService) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	leases, ks, err := s.of(stream.Context())
	if err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(stream.Context())
	work.SetLimit(1 + base.LeaseStreamQueue)
	k := &keepStream{s: s, stream: stream, leases: leases, ks: ks, work: work}
	work.Go(func() error { return k.run(ctx) })
	return work.Wait()
}

func (k *keepStream) run(ctx context.Context) error {
	asked, ended := make(chan int64, base.LeaseStreamQueue), make(chan error, 1)
	go receiveLeases(k.stream, asked, ended) // it ends with the stream, and that when LeaseKeepAlive returns
	for {
		select {
		case id, ok := <-asked:
			if !ok {
				if err := <-ended; !errors.Is(err, io.EOF) {
					return err
				}
				return nil
			}
			if err := k.keep(ctx, gathered(id, asked)); err != nil {
				return err
			}
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

func receiveLeases(stream pb.Lease_LeaseKeepAliveServer, asked chan<- int64, ended chan<- error) {
	defer close(asked)
	for {
		req, err := stream.Recv()
		if err != nil {
			ended <- err
			return
		}
		select {
		case asked <- req.ID:
		case <-stream.Context().Done():
			ended <- stream.Context().Err()
			return
		}
	}
}

// gathered is a lease and those that wait behind it.
func gathered(first int64, asked <-chan int64) []int64 {
	ids := []int64{first}
	for len(ids) < base.LeaseStreamQueue {
		select {
		case id, ok := <-asked:
			if !ok {
				return ids
			}
			ids = append(ids, id)
		default:
			return ids
		}
	}
	return ids
}

func (k *keepStream) keep(ctx context.Context, ids []int64) error {
	asked, cancel := context.WithTimeoutCause(ctx, k.s.cfg.RequestTimeout, errServerTimeout)
	defer cancel()
	kept, err := k.leases.KeepAlive(asked, k.ks, ids)
	if err != nil {
		return timedOut(asked, err)
	}
	for i := range kept {
		if kept[i].Ending {
			continue
		}
		if err := k.send(ids[i], kept[i]); err != nil {
			return err
		}
	}
	for i, id := range ids {
		if kept[i].Ending {
			k.work.Go(func() error { return k.end(ctx, id) }) // when many wait, so do the stream's next messages
		}
	}
	return nil
}

// end answers for a lease that is ending.
func (k *keepStream) end(ctx context.Context, id int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, k.s.cfg.RequestTimeout, errServerTimeout)
	defer cancel()
	kept, err := k.leases.AwaitEnd(ctx, k.ks, id)
	if err != nil {
		return timedOut(ctx, err)
	}
	return k.send(id, kept)
}

func (k *keepStream) send(id int64, kept dispatch.Kept) error {
	k.sends.Lock()
	defer k.sends.Unlock()
	return k.stream.Send(&pb.LeaseKeepAliveResponse{Header: k.s.header(k.ks, kept.Revision), ID: id, TTL: kept.TTL})
}
