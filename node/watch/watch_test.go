package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/watch"
)

// fakeRange is one range that holds a whole keyspace, as dispatch shows it: all changes that were made, which need not have been told.
type fakeRange struct {
	mu      sync.Mutex
	changes []*watch.Event
	more    chan struct{} // closed when there is one more
	err     error
	failed  chan struct{} // capacity 1: a question was answered with err
}

const (
	theRange    = base.RangeID(9)
	theKeyspace = base.KeyspaceDefault
)

func (r *fakeRange) write(key string) *watch.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	rev := base.Revision(len(r.changes) + 1)
	e := watch.EncodeEvent(&eval.Event{Key: []byte(key), Record: eval.Record{Mod: rev, Create: rev, Version: 1, Value: []byte("v")}})
	r.changes = append(r.changes, e)
	close(r.more)
	r.more = make(chan struct{})
	return e
}

func (r *fakeRange) Changes(ctx context.Context, req *rangepb.ChangesRequest) (*rangepb.ChangesResponse, error) {
	for {
		r.mu.Lock()
		rev, more, err := int64(len(r.changes)), r.more, r.err
		resp := &rangepb.ChangesResponse{Start: req.Start, End: req.End, RangeId: uint64(theRange), Revision: rev, Next: rev + 1}
		for _, e := range r.changes {
			if req.From > 0 && int64(e.Revision) >= req.From && string(e.Key) >= string(req.Start) && (len(req.End) == 0 || string(e.Key) < string(req.End)) {
				resp.Events = append(resp.Events, e.Whole())
			}
		}
		r.mu.Unlock()
		if err != nil {
			select {
			case r.failed <- struct{}{}:
			default:
			}
		}
		if err != nil || req.WaitMicros == 0 || rev >= req.From {
			return resp, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *fakeRange) Close(context.Context, base.KeyspaceID, []watch.Quiet) error { return r.err }

func (r *fakeRange) Now(context.Context, base.KeyspaceID, []byte, []byte) (base.Revision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return base.Revision(len(r.changes)), r.err
}

// applied is what a replica shows that has just applied some events.
func applied(events ...*watch.Event) watch.Applied {
	return watch.Applied{
		Range: theRange, Descriptor: &metapb.RangeDescriptor{RangeId: uint64(theRange), KeyspaceId: uint64(theKeyspace), Generation: 1},
		From: events[0].Revision, Next: events[len(events)-1].Revision + 1, Events: events,
	}
}

// sink keeps what it is given.
type sink struct {
	got   chan watch.Out
	ended chan error
}

func newSink() *sink { return &sink{make(chan watch.Out, 1<<16), make(chan error, 1)} }

func (s *sink) Outs(outs []watch.Out) {
	for _, o := range outs {
		s.got <- o
	}
}
func (s *sink) End(err error) { s.ended <- err }

func (s *sink) next(t *testing.T) watch.Out {
	t.Helper()
	select {
	case o := <-s.got:
		return o
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was sent")
		return watch.Out{}
	}
}

// events reads n of them and returns their revisions.
func (s *sink) events(t *testing.T, n int) (revs []base.Revision) {
	t.Helper()
	for len(revs) < n {
		o := s.next(t)
		if o.Kind != watch.Events {
			t.Fatalf("not events: %+v", o)
		}
		for _, e := range o.Events {
			revs = append(revs, e.Revision)
		}
	}
	return revs
}

type world struct {
	*Watches
	r     *fakeRange
	wants chan watch.Want
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{r: &fakeRange{more: make(chan struct{}), failed: make(chan struct{}, 1)}, wants: make(chan watch.Want, 100)}
	began := time.Now()
	var err error
	w.Watches, err = New(Config{
		Ranges: w.r, Want: func(x watch.Want) { w.wants <- x }, Now: func() base.Instant { return base.Instant(time.Since(began)) + 1 },
		Seed: 1, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Start()
	t.Cleanup(w.Stop)
	return w
}

// settle returns when the loop has worked on all that it was told before. What was sent it looks at last of what it takes at a time.
func (w *world) settle(t *testing.T) {
	t.Helper()
	for range 2 {
		done := make(chan struct{})
		if !w.in.do(func(*watch.Hub) { close(done) }) {
			t.Fatal("it has stopped")
		}
		<-done
	}
}

// open begins a stream with one watch of everything, from a revision on.
func (w *world) open(t *testing.T, from base.Revision) (*Stream, *sink) {
	t.Helper()
	to := newSink()
	s, err := w.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	s.Create(0, watch.Spec{Keyspace: theKeyspace, From: from})
	if o := to.next(t); o.Kind != watch.Created {
		t.Fatalf("not created: %+v", o)
	}
	return s, to
}

// A watch gets what was written before, by a pull; then what the replica of this node shows; and, when that is gone, what a pull that
// waits brings.
func TestPastPresentAndFromAfar(t *testing.T) {
	w := start(t)
	w.r.write("a")
	w.r.write("b")
	s, to := w.open(t, 1)
	if got := fmt.Sprint(to.events(t, 2)); got != "[1 2]" {
		t.Errorf("of the past: %s", got)
	}
	if x := <-w.wants; x.Range != theRange || !x.Events {
		t.Errorf("wanted %+v", x)
	}
	w.Applied(watch.Applied{Range: theRange, Descriptor: applied(&watch.Event{}).Descriptor, From: 3, Next: 3})
	w.Applied(applied(w.r.write("c")))
	if got := fmt.Sprint(to.events(t, 1)); got != "[3]" {
		t.Errorf("live: %s", got)
	}
	w.Gone(theRange)
	w.r.write("d")
	if got := fmt.Sprint(to.events(t, 1)); got != "[4]" {
		t.Errorf("from afar: %s", got)
	}
	c := w.Counts()
	if c.Streams != 1 || c.Watches != 1 || c.Events != 4 || c.Pulls == 0 {
		t.Errorf("counted %+v", c)
	}
	s.Cancel(0)
	if o := to.next(t); o.Kind != watch.Canceled {
		t.Errorf("not canceled: %+v", o)
	}
	s.Close()
	if s2, _ := w.open(t, 0); s2 != nil {
		if c := w.Counts(); c.Streams != 1 || c.Watches != 1 {
			t.Errorf("counted %+v", c)
		}
	}
}

// What fails is asked again.
func TestAskedAgain(t *testing.T) {
	w := start(t)
	w.r.write("a")
	w.r.mu.Lock()
	w.r.err = errors.New("the range has no leader")
	w.r.mu.Unlock()
	to := newSink()
	s, err := w.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	s.Create(7, watch.Spec{Keyspace: theKeyspace, From: 1})
	<-w.r.failed
	w.r.mu.Lock()
	w.r.err = nil
	w.r.mu.Unlock()
	if o := to.next(t); o.Kind != watch.Created || o.Watch != 7 {
		t.Errorf("not created: %+v", o)
	}
	to.events(t, 1)
}

// The streams of a keyspace that is dropped end with that.
func TestKeyspaceDropped(t *testing.T) {
	w := start(t)
	s, to := w.open(t, 0)
	dropped := &base.KeyspaceDropped{Keyspace: theKeyspace}
	w.r.mu.Lock()
	w.r.err = fmt.Errorf("asked: %w", dropped)
	w.r.mu.Unlock()
	w.r.write("a") // whoever waits for it is answered
	if err := <-to.ended; !errors.Is(err, dropped) {
		t.Errorf("ended with %v", err)
	}
	s.Create(0, watch.Spec{Keyspace: theKeyspace})
	s.Close()
	w.settle(t)
	if c := w.Counts(); c.Streams != 0 || c.Watches != 0 {
		t.Errorf("counted %+v", c)
	}
}

// Streams end with the watches, those that were opened in the last moment too; then nothing can be asked any more, nor does it block.
func TestStop(t *testing.T) {
	w := start(t)
	s, to := w.open(t, 0)
	last := newSink()
	if _, err := w.Open(last); err != nil {
		t.Fatal(err)
	}
	w.Stop()
	for _, to := range []*sink{to, last} {
		if err := <-to.ended; !errors.Is(err, base.ErrStopped) {
			t.Errorf("ended with %v", err)
		}
	}
	s.Create(0, watch.Spec{Keyspace: theKeyspace})
	s.Progress()
	s.Sent(1)
	s.Close()
	w.Applied(applied(w.r.write("a")))
	w.Gone(theRange)
	if _, err := w.Open(newSink()); !errors.Is(err, base.ErrStopped) {
		t.Errorf("opened: %v", err)
	}
}

// A stream whose client does not read is counted as being behind until it has read half of what waits.
func TestBehind(t *testing.T) {
	w := start(t)
	s, to := w.open(t, 0)
	w.Applied(watch.Applied{Range: theRange, Descriptor: applied(&watch.Event{}).Descriptor, From: 1, Next: 1})
	large := string(make([]byte, base.WatchResponseBytes))
	bytes := 0
	for range base.WatchStreamBytes / base.WatchResponseBytes {
		w.Applied(applied(w.r.write(large)))
		bytes += to.next(t).Bytes
	}
	behind := func(want int) {
		t.Helper()
		w.settle(t)
		if n := w.Counts().Behind; n != want {
			t.Errorf("%d are behind, want %d", n, want)
		}
	}
	behind(1)
	s.Sent(bytes/2 - base.WatchResponseBytes)
	s.Sent(2 * base.WatchResponseBytes)
	behind(0)
	w.Applied(applied(w.r.write(large)))
	to.events(t, 1)
	s.Close()
}

// Whoever applies never waits, and what waits for the loop is bounded: what is left out is read from where it is stored. Each
// event comes once, in order.
func TestOverrun(t *testing.T) {
	w := start(t)
	w.r.write("a")
	_, to := w.open(t, 1)
	to.events(t, 1)
	w.Applied(watch.Applied{Range: theRange, Descriptor: applied(&watch.Event{}).Descriptor, From: 2, Next: 2})
	release := make(chan struct{})
	w.in.do(func(*watch.Hub) { <-release }) // the loop is held up
	const n = 5000
	most := 0
	for range n {
		e := w.r.write("k")
		w.in.mu.Lock()
		w.in.bytes += base.WatchMailboxBytes / 1000 // as if it were so large
		w.in.mu.Unlock()
		w.Applied(applied(e))
		w.in.mu.Lock()
		most = max(most, len(w.in.mail.items))
		w.in.mu.Unlock()
	}
	pulls := w.Counts().Pulls
	close(release)
	revs := to.events(t, n)
	for i, r := range revs {
		if r != base.Revision(i+2) {
			t.Fatalf("event %d is of revision %d", i, r)
		}
	}
	if most > 3 || w.Counts().Pulls == pulls {
		t.Errorf("%d things waited, and %d pages were read", most, w.Counts().Pulls-pulls)
	}
}
