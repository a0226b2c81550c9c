package closed

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// In a bubble of fake time an operation takes exactly as long as it waits, so that the counts are known.
func TestCountsWhatEndedAndTimesWhatBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took = 30 * time.Millisecond
		config := Config{Clients: 2, Warmup: 100 * time.Millisecond, Length: time.Second, Timeout: time.Minute}
		operate := func(ctx context.Context, _, _ int, _ *rand.Rand) error { return wait(ctx, took) }
		var events []string
		var report *Report
		began := time.Now()
		err := Run(t.Context(), config, operate, func(e Event) error {
			events = append(events, e.Event)
			if e.Event == End && time.Since(began) != 1100*time.Millisecond {
				t.Errorf("counting ended after %v", time.Since(began))
			}
			report = e.Report
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(events, []string{Begin, End, Done}) {
			t.Errorf("the events are %v", events)
		}
		// Operations end at 30, 60, 90 | 120, …, 1080 | 1110: 33 of each client while counting.
		if report.Ops != 66 || report.Seconds != 1 || report.Errors != 0 {
			t.Errorf("the report is %+v", report)
		}
		if report.P50 != took || report.Max != took {
			t.Errorf("latencies are %v and %v", report.P50, report.Max)
		}
	})
}

// An operation that hangs beyond the end is the slowest, not lost.
func TestTheSlowestIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Config{Clients: 1, Length: time.Second, Timeout: time.Minute}
		operate := func(ctx context.Context, _, n int, _ *rand.Rand) error {
			if n == 10 {
				return wait(ctx, 5*time.Second)
			}
			return wait(ctx, time.Millisecond)
		}
		var report *Report
		if err := Run(t.Context(), config, operate, func(e Event) error { report = e.Report; return nil }); err != nil {
			t.Fatal(err)
		}
		// The first began together with the counting, before or after it: in either case 10 ended.
		if report.Ops != 10 || report.Max != 5*time.Second || report.Seconds != 1 {
			t.Errorf("the report is %+v", report)
		}
	})
}

func TestErrorsAreCountedAndPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Config{Clients: 1, Length: time.Second, Timeout: 20 * time.Millisecond}
		var calls atomic.Int64
		operate := func(ctx context.Context, _, n int, _ *rand.Rand) error {
			calls.Add(1)
			if n == 0 {
				return wait(ctx, time.Hour) // the time-out ends it
			}
			if n == 1 {
				return wait(ctx, time.Millisecond)
			}
			return errors.New("refused")
		}
		var report *Report
		if err := Run(t.Context(), config, operate, func(e Event) error { report = e.Report; return nil }); err != nil {
			t.Fatal(err)
		}
		if report.Ops != 1 || report.Errors != int(calls.Load())-1 || calls.Load() > 101 {
			t.Errorf("%d calls, the report is %+v", calls.Load(), report)
		}
		if report.FirstError != context.DeadlineExceeded.Error() {
			t.Errorf("the first error is %q", report.FirstError)
		}
	})
}

func TestNothingSucceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Config{Clients: 1, Length: time.Second, Timeout: time.Second}
		err := Run(t.Context(), config, func(context.Context, int, int, *rand.Rand) error { return errors.New("refused") },
			func(Event) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "the first: refused") {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		config := Config{Clients: 3, Length: time.Hour, Timeout: time.Minute}
		err := Run(ctx, config, func(ctx context.Context, _, _ int, _ *rand.Rand) error { return wait(ctx, time.Second) },
			func(Event) error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestQuantiles(t *testing.T) {
	values := make([]time.Duration, 200)
	for i := range values {
		values[i] = time.Duration(i + 1)
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 100, 0.99: 198, 1: 200} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v of 1…200 is %d, not %d", q, got, want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
}
