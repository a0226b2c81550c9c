package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
)

// keeper keeps the leases of a keyspace's sessions alive: over one stream, several with one waking, each at a third of its TTL. Of each
// lease one keep-alive is under way, so that it is known which one an answer is for. A stream on which one is not answered
// within such a third is given up for another node's.
type keeper struct {
	kv       KV
	answered atomic.Bool // on the present stream

	mu       sync.Mutex
	sessions map[int64]*Session // by lease
	running  bool
	changed  chan struct{} // there is something to do sooner than was thought
}

// keeper is that of a keyspace.
func (c *Client) keeper(k KV) *keeper {
	c.keepersMu.Lock()
	defer c.keepersMu.Unlock()
	q := c.keepers[k.keyspace]
	if q == nil {
		q = &keeper{kv: k, sessions: make(map[int64]*Session), changed: make(chan struct{}, 1)}
		c.keepers[k.keyspace] = q
	}
	return q
}

func (q *keeper) add(s *Session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sessions[s.lease.ID] = s
	if !q.running {
		q.running = true
		go q.run()
	}
	wake(q.changed)
}

// drop ends a session.
func (q *keeper) drop(s *Session, why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.sessions, s.lease.ID)
	s.cancel(why)
	wake(q.changed)
}

// left is how long the session's lease certainly lives.
func (q *keeper) left(s *Session) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.leftLocked(s)
}

func (q *keeper) leftLocked(s *Session) time.Duration {
	return s.lease.TTL - s.lease.TTL/base.ClientLeaseMargin - since(s.kept)
}

// run goes from stream to stream as long as there are sessions.
func (q *keeper) run() {
	wait, last := base.ReconnectMin, ""
	for {
		first, some := q.expire()
		if !some && q.over() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), first) // a session is lost in time, also if no node can be reached
		addr, err := q.stream(ctx, last)
		switch {
		case errors.Is(err, ErrClosed):
			q.abandon(err)
		case err != nil:
			if q.answered.Swap(false) {
				wait = base.ReconnectMin
			}
			last = addr
			pause(ctx, wait)
			wait = min(2*wait, base.ReconnectMax)
		}
		cancel()
	}
}

// expire ends the sessions whose time is over, and tells when it is for the next; false: there is none.
func (q *keeper) expire() (first time.Duration, some bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, s := range q.sessions {
		left := q.leftLocked(s)
		if left <= 0 {
			delete(q.sessions, id)
			s.cancel(ErrSessionLost)
			continue
		}
		if !some || left < first {
			first, some = left, true
		}
	}
	return first, some
}

// over ends the keeper, unless a session has come.
func (q *keeper) over() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running = len(q.sessions) > 0
	return !q.running
}

// abandon ends all sessions, as the client was closed.
func (q *keeper) abandon(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.sessions {
		s.cancel(fmt.Errorf("%w: %w", ErrSessionLost, err))
	}
	clear(q.sessions)
}

// stream keeps leases alive over one stream, to a node other than last if there is one. It returns nil when there is none to keep.
func (q *keeper) stream(ctx context.Context, last string) (addr string, err error) {
	p := q.kv.c.routes.find(q.kv.keyspace, nil)
	n, err := q.kv.c.choose(ctx, p, last)
	if err != nil {
		return last, err
	}
	defer q.kv.c.conns.give(n)
	sctx, cancel := context.WithCancel(context.Background())
	in, err := pb.NewLeaseClient(n.cc).LeaseKeepAlive(metadata.AppendToOutgoingContext(sctx, base.KeyspaceHeader, q.kv.keyspace))
	if err != nil {
		cancel()
		return n.addr, outcome(err, false, reads)
	}
	broke := make(chan error, 1)
	var receiving sync.WaitGroup
	receiving.Go(func() { broke <- q.receive(in) })
	defer receiving.Wait()
	defer cancel()
	q.mu.Lock()
	for _, s := range q.sessions {
		s.sent = nil // what was under way is not heard of any more
	}
	q.mu.Unlock()
	for {
		ids, next, stuck := q.due()
		switch {
		case stuck:
			err := &Unavailable{Cause: fmt.Errorf("the node at %s does not answer keep-alives", n.addr)}
			q.kv.c.heal(q.kv.keyspace, p, n, err)
			return n.addr, err
		case next == 0:
			return n.addr, nil
		}
		for _, id := range ids {
			if in.Send(&pb.LeaseKeepAliveRequest{ID: id}) != nil {
				break // receive learns why
			}
		}
		again, stop := after(next)
		select {
		case <-again:
		case <-q.changed:
		case err := <-broke:
			stop()
			return n.addr, err
		}
		stop()
	}
}

// due are the leases to keep alive now, and how long it is until one is to be looked at again; 0: there are none. stuck says that a
// keep-alive was not answered in its time.
func (q *keeper) due() (ids []int64, next time.Duration, stuck bool) {
	if _, some := q.expire(); !some {
		return nil, 0, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, s := range q.sessions {
		third := s.lease.TTL / 3
		wait := third - since(s.kept)
		switch {
		case s.sent != nil:
			if wait = third - since(*s.sent); wait <= 0 {
				return nil, 0, true
			}
		case wait <= third/4: // with those that are due now: one waking, one frame
			t := now()
			s.sent, wait = &t, third
			ids = append(ids, id)
		}
		wait = max(min(wait, q.leftLocked(s)), time.Millisecond)
		if next == 0 || wait < next {
			next = wait
		}
	}
	slices.Sort(ids)
	return ids, next, false
}

// receive takes answers until the stream breaks.
func (q *keeper) receive(in pb.Lease_LeaseKeepAliveClient) error {
	for {
		r, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return &Unavailable{Cause: errors.New("a node has ended the stream of keep-alives")}
		}
		if err != nil {
			return outcome(err, true, reads)
		}
		q.mu.Lock()
		s := q.sessions[r.ID]
		if s != nil && s.sent != nil {
			if r.TTL > 0 {
				s.kept, s.sent = *s.sent, nil
				q.answered.Store(true)
			} else {
				delete(q.sessions, r.ID)
				s.cancel(fmt.Errorf("%w: %w", ErrSessionLost, ErrLeaseNotFound))
			}
		}
		q.mu.Unlock()
		wake(q.changed)
	}
}
