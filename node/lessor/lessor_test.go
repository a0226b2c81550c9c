package lessor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

// world is one node that leads all ranges alone, and its lessor.
type world struct {
	t     *testing.T
	store *store.Store
	l     *Lessor
	cold  atomic.Int64 // how often the default range went cold

	mu   sync.Mutex
	gone map[int64]time.Time // when leases went
}

func (w *world) EndLease(context.Context, base.KeyspaceID, *kvpb.LeaseRecord) (int64, error) {
	return 0, errors.New("no lease here has spans")
}
func (w *world) NowMicros() int64 { return 1 }

func newWorld(t *testing.T, coldAfter time.Duration) *world {
	w := &world{t: t, gone: map[int64]time.Time{}}
	eng := engine.NewMem()
	id := &metapb.StoreIdentity{ClusterId: 7, NodeId: 1, StoreUuid: make([]byte, 16), Format: store.FormatVersion}
	must(t, store.Bootstrap(eng, id, &metapb.NodeRecord{NodeId: 1}))
	ready := make(chan struct{})
	var err error
	w.store, err = store.New(store.Config{
		Engine: eng, Node: 1, Incarnation: 1, ColdAfter: coldAfter, OnFatal: func(err error) { t.Error(err) },
		OnChange:  func(c raftgroup.StateChange) { <-ready; w.l.Changed(c) },
		OnApplied: func(r base.RangeID) { <-ready; w.l.Applied(r) },
		OnLeases: func(r base.RangeID, c []apply.LeaseChange, moved bool) {
			<-ready
			w.l.Leases(r, c, moved)
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, x := range c {
				if x.Gone {
					w.gone[x.Lease.Id] = time.Now()
				}
			}
		},
		OnCold: func(d *metapb.RangeDescriptor) {
			if base.RangeID(d.RangeId) == base.RangeDefault {
				w.cold.Add(1)
			}
		},
	})
	must(t, err)
	w.l = New(Config{Store: w.store, Dispatch: w, ColdAfter: coldAfter})
	close(ready)
	w.l.Start()
	must(t, w.store.Start(nil))
	t.Cleanup(func() { w.l.Stop(); w.store.Stop() })
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for what no event tells of.
func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit.C:
			w.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func (w *world) propose(cmd *kvpb.Command) error {
	w.t.Helper()
	data, err := proto.Marshal(cmd)
	must(w.t, err)
	done := make(chan error, 1)
	w.store.Propose(raftgroup.Proposal{Range: base.RangeDefault, Data: data}, w.store.Now().Add(10*time.Second), func(_ proto.Message, err error) { done <- err })
	return <-done
}

func (w *world) grant(id, ttl int64) {
	w.t.Helper()
	must(w.t, w.propose(&kvpb.Command{Body: &kvpb.Command_LeaseGrant{LeaseGrant: &kvpb.LeaseGrant{Id: id, Ttl: ttl}}}))
}

func (w *world) ask(q *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error) {
	q.KeyspaceId = uint64(base.KeyspaceDefault)
	return w.l.AnswerWithin(w.t.Context(), base.RangeDefault, q)
}

// leads waits until it answers for the default range.
func (w *world) leads() {
	w.t.Helper()
	w.until("it leads", func() bool {
		_, err := w.ask(&rangepb.LeaseQuestion{TimeToLive: 1})
		return err == nil
	})
}

// What lives here is answered for, each kind of question, and what is another's is not.
func TestAnswers(t *testing.T) {
	w := newWorld(t, 0)
	var nl *base.NotLeader
	if _, err := w.l.Answer(99, &rangepb.LeaseQuestion{TimeToLive: 1}); !errors.As(err, &nl) {
		t.Errorf("of a range that is not led here: %v", err)
	}
	w.leads()
	for id := int64(1); id <= 3; id++ {
		w.grant(id, 30)
	}
	a, err := w.ask(&rangepb.LeaseQuestion{KeepAlive: []int64{1, 9, 3}})
	if err != nil || len(a.KeptTtl) != 3 || a.KeptTtl[0] != 30 || a.KeptTtl[1] != 0 || a.KeptTtl[2] != 30 {
		t.Errorf("%v, %v", a, err)
	}
	a, err = w.ask(&rangepb.LeaseQuestion{TimeToLive: 2})
	if err != nil || a.RemainingSeconds < 25 || a.RemainingSeconds > 30 || a.Lease.GetTtl() != 30 {
		t.Errorf("%v, %v", a, err)
	}
	a, err = w.ask(&rangepb.LeaseQuestion{TimeToLive: 9})
	if err != nil || a.RemainingSeconds != -1 || a.Lease != nil {
		t.Errorf("of none: %v, %v", a, err)
	}
	a, err = w.ask(&rangepb.LeaseQuestion{List: true})
	if err != nil || len(a.Leases) != 3 || len(a.Next) != 0 {
		t.Errorf("%v, %v", a, err)
	}
	a, err = w.ask(&rangepb.LeaseQuestion{List: true, From: []byte{0, 0, 0, 0, 0, 0, 0, 3}})
	if err != nil || len(a.Leases) != 1 || a.Leases[0] != 3 {
		t.Errorf("%v, %v", a, err)
	}
	var moved *base.RangeMoved
	if _, err := w.l.Answer(base.RangeDefault, &rangepb.LeaseQuestion{KeyspaceId: 77, List: true}); !errors.As(err, &moved) {
		t.Errorf("of another keyspace: %v", err)
	}
	if c := w.l.Counts(); c.Leases != 3 || c.Kept != 2 {
		t.Errorf("%+v", c)
	}
}

// A lease ends by itself, and then there is nothing left to do.
func TestEndsAndRests(t *testing.T) {
	w := newWorld(t, 0)
	w.leads()
	w.until("nothing is to be done before there is a lease", func() bool { return len(w.l.work()) == 0 })
	began := time.Now()
	w.grant(1, base.LeaseMinTTL)
	if len(w.l.work()) != 1 {
		t.Error("a range with a lease is not looked at")
	}
	w.until("it ends", func() bool { return w.l.Counts().Expired == 1 })
	if took := time.Since(began); took < base.LeaseMinTTL*time.Second {
		t.Errorf("it ended after %s", took)
	}
	if rec, err := w.store.ClientLease(base.RangeDefault, 1); rec != nil || err != nil {
		t.Errorf("%v, %v", rec, err)
	}
	w.until("nothing is left to be done", func() bool { return len(w.l.work()) == 0 })
}

// A lease that is ending is there until its end is applied: it has no time left, and the question whether it is gone is answered as soon as it
// is, or another of those that were asked for is not ending. Before that nobody is told that it is gone.
func TestEndingIsNotGone(t *testing.T) {
	w := newWorld(t, 0)
	w.leads()
	for id := int64(1); id <= 3; id++ {
		w.grant(id, 60)
	}
	span := &kvpb.LeaseSpan{Start: []byte("a"), End: []byte("b")}
	for id := int64(1); id <= 2; id++ { // keys of them may be elsewhere: a revoke begins their end
		must(t, w.propose(&kvpb.Command{Body: &kvpb.Command_LeaseAttach{LeaseAttach: &kvpb.LeaseAttach{Id: id, Span: span}}}))
		must(t, w.propose(&kvpb.Command{Body: &kvpb.Command_LeaseRevoke{LeaseRevoke: &kvpb.LeaseRevoke{Id: id}}}))
	}
	a, err := w.ask(&rangepb.LeaseQuestion{KeepAlive: []int64{3, 1, 9, 2}})
	if err != nil || !slices.Equal(a.KeptTtl, []int64{60, 0, 0, 0}) || !slices.Equal(a.Ending, []uint32{1, 3}) {
		t.Errorf("%v, %v", a, err)
	}
	if a, err = w.ask(&rangepb.LeaseQuestion{TimeToLive: 1}); err != nil || a.RemainingSeconds != 0 || !a.Lease.GetEnding() {
		t.Errorf("%v, %v", a, err)
	}
	if a, err = w.ask(&rangepb.LeaseQuestion{List: true}); err != nil || len(a.Leases) != 3 {
		t.Errorf("%v, %v", a, err)
	}
	began := time.Now()
	a, err = w.ask(&rangepb.LeaseQuestion{KeepAlive: []int64{1, 2}, AwaitEnd: true})
	if err != nil || len(a.Ending) != 2 || time.Since(began) < base.LeaseAwait {
		t.Errorf("after %s: %v, %v", time.Since(began), a, err)
	}
	if a, err = w.ask(&rangepb.LeaseQuestion{KeepAlive: []int64{1, 3}, AwaitEnd: true}); err != nil || a.KeptTtl[1] != 60 || len(a.Ending) != 1 {
		t.Errorf("%v, %v", a, err)
	}
	answered := make(chan *rangepb.LeaseAnswer, 1)
	go func() {
		for {
			a, err := w.ask(&rangepb.LeaseQuestion{KeepAlive: []int64{1, 2}, AwaitEnd: true})
			if err != nil || len(a.Ending) < 2 {
				if err != nil {
					t.Error(err)
				}
				answered <- a
				return
			}
		}
	}()
	w.until("somebody waits", func() bool {
		h := w.l.home(base.RangeDefault)
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.end != nil
	})
	rec, err := w.store.ClientLease(base.RangeDefault, 1)
	must(t, err)
	must(t, w.propose(&kvpb.Command{Body: &kvpb.Command_LeaseRevoke{LeaseRevoke: &kvpb.LeaseRevoke{Id: 1, GrantedRevision: rec.GrantedRevision, Evicted: rec.Spans}}}))
	if a = <-answered; !slices.Equal(a.GetKeptTtl(), []int64{0, 0}) || !slices.Equal(a.GetEnding(), []uint32{1}) {
		t.Errorf("%v", a)
	}
}

// Who waits for the end of a lease is told when this node leads its home no more: another one knows.
func TestNobodyWaitsForWhoLeadsNoMore(t *testing.T) {
	w := newWorld(t, 0)
	w.leads()
	end := w.l.nextEnd(base.RangeDefault)
	st, ok := w.store.State(base.RangeDefault)
	if !ok {
		t.Fatal("there is no range")
	}
	w.l.Changed(raftgroup.StateChange{Range: base.RangeDefault, Term: st.Term + 1, Role: raftgroup.Follower})
	select {
	case <-end:
	default:
		t.Error("nobody was told")
	}
	var nl *base.NotLeader
	if _, err := w.ask(&rangepb.LeaseQuestion{KeepAlive: []int64{1}, AwaitEnd: true}); !errors.As(err, &nl) {
		t.Errorf("%v", err)
	}
}

// A range does not go cold as long as a lease lives in it; it does then, and answers all the same.
func TestLeasesKeepTheirRangeWarm(t *testing.T) {
	const coldAfter = 400 * time.Millisecond
	w := newWorld(t, coldAfter)
	w.leads()
	w.grant(1, 60)
	cold := w.cold.Load()
	for end := time.NewTimer(5 * coldAfter); ; {
		a, err := w.ask(&rangepb.LeaseQuestion{KeepAlive: []int64{1}})
		if err != nil || a.KeptTtl[0] != 60 {
			t.Fatalf("%v, %v", a, err)
		}
		select {
		case <-end.C:
		case <-time.After(10 * time.Millisecond):
			continue
		}
		break
	}
	if n := w.cold.Load(); n != cold {
		t.Errorf("it went cold %d times", n-cold)
	}
	must(t, w.propose(&kvpb.Command{Body: &kvpb.Command_LeaseRevoke{LeaseRevoke: &kvpb.LeaseRevoke{Id: 1}}}))
	w.until("it goes cold", func() bool { return w.cold.Load() > cold })
	w.leads()
}

// Of thousands that are granted one after the other, and end as they were granted, none ends early.
func TestManyEndAndNoneEarly(t *testing.T) {
	const n, ttl = 5000, base.LeaseMinTTL * time.Second
	w := newWorld(t, 0)
	w.leads()
	asked := make([]time.Time, n+1)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for id := int64(1 + g); id <= n; id += 16 {
				asked[id] = time.Now()
				w.grant(id, base.LeaseMinTTL)
			}
		})
	}
	wg.Wait()
	w.until("all have ended", func() bool { return w.l.Counts().Leases == 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	var most time.Duration
	early := 0
	for id := 1; id <= n; id++ {
		late := w.gone[int64(id)].Sub(asked[id]) - ttl
		if late < 0 {
			early++
			if early < 10 {
				t.Logf("lease %d: %s", id, late)
			}
		}
		most = max(most, late)
	}
	if early > 0 {
		t.Errorf("%d of %d ended early", early, n)
	}
	t.Logf("the latest ended %s after its time", most)
}
