package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/node/dispatch"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
	"github.com/cairndb/cairn/transport"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is one node that leads the first ranges alone, with its reconciler. Nothing that it sends arrives.
type world struct {
	t *testing.T
	s *store.Store
	r *Reconciler

	mu      sync.Mutex
	behind  map[base.RangeID][]base.NodeID
	changed chan struct{} // capacity 1: a replica, or what is reported, has changed
}

type nowhere struct{}

func (nowhere) Send(base.NodeID, transport.Class, []byte) error { return transport.ErrUnreachable }
func (nowhere) OpenBulk(context.Context, base.NodeID) (transport.BulkStream, error) {
	return nil, errors.New("nothing is sent here")
}
func (nowhere) Peers() []transport.PeerStatus { return nil }
func (nowhere) Close()                        {}

func (w *world) Replicas(id base.RangeID, behind []base.NodeID, _ string) {
	w.mu.Lock()
	w.behind[id] = behind
	w.mu.Unlock()
	w.tell()
}
func (w *world) Sized(base.RangeID, int64)      {}
func (w *world) Rates(map[base.RangeID]float64) {}

func (w *world) tell() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, behind: map[base.RangeID][]base.NodeID{}, changed: make(chan struct{}, 1)}
	eng := engine.NewMem()
	must(t, store.Bootstrap(eng, &metapb.StoreIdentity{ClusterId: 7, NodeId: 1, StoreUuid: make([]byte, 16), Format: store.FormatVersion}, &metapb.NodeRecord{NodeId: 1}))
	var d *dispatch.Dispatcher
	ready := make(chan struct{})
	var err error
	w.s, err = store.New(store.Config{
		Engine: eng, Node: 1, Incarnation: 1, OnFatal: func(err error) { t.Error(err) },
		OnChange: func(c raftgroup.StateChange) {
			<-ready
			d.Changed(c)
			w.r.Changed(c)
			w.tell()
		},
	})
	must(t, err)
	root := store.FirstDescriptors(1)[0]
	d = dispatch.New(dispatch.Config{Node: 1, Store: w.s, Transport: nowhere{}, Root: func(context.Context) (*metapb.RangeDescriptor, error) { return root, nil }})
	d.Learn(store.FirstDescriptors(1)...)
	w.r = New(Config{
		Node: 1, Store: w.s, Dispatch: d, Peers: nowhere{}, Learn: func(...*metapb.NodeRecord) {}, Reports: w,
		Logger: slog.New(slog.DiscardHandler), Gone: func(context.Context, base.KeyspaceID) (bool, error) { return false, nil },
	})
	close(ready)
	must(t, w.s.Start(nowhere{}))
	w.r.Start()
	t.Cleanup(func() {
		w.r.Stop()
		w.s.Stop()
		d.Stop()
	})
	return w
}

// until waits for something to be so after changes.
func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	again := time.NewTicker(20 * time.Millisecond) // what a directive waits for changes without a word
	defer again.Stop()
	for !f() {
		select {
		case <-w.changed:
		case <-again.C:
		case <-limit.C:
			w.t.Fatalf("never: %s", what)
		}
	}
}

func (w *world) descriptor() *metapb.RangeDescriptor { return w.s.View(base.RangeDefault).Descriptor }

func (w *world) direct(seq uint64, lasts time.Duration, voters ...uint64) *rangepb.DirectiveAnswer {
	return w.r.Direct(base.RangeDefault, &rangepb.Directive{
		Decider: 1, Seq: seq, ExpectedGeneration: w.descriptor().Generation, Voters: voters, TimeoutMicros: uint64(lasts / time.Microsecond),
	})
}

// A leader does what it is directed to, says what it waits for and who is behind, and does nothing of its own: a directive that is
// not renewed is followed no further.
func TestDirect(t *testing.T) {
	w := newWorld(t)
	w.until("n1 leads", func() bool { st, ok := w.s.State(base.RangeDefault); return ok && st.Role == raftgroup.Leader })
	first := w.descriptor()

	stale := w.r.Direct(base.RangeDefault, &rangepb.Directive{Decider: 1, Seq: 1, ExpectedGeneration: 9, Voters: []uint64{1, 2}, TimeoutMicros: 1e6})
	if stale.Refused == "" || !desc.Equal(stale.Descriptor_, first) {
		t.Errorf("a directive for another generation is answered by %v", stale)
	}
	if there := w.r.Direct(base.RangeID(77), &rangepb.Directive{}); there.Refused == "" {
		t.Errorf("a directive for a range that is not here is answered by %v", there)
	}

	w.direct(2, time.Minute, 1)
	w.until("it is where it is wanted", func() bool {
		return w.r.Direct(base.RangeDefault, &rangepb.Directive{Decider: 1, Seq: 2, TimeoutMicros: 6e7}).Done
	})
	if !desc.Equal(w.descriptor(), first) {
		t.Errorf("it was where it was wanted, and is now %s", desc.Format(w.descriptor()))
	}

	answer := w.direct(3, time.Minute, 1, 2)
	if answer.Refused != "" {
		t.Fatalf("refused: %s", answer.Refused)
	}
	w.until("n2 has a learner, and is waited for", func() bool {
		a := w.r.Direct(base.RangeDefault, &rangepb.Directive{Decider: 1, Seq: 3, TimeoutMicros: 1e6})
		return desc.ReplicaOn(w.descriptor(), 2) != nil && strings.Contains(a.Waiting, "n2 has not caught up") && strings.Contains(a.Doing, "n2")
	})
	w.until("n2 is said to be behind", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Equal(w.behind[base.RangeDefault], []base.NodeID{2})
	})
	// Nobody renews it. Once it has ended another decider is heard: as long as it holds the first one goes before it.
	other := func() *rangepb.DirectiveAnswer {
		return w.r.Direct(base.RangeDefault, &rangepb.Directive{Decider: 5, Seq: 1, ExpectedGeneration: w.descriptor().Generation, Voters: []uint64{1}, TimeoutMicros: 6e7})
	}
	if a := other(); a.Refused == "" {
		t.Errorf("two deciders are followed at once: %v", a)
	}
	w.until("the directive has ended", func() bool { return other().Refused == "" })
	w.until("the learner is gone", func() bool { return desc.ReplicaOn(w.descriptor(), 2) == nil })
}

// What was given up is withdrawn: nothing more is done for it, though it would hold for long, and nobody waits for its end. The directive
// itself, which comes late, is not followed again.
func TestWithdraw(t *testing.T) {
	w := newWorld(t)
	w.until("n1 leads", func() bool { st, ok := w.s.State(base.RangeDefault); return ok && st.Role == raftgroup.Leader })
	on := w.descriptor().Generation
	directive := func(seq uint64, withdraw bool) *rangepb.DirectiveAnswer {
		m := &rangepb.Directive{Decider: 1, Seq: seq, ExpectedGeneration: on, Voters: []uint64{1, 2}, Withdraw: withdraw}
		if !withdraw {
			m.TimeoutMicros = uint64(time.Hour / time.Microsecond)
		}
		return w.r.Direct(base.RangeDefault, m)
	}
	if a := directive(1, false); a.Refused != "" {
		t.Fatalf("refused: %s", a.Refused)
	}
	w.until("n2 has a learner", func() bool { return desc.ReplicaOn(w.descriptor(), 2) != nil })
	with := w.descriptor()
	w.until("it is withdrawn", func() bool { return directive(1, true).Withdrawn })
	if a := directive(1, false); a.Refused == "" {
		t.Errorf("it was withdrawn, and is followed again: %v", a)
	}
	st, _, err := w.s.Status(t.Context(), base.RangeDefault)
	must(t, err)
	if step, rests, _ := w.r.next(&st, &observed{}, w.s.Now()); !rests {
		t.Errorf("it was withdrawn, and what is done next is %+v", step)
	}
	if !desc.Equal(w.descriptor(), with) {
		t.Errorf("it was withdrawn at %s, and the range is %s", desc.Format(with), desc.Format(w.descriptor()))
	}
	other := w.r.Direct(base.RangeDefault, &rangepb.Directive{Decider: 5, Seq: 1, ExpectedGeneration: with.Generation, Voters: []uint64{1}, TimeoutMicros: 6e7})
	if other.Refused != "" {
		t.Errorf("it was withdrawn, and another is refused: %s", other.Refused)
	}
	w.until("the learner is gone", func() bool { return desc.ReplicaOn(w.descriptor(), 2) == nil })
}

// Whoever wants a range beside another asks again and again: once nobody does, the range follows its directive within seconds. A client of
// a merge that was broken off must not keep it from being repaired.
func TestAlignEnds(t *testing.T) {
	w := newWorld(t)
	w.until("n1 leads", func() bool { st, ok := w.s.State(base.RangeDefault); return ok && st.Role == raftgroup.Leader })
	st, _, err := w.s.Status(t.Context(), base.RangeDefault)
	must(t, err)
	w.r.Align(base.RangeDefault, w.descriptor()) // it is there already
	w.until("it rests there", func() bool {
		_, rests, busy := w.r.next(&st, &observed{}, w.s.Now())
		return rests && busy != ""
	})
	if a := w.direct(1, time.Minute, 2); a.Refused != "" {
		t.Fatalf("refused: %s", a.Refused)
	}
	if _, rests, busy := w.r.next(&st, &observed{}, w.s.Now()); !rests || busy == "" {
		t.Errorf("it is aligned, and does %t, %q", rests, busy)
	}
	if step, _, busy := w.r.next(&st, &observed{}, w.s.Now().Add(base.DirectTimeout+time.Second)); step.Propose == nil || busy != "" {
		t.Errorf("nobody wants it beside another any more, and it does %+v, %q", step, busy)
	}
}
