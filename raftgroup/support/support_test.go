package support

import (
	"fmt"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

const ms = base.Instant(time.Millisecond)

func config(node base.NodeID, inc base.Incarnation) Config {
	return Config{Self: node, Incarnation: inc, Seed: uint64(node)<<8 | uint64(inc), Interval: 100 * time.Millisecond, Duration: 500 * time.Millisecond, DiskLimit: 500 * time.Millisecond, IdleInterval: 100 * time.Millisecond, IdleDuration: 500 * time.Millisecond}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func pair(t testing.TB, now base.Instant) (*Requester, *Supporter) {
	r := must[*Requester](t)(NewRequester(config(1, 1), now))
	r.SetPeers(now, []base.NodeID{1, 2})
	return r, must[*Supporter](t)(NewSupporter(config(2, 1), now))
}

func ask(t testing.TB, r *Requester, now base.Instant) Request {
	t.Helper()
	asks, _ := r.Due(now)
	if len(asks) != 1 || asks[0].To != 2 {
		t.Fatalf("asks %+v, want one to node 2", asks)
	}
	return asks[0].Request
}

// The times differ on purpose: the supporter's clock is elsewhere.
func TestSupportIsTimedFromTheSending(t *testing.T) {
	r, s := pair(t, 1000*ms)
	q := ask(t, r, 1000*ms)
	a, _, err := s.Requested(77*ms, 1, q)
	if err != nil {
		t.Fatal(err)
	}
	r.Answered(0, 2, a) // long after it was sent
	if _, until := r.Support(2); until != 1000*ms+450*ms {
		t.Errorf("relies until %d ms, want 1450: 500 ms from the sending, less twice the drift", until/ms)
	}
	if s.NextEnd() != 577*ms+1 {
		t.Errorf("promised until %d", s.NextEnd())
	}
	r.Answered(0, 2, a) // doubled
	if _, until := r.Support(2); until != 1450*ms {
		t.Errorf("an answer that came twice prolongs to %d", until/ms)
	}
}

func TestWithdrawalEndsTheToken(t *testing.T) {
	r, s := pair(t, 0)
	a, _, _ := s.Requested(0, 1, ask(t, r, 0))
	r.Answered(0, 2, a)
	if ended := s.Withdraw(500 * ms); len(ended) != 0 {
		t.Errorf("at the last instant of the promise: %+v", ended)
	}
	ended := s.Withdraw(500*ms + 1)
	if len(ended) != 1 || ended[0] != (Ended{1, Token{1, 1}}) {
		t.Fatalf("ended %+v", ended)
	}
	if _, _, ok := s.Supports(1); ok {
		t.Error("supported after the withdrawal")
	}
	r.Synced(590 * ms)
	b, _, _ := s.Requested(600*ms, 1, ask(t, r, 600*ms))
	if b.Token != (Token{1, 2}) || !r.Answered(0, 2, b) {
		t.Errorf("supported again under %+v", b.Token)
	}
	late := a // of the old token, for a request that is still waited for
	late.Seq = ask(t, r, 800*ms).Seq
	if token, until := r.Support(2); r.Answered(0, 2, late) || token != b.Token || until != 1050*ms {
		t.Errorf("an answer of an older token: %+v until %d", token, until/ms)
	}
}

func TestIncarnations(t *testing.T) {
	_, s := pair(t, 0)
	d := 500 * time.Millisecond
	if _, _, err := s.Requested(0, 1, Request{Incarnation: 3, Seq: 1, Duration: d}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Requested(1*ms, 1, Request{Incarnation: 2, Seq: 9, Duration: d}); err == nil {
		t.Error("a process that is gone was promised support")
	}
	a, ended, err := s.Requested(2*ms, 1, Request{Incarnation: 4, Seq: 1, Duration: d})
	if err != nil || len(ended) != 1 || a.Token != (Token{1, 2}) {
		t.Errorf("a new process: %+v, ended %+v, %v", a, ended, err)
	}
	if _, inc, ok := s.Supports(1); !ok || inc != 4 {
		t.Errorf("supports incarnation %d, %v", inc, ok)
	}
}

func TestForgedAndSenseless(t *testing.T) {
	r, s := pair(t, 0)
	for _, q := range []Request{{0, 1, time.Millisecond}, {1, 1, 0}, {1, 1, -1}, {1, 1, time.Hour}} {
		if _, _, err := s.Requested(0, 1, q); err == nil {
			t.Errorf("%+v was promised", q)
		}
	}
	for _, from := range []base.NodeID{0, 2} {
		if _, _, err := s.Requested(0, from, Request{1, 1, time.Millisecond}); err == nil {
			t.Errorf("%s was promised support", from)
		}
	}
	q := ask(t, r, 0)
	for _, a := range []Answer{{1, q.Seq + 1, Token{1, 1}}, {2, q.Seq, Token{1, 1}}} {
		if r.Answered(0, 2, a); r.peers[2].until != 0 {
			t.Errorf("%+v was taken for an answer", a)
		}
	}
	if r.Answered(0, 3, Answer{1, q.Seq, Token{1, 1}}) {
		t.Error("a stranger's answer was taken")
	}
	for _, c := range []Config{
		{Self: 1, Incarnation: 1, Interval: time.Second, Duration: time.Second, MaxDuration: time.Second},
		{Self: 1, Incarnation: 1, Duration: 2 * time.Second}, {Incarnation: 1}, {Self: 1}, {Self: 1, Incarnation: 1, Interval: -1},
	} {
		c.EnsureDefaults()
		if c.Validate() == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestStalledDiskAsksNobody(t *testing.T) {
	r, _ := pair(t, 0)
	if asks, _ := r.Due(499 * ms); len(asks) != 1 {
		t.Fatalf("%d asks while the disk is well", len(asks))
	}
	if asks, next := r.Due(1000 * ms); len(asks) != 0 || next > 1100*ms {
		t.Errorf("%d asks with a stalled disk, looks again at %d", len(asks), next/ms)
	}
	r.Synced(999 * ms)
	if asks, _ := r.Due(1200 * ms); len(asks) != 1 {
		t.Errorf("%d asks when the disk is well again", len(asks))
	}
	if at := r.ProbeAt(); at != 999*ms+250*ms {
		t.Errorf("the next probe is due at %d", at/ms)
	}
}

func TestSilentAfterStart(t *testing.T) {
	_, s := pair(t, 5000*ms)
	if !s.Silent(6000*ms) || s.Silent(6000*ms+1) {
		t.Error("silent for something else than MaxDuration")
	}
}

// world is a requester and a supporter whose clocks run at rates of their own, with a network between them that does what
// it likes. Time is true time; drift is in parts of a thousand.
type world struct {
	rand    *base.Rand
	now     time.Duration
	drift   [2]int64
	offset  [2]base.Instant
	r       *Requester
	s       *Supporter
	inc     [2]base.Incarnation
	asks    []Request
	answers []Answer
	relied  int
}

func (w *world) clock(i int) base.Instant {
	return w.offset[i] + base.Instant(int64(w.now)/1000*(1000+w.drift[i]))
}

func (w *world) start(t testing.TB, i int) {
	w.inc[i]++
	if i == 0 {
		w.r = must[*Requester](t)(NewRequester(config(1, w.inc[0]), w.clock(0)))
		w.r.SetPeers(w.clock(0), []base.NodeID{2})
	} else {
		w.s = must[*Supporter](t)(NewSupporter(config(2, w.inc[1]), w.clock(1)))
	}
}

// broken says how the promise that the requester relies on now is not kept; "" if it is.
func (w *world) broken() string {
	token, until := w.r.Support(2)
	if until <= w.clock(0) {
		return ""
	}
	w.relied++
	if w.s.Silent(w.clock(1)) && token.Incarnation < w.inc[1] {
		return "" // it does not know of it, and does nothing against it
	}
	held, inc, ok := w.s.Supports(1)
	if ok && held == token && inc == w.inc[0] {
		return ""
	}
	return fmt.Sprintf("relies on %+v for %s more; the supporter has %+v for incarnation %d, %v", token, until.Sub(w.clock(0)), held, inc, ok)
}

func (w *world) step(t testing.TB) {
	w.now += time.Duration(w.rand.Int63n(int64(60 * time.Millisecond)))
	if w.rand.Int63n(40) == 0 { // somebody is paused, or a partition
		w.now += time.Duration(w.rand.Int63n(int64(time.Second)))
	}
	switch x := w.rand.Int63n(1000); {
	case x < 5:
		w.start(t, 0)
	case x < 10:
		w.start(t, 1)
	case x < 400:
		w.r.Synced(w.clock(0))
		asks, _ := w.r.Due(w.clock(0))
		for _, a := range asks {
			w.asks = append(w.asks, a.Request)
		}
	case x < 700 && len(w.asks) > 0:
		i := int(w.rand.Int63n(int64(len(w.asks))))
		if a, _, err := w.s.Requested(w.clock(1), 1, w.asks[i]); err == nil && w.rand.Int63n(10) > 0 {
			w.answers = append(w.answers, a)
		}
		if w.rand.Int63n(10) > 0 { // else it comes again
			w.asks = append(w.asks[:i], w.asks[i+1:]...)
		}
	case x < 900 && len(w.answers) > 0:
		i := int(w.rand.Int63n(int64(len(w.answers))))
		w.r.Answered(w.clock(0), 2, w.answers[i])
		w.answers = append(w.answers[:i], w.answers[i+1:]...)
	default:
		w.s.Withdraw(w.clock(1))
	}
}

// chaos runs one seed and returns the first broken promise, and how often one was relied on.
func chaos(t testing.TB, seed uint64, drift int64) (string, int) {
	w := &world{rand: base.NewRand(seed)}
	for i := range 2 {
		w.drift[i] = w.rand.Int63n(2*drift+1) - drift
		w.offset[i] = base.Instant(w.rand.Int63n(int64(time.Hour)))
	}
	w.drift[w.rand.Int63n(2)] = drift // the worst is never far
	w.start(t, 0)
	w.start(t, 1)
	w.s.started -= 2 * base.Instant(time.Second)
	for range 400 {
		w.step(t)
		w.s.Withdraw(w.clock(1)) // as eagerly as it may
		if what := w.broken(); what != "" {
			return what, w.relied
		}
	}
	return "", w.relied
}

func TestPromisesAreKept(t *testing.T) {
	relied := 0
	for seed := range uint64(5000) {
		what, n := chaos(t, seed, MaxDrift)
		if relied += n; what != "" {
			t.Fatalf("seed %d: %s", seed, what)
		}
	}
	t.Logf("relied on %d times", relied)
	if relied < 100_000 {
		t.Errorf("relied on support %d times only", relied)
	}
}

// With clocks beyond the bound promises are broken, and the check above sees it.
func TestTheCheckIsAlive(t *testing.T) {
	for seed := range uint64(5000) {
		if what, _ := chaos(t, seed, 6*MaxDrift); what != "" {
			t.Logf("seed %d: %s", seed, what)
			return
		}
	}
	t.Error("clocks that are wrong by 30 % broke no promise: nothing was checked")
}
