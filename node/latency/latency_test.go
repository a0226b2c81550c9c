package latency

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestBuckets: a duration lies in its bucket, within a quarter of its upper end.
func TestBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "d")).Truncate(time.Microsecond)
		b := bucket(d)
		if d >= upper(b) || b > 0 && d < upper(b-1) {
			t.Fatalf("%s is in bucket %d, up to %s", d, b, upper(b))
		}
		if d > 4*time.Microsecond && upper(b) > d+d/4+time.Microsecond {
			t.Fatalf("%s is told as %s", d, upper(b))
		}
	})
	if b := bucket(1 << 62); b != buckets-1 {
		t.Errorf("the longest of all is in bucket %d", b)
	}
	if b := bucket(-1); b != 0 {
		t.Errorf("a clock that went back: bucket %d", b)
	}
}

func TestWindow(t *testing.T) {
	var h Histogram
	h.Record(time.Hour) // before the window began
	w := NewWindow(&h)
	expect := func(what string, at time.Duration, of uint64) {
		t.Helper()
		if got, n := w.P99(); n != of || got < at || got > at+at/4+time.Microsecond {
			t.Errorf("%s: %s of %d, want about %s of %d", what, got, n, at, of)
		}
	}
	expect("nothing", 0, 0)
	h.Record(5 * time.Millisecond)
	w.Look()
	expect("one", 5*time.Millisecond, 1)
	h.Record(time.Second)
	w.Look()
	expect("a hiccup", 5*time.Millisecond, 2)
	h.Record(time.Second)
	w.Look()
	expect("two", time.Second, 3)
	for range 1000 {
		h.Record(time.Millisecond)
	}
	w.Look()
	expect("many", time.Millisecond, 1003)
	for range slots {
		w.Look()
	}
	expect("long ago", 0, 0)
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	for b.Loop() {
		h.Record(3 * time.Millisecond)
	}
}

func TestTotals(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{-time.Second, 0, 63 * time.Microsecond, 64 * time.Microsecond, 127 * time.Microsecond, 128 * time.Microsecond, time.Second, time.Hour} {
		h.Record(d)
	}
	got := h.Totals()
	for below, want := range map[time.Duration]uint64{64 * time.Microsecond: 3, 128 * time.Microsecond: 5, 256 * time.Microsecond: 6, time.Microsecond << 20: 7, time.Microsecond << 25: 7} {
		if n, ok := got.Below[below]; !ok || n != want {
			t.Errorf("below %s: %d (%v), want %d", below, n, ok, want)
		}
	}
	if want := (63+64+127+128)*time.Microsecond + time.Second + time.Hour; got.Count != 8 || got.Sum != want {
		t.Errorf("%d in %s, want 8 in %s", got.Count, got.Sum, want)
	}
}
