package watch

import (
	"sync"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// alone is how many responses make a pause of that length.
func alone(d time.Duration) int { return int(d / base.WatchSendCost) }

// The pauses of a loop whose steps come one after the other.
func TestPace(t *testing.T) {
	const (
		start = base.Instant(time.Hour)
		most  = base.WatchPauseMost
		half  = most / 2
	)
	var p pace
	for _, c := range []struct {
		what  string
		at    time.Duration // after start
		alone int
		hub   time.Duration // when the hub wants to be stepped; 0: not by itself
		wake  time.Duration // when the loop is to go on; 0: not by itself
		open  bool
	}{
		{"who is alone is sent at once", 0, 1, 0, 0, true},
		{"a few as well", 0, alone(base.WatchPauseLeast) - 1, 0, 0, true},
		{"and the hub is stepped when it wants that", 0, 1, half, half, true},
		{"many are followed by a pause", 0, alone(half), 0, half, false},
		{"which goes on when a client asks for something", time.Millisecond, 0, 0, half, false},
		{"or is answered", time.Millisecond, 1, 0, half, false},
		{"and does not hold up the hub", time.Millisecond, 0, 2 * time.Millisecond, 2 * time.Millisecond, false},
		{"nor what it wants later", time.Millisecond, 0, time.Second, half, false},
		{"when it is over whatever comes is sent at once", half, 0, 0, 0, true},
		{"more that is gathered makes a longer one", half, alone(most), 0, half + most, false},
		{"which is bounded", half, 1000 * alone(most), 0, half + most, false},
		{"and ends", half + most, 0, time.Minute, time.Minute, true},
	} {
		hub := base.Instant(0)
		if c.hub > 0 {
			hub = start.Add(c.hub)
		}
		wake, open := p.next(start.Add(c.at), c.alone, hub)
		want := base.Instant(0)
		if c.wake > 0 {
			want = start.Add(c.wake)
		}
		if d := wake.Sub(want); d < -base.WatchSendCost || d > 0 || open != c.open { // alone rounds down
			t.Errorf("%s: wakes %v later than expected, open %v", c.what, d, open)
		}
	}
}

// What was applied waits for the end of a pause, and what clients ask does not, which brings what was applied along, in order.
func TestMailboxInAPause(t *testing.T) {
	m := newMailbox()
	r := &fakeRange{more: make(chan struct{})}
	woken := func() bool {
		select {
		case <-m.signal:
			return true
		default:
			return false
		}
	}
	apply := func() {
		a := applied(r.write("k"))
		m.applied(&a)
	}
	expect := func(what string, want bool) {
		t.Helper()
		if got := woken(); got != want {
			t.Errorf("%s: the loop is woken: %v", what, got)
		}
	}
	apply()
	expect("a loop that waits", true)
	apply()
	if got := len(m.take().items); got != 1 {
		t.Errorf("%d items, and not one of two events", got)
	}
	expect("for what it has taken", false)
	apply()
	m.sent(1, base.WatchSentBytes)
	expect("in a pause, by what is applied and sent", false)
	m.gone(theRange)
	expect("by a replica that ends", true)
	m.do(func(*watch.Hub) {})
	expect("by what a client asks", true)
	mail := m.take()
	if len(mail.items) != 3 || mail.items[0].applied == nil || mail.sent[1] != base.WatchSentBytes {
		t.Errorf("took %+v", mail)
	}
	m.open()
	expect("by nothing", false)
	m.sent(1, base.WatchSentBytes-1)
	expect("by little that was sent", false)
	m.sent(1, 1)
	expect("by more", true)
	m.take()
	apply()
	m.open()
	expect("at the end of the pause", true)
}

// Many streams get every event once, in order, whatever is gathered, whoever comes and goes meanwhile; and between what they are sent
// there are pauses.
func TestManyStreams(t *testing.T) {
	w := start(t)
	const n = 200
	streams := alone(base.WatchPauseLeast) + 1
	w.r.write("first")
	var sinks []*sink
	for range streams {
		s, to := w.open(t, 1)
		to.events(t, 1)
		defer s.Close()
		sinks = append(sinks, to)
	}
	w.Applied(watch.Applied{Range: theRange, Descriptor: applied(&watch.Event{}).Descriptor, From: 2, Next: 2})
	w.settle(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for range n {
			w.Applied(applied(w.r.write("k")))
		}
	})
	s, late := w.open(t, 1) // in between
	defer s.Close()
	check := func(to *sink, from, n int) {
		t.Helper()
		for i, r := range to.events(t, n) {
			if r != base.Revision(from+i) {
				t.Fatalf("event %d is of revision %d", from+i, r)
			}
		}
	}
	for _, to := range sinks {
		check(to, 2, n)
	}
	check(late, 1, n+1)
	wg.Wait()

	const rounds = 20
	least := time.Duration(streams) * base.WatchSendCost // that each is followed by
	began := time.Now()
	for i := range rounds {
		w.Applied(applied(w.r.write("k")))
		for _, to := range sinks {
			check(to, n+2+i, 1)
		}
	}
	if took := time.Since(began); took < (rounds-1)*least {
		t.Errorf("%d rounds took %v, without pauses of %v", rounds, took, least)
	}
	for i, to := range append(sinks, late) {
		for len(to.got) > 0 {
			if o := <-to.got; i < len(sinks) || o.Kind != watch.Events {
				t.Fatalf("more was sent: %+v", o)
			}
		}
	}
}
