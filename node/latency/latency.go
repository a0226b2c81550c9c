// Package latency keeps how long something takes, for who wants to know the slowest hundredth of the last while: two atomic additions
// where it happens, and all the work where it is read.
package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// parts of each doubling: a value is known within a quarter.
	parts   = 4
	buckets = 40 * parts // up to some weeks
	// slots are how many looks a window is long.
	slots = 10
)

// Histogram counts durations. It may be used from any goroutine, and its zero value is empty.
type Histogram struct {
	counts [buckets]atomic.Uint64
	micros atomic.Uint64 // all durations together
}

// Record counts one.
func (h *Histogram) Record(d time.Duration) {
	h.counts[bucket(d)].Add(1)
	h.micros.Add(uint64(max(0, d.Microseconds())))
}

// Totals is what a histogram counted since it was made.
type Totals struct {
	Below map[time.Duration]uint64 // by duration, how many took less: 64 µs and its doublings up to half a minute
	Count uint64
	Sum   time.Duration
}

const (
	firstDoubling = 6 // 64 µs: no disk and no network is faster
	lastDoubling  = 25
)

// Totals reads it. What is recorded meanwhile may be in it or not.
func (h *Histogram) Totals() Totals {
	t := Totals{Below: make(map[time.Duration]uint64, lastDoubling-firstDoubling+1)}
	at := 0
	for n := firstDoubling; n <= lastDoubling; n++ {
		bound := time.Microsecond << n
		for ; at < buckets && upper(at) <= bound; at++ {
			t.Count += h.counts[at].Load()
		}
		t.Below[bound] = t.Count
	}
	for ; at < buckets; at++ {
		t.Count += h.counts[at].Load()
	}
	t.Sum = time.Duration(h.micros.Load()) * time.Microsecond
	return t
}

// bucket is the number of a duration's bucket: its magnitude in microseconds, and the two bits behind the first.
func bucket(d time.Duration) int {
	us := uint64(max(0, d.Microseconds()))
	if us < parts {
		return int(us)
	}
	n := bits.Len64(us)
	return min((n-2)*parts+int(us>>(n-3)&(parts-1)), buckets-1)
}

// upper is the first duration above a bucket.
func upper(b int) time.Duration {
	if b < parts {
		return time.Duration(b+1) * time.Microsecond
	}
	n := b/parts + 2
	return time.Duration(uint64(parts+b%parts+1)<<(n-3)) * time.Microsecond
}

// Window is a histogram's last looks. It belongs to one goroutine.
type Window struct {
	of   *Histogram
	seen [buckets]uint64
	ring [slots][buckets]uint64
	next int
}

// NewWindow begins a window: what was counted before is not in it.
func NewWindow(h *Histogram) *Window {
	w := &Window{of: h}
	for i := range w.seen {
		w.seen[i] = h.counts[i].Load()
	}
	return w
}

// Look takes in what has come since the last look, and lets go of what is older than ten.
func (w *Window) Look() {
	slot := &w.ring[w.next]
	w.next = (w.next + 1) % slots
	for i := range slot {
		n := w.of.counts[i].Load()
		slot[i], w.seen[i] = n-w.seen[i], n
	}
}

// P99 is what the slowest hundredth of the window takes at least, and of how many that is; 0 if of none. The single slowest never
// counts, where there are others: one hiccup is not how it is now.
func (w *Window) P99() (at time.Duration, of uint64) {
	var sums [buckets]uint64
	for s := range w.ring {
		for i, n := range w.ring[s] {
			sums[i] += n
			of += n
		}
	}
	if of == 0 {
		return 0, 0
	}
	rank := (of*99 + 99) / 100
	if of > 1 {
		rank = min(rank, of-1)
	}
	for i, n := range sums {
		if n >= rank {
			return upper(i), of
		}
		rank -= n
	}
	return upper(buckets - 1), of
}
