// Package watch runs a node's watches (docs/rfc/0005-watch.md). What happens is decided by the stepped hub of meta/watch. Here is what
// it lacks: one goroutine that steps it (loop.go), told by a mailbox that never makes anybody wait who applies (mailbox.go); goroutines
// that find the answers to what it asks (ask.go); and the streams, to which it is told what to send.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// Ranges answers what the hub asks; node/dispatch does.
type Ranges interface {
	Changes(context.Context, *rangepb.ChangesRequest) (*rangepb.ChangesResponse, error)
	Close(ctx context.Context, ks base.KeyspaceID, quiet []watch.Quiet) error
	Now(ctx context.Context, ks base.KeyspaceID, start, end []byte) (base.Revision, error)
}

// Config is what Watches work with.
type Config struct {
	Ranges Ranges
	// Want has this node's replica of a range tell what it shows (Applied, Gone), or tell it no longer. It must not block.
	Want func(watch.Want)
	Now  func() base.Instant
	Seed uint64
	// ProgressInterval is how often a watch is told how far it is that asked for it; 0: base's.
	ProgressInterval time.Duration
	Logger           *slog.Logger
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	if c.Ranges == nil || c.Want == nil || c.Now == nil || c.Logger == nil {
		return errors.New("all of the configuration is needed")
	}
	return nil
}

// Sink takes what a stream's watches get. Its methods are called by one goroutine and must not block.
type Sink interface {
	// Outs is given what is to be sent next; the slice is the caller's again when it returns.
	Outs([]watch.Out)
	// End says that the stream is served no longer.
	End(error)
}

// Watches is all watches of a node.
type Watches struct {
	cfg Config
	in  *mailbox
	ids atomic.Uint64 // of streams

	hub     *watch.Hub // this and what follows is the loop's own
	streams map[watch.StreamID]*Stream
	asks    map[uint64]context.CancelFunc
	touched []*Stream
	spare   [][]watch.Out

	counts counts
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New makes a node's watches. They are served from Start on.
func New(cfg Config) (*Watches, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	hc := watch.Config{ProgressInterval: cfg.ProgressInterval, Rand: base.NewRand(cfg.Seed)}
	if err := hc.Validate(); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	w := &Watches{
		cfg: cfg, in: newMailbox(), hub: watch.NewHub(hc), streams: make(map[watch.StreamID]*Stream),
		asks: make(map[uint64]context.CancelFunc),
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w, nil
}

// Start runs the hub until Stop.
func (w *Watches) Start() { w.wg.Go(w.run) }

// Stop ends all streams, and returns when nothing of the watches runs any more.
func (w *Watches) Stop() {
	w.in.close()
	w.cancel()
	w.wg.Wait()
}

// Applied tells what this node's replica of a range has shown. It returns at once.
func (w *Watches) Applied(a watch.Applied) { w.in.applied(&a) }

// Gone tells that this node's replica of a range has ended.
func (w *Watches) Gone(id base.RangeID) { w.in.gone(id) }

// Stream is a stream of watches. Its methods may be called from any goroutine.
type Stream struct {
	w    *Watches
	id   watch.StreamID
	sink Sink

	batch   []watch.Out // that this step has for it; these are the loop's own
	most    int         // events in one of them
	watches int64
	unsent  int  // bytes that its client is not known to be sent
	behind  bool // it has too much of that
}

// Open begins a stream, unless the node stops.
func (w *Watches) Open(sink Sink) (*Stream, error) {
	s := &Stream{w: w, id: watch.StreamID(w.ids.Add(1)), sink: sink}
	ok := w.in.do(func(h *watch.Hub) {
		w.streams[s.id] = s
		w.counts.streams.Add(1)
		h.Open(s.id)
	})
	if !ok {
		return nil, base.ErrStopped
	}
	return s, nil
}

// Create begins a watch under an id, or under one that is chosen if it is 0. It waits while too much is asked of the node.
func (s *Stream) Create(id int64, spec watch.Spec) {
	if s.w.in.waitForRoom() {
		s.do(func(h *watch.Hub) { h.Create(s.id, id, spec) })
	}
}

// Cancel ends a watch.
func (s *Stream) Cancel(id int64) {
	s.do(func(h *watch.Hub) { h.Cancel(s.id, id) })
}

// Progress asks how far the watches are.
func (s *Stream) Progress() {
	s.do(func(h *watch.Hub) { h.Progress(s.id) })
}

func (s *Stream) do(f func(*watch.Hub)) { s.w.in.do(f) }

// Sent says that so many bytes of what the sink was given are on their way.
func (s *Stream) Sent(bytes int) { s.w.in.sent(s.id, bytes) }

// Close ends the stream. What its sink is still given is of no use.
func (s *Stream) Close() {
	s.do(func(h *watch.Hub) {
		if s.w.streams[s.id] == nil {
			return
		}
		h.CloseStream(s.id)
		delete(s.w.streams, s.id)
		s.w.counts.streams.Add(-1)
		s.w.counts.watches.Add(-s.watches)
		if s.behind {
			s.w.counts.behind.Add(-1)
		}
	})
}
