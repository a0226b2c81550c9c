package serve

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// calls counts the calls under way, so that a stop can wait for them.
type calls struct {
	n        atomic.Int64
	draining atomic.Bool
	closed   atomic.Bool   // no call begins any more
	idle     chan struct{} // one place: a call ended while draining, and was the last
}

func newCalls() *calls { return &calls{idle: make(chan struct{}, 1)} }

// begin says whether a call may begin.
func (c *calls) begin() bool {
	c.n.Add(1) // before the look at closed: drain counts after it has set that
	if c.closed.Load() {
		c.end()
		return false
	}
	return true
}

func (c *calls) end() {
	if c.n.Add(-1) == 0 && c.draining.Load() {
		select {
		case c.idle <- struct{}{}:
		default:
		}
	}
}

// drain returns when no call is under way, or when cut is closed. Then none begins any more.
func (c *calls) drain(cut <-chan struct{}) {
	c.draining.Store(true)
	for c.n.Load() != 0 {
		select {
		case <-c.idle:
		case <-cut:
			c.closed.Store(true)
			return
		}
	}
	c.closed.Store(true)
}

// GracefulStop tells the clients to go elsewhere, lets the calls under way end, and then ends the streams that would
// never end by themselves. Those are open until then, for between nodes they carry what the calls wait for. Stop cuts
// the waiting short.
func (s *Server) GracefulStop() {
	done := make(chan struct{})
	go func() {
		s.Server.GracefulStop()
		close(done)
	}()
	var web sync.WaitGroup
	web.Go(func() { s.stopHTTP(true) })
	s.calls.drain(done)
	s.endStreams()
	// All handlers return now. What their clients do not read, such as the last word to a watch, would hold up the end of a connection.
	grace := time.NewTimer(base.StreamEndGrace)
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
		s.Server.Stop()
		<-done
	}
	s.streams.Wait()
	web.Wait()
	s.endHTTP()
}

// Stop ends everything at once.
func (s *Server) Stop() {
	s.calls.closed.Store(true)
	s.endStreams()
	s.stopHTTP(false)
	s.Server.Stop()
	s.streams.Wait()
	s.endHTTP()
}

func (s *Server) endStreams() { s.once.Do(func() { close(s.ending) }) }

// runStream serves a stream that has no end of its own until it ends or the server does. A handler cannot be waked
// from its wait for the next message; but the stream is over as soon as this function returns, and with it the wait.
func (s *Server) runStream(handle func() error) error {
	done := make(chan error, 1)
	s.streams.Go(func() { done <- handle() })
	select {
	case err := <-done:
		return err
	case <-s.ending:
		return base.ErrStopped
	}
}

// untilEnding is the context of a call that waits for other clients: it ends when streams do.
func (s *Server) untilEnding(ctx context.Context) (within context.Context, end func()) {
	within, cancel := context.WithCancelCause(ctx)
	s.streams.Go(func() {
		select {
		case <-s.ending:
			cancel(base.ErrStopped)
		case <-within.Done():
		}
	})
	return within, func() { cancel(nil) }
}
