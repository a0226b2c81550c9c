// Package closed runs a closed loop: each of N clients has one operation under way and begins the next when that one
// has ended. A warm-up passes, then operations are counted, then everything ends.
//
// Every measuring program of the benchmarks is built on it, so that all are measured alike. It is a module of its own
// without dependencies, so that it brings nothing into the module of a peer.
package closed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// errorPause keeps a client whose operations fail at once from burning the CPU that is being measured.
const errorPause = 10 * time.Millisecond

// Config is one run.
type Config struct {
	Clients int
	Warmup  time.Duration // under load, before anything is counted
	Length  time.Duration // of what is counted
	Timeout time.Duration // an operation that takes longer is an error
	Seed    uint64        // of what the operations draw
}

// Validate returns every problem at once.
func (c Config) Validate() error {
	var errs []error
	if c.Clients <= 0 {
		errs = append(errs, fmt.Errorf("%d clients can do nothing", c.Clients))
	}
	if c.Warmup < 0 || c.Length <= 0 || c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("a warm-up of %v, a length of %v and a time-out of %v: they must be above 0 (the first may be 0)",
			c.Warmup, c.Length, c.Timeout))
	}
	return errors.Join(errs...)
}

// Operation is the n-th operation of a client; random is the client's own.
type Operation func(ctx context.Context, client, n int, random *rand.Rand) error

// The phases of a run.
const (
	warming int32 = iota
	counting
	over
)

// loop is what the clients of one run share.
type loop struct {
	Config
	operate Operation
	phase   atomic.Int32
}

// Run carries out one run and tells emit of its events as they happen. It fails if no operation succeeded; single
// failures are counted in the report.
func Run(ctx context.Context, c Config, operate Operation, emit func(Event) error) error {
	if err := c.Validate(); err != nil {
		return err
	}
	l := &loop{Config: c, operate: operate}
	tallies := make([]tally, c.Clients)
	var clients sync.WaitGroup
	for i := range tallies {
		clients.Go(func() { l.client(ctx, i, &tallies[i]) })
	}
	counted, err := l.phases(ctx, emit)
	l.phase.Store(over)
	clients.Wait()
	if err != nil {
		return err
	}
	report := merge(tallies)
	report.Seconds = counted.Seconds()
	if report.Ops == 0 {
		return fmt.Errorf("no operation succeeded; %d failed, the first: %s", report.Errors, report.FirstError)
	}
	return emit(Event{Event: Done, Report: &report})
}

// phases lets the warm-up and the counting pass, and returns how long the counting was.
func (l *loop) phases(ctx context.Context, emit func(Event) error) (time.Duration, error) {
	if err := wait(ctx, l.Warmup); err != nil {
		return 0, err
	}
	began := time.Now()
	l.phase.Store(counting)
	if err := emit(Event{Event: Begin}); err != nil {
		return 0, err
	}
	if err := wait(ctx, l.Length-time.Since(began)); err != nil {
		return 0, err
	}
	l.phase.Store(over)
	counted := time.Since(began)
	return counted, emit(Event{Event: End})
}

// tally is what one client counted.
type tally struct {
	ended, errors int
	first         error
	latencies     []time.Duration
}

func (l *loop) client(ctx context.Context, id int, t *tally) {
	random := rand.New(rand.NewPCG(l.Seed, uint64(id)))
	for n := 0; ctx.Err() == nil; n++ {
		phase := l.phase.Load()
		if phase == over {
			return
		}
		began := time.Now()
		err := l.once(ctx, id, n, random)
		took := time.Since(began)
		if err != nil {
			t.errors++
			t.first = cmp.Or(t.first, err)
			_ = wait(ctx, errorPause) // the loop looks at ctx itself
			continue
		}
		if l.phase.Load() == counting {
			t.ended++
		}
		if phase == counting {
			t.latencies = append(t.latencies, took)
		}
	}
}

func (l *loop) once(ctx context.Context, id, n int, random *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	return l.operate(ctx, id, n, random)
}

// merge puts the tallies of all clients together.
func merge(tallies []tally) Report {
	var report Report
	var all []time.Duration
	for _, t := range tallies {
		report.Ops += t.ended
		report.Errors += t.errors
		if t.first != nil && report.FirstError == "" {
			report.FirstError = t.first.Error()
		}
		all = append(all, t.latencies...)
	}
	slices.Sort(all)
	report.P50, report.P99, report.Max = quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1)
	return report
}

// quantile is the smallest of the sorted values that a share q of them does not exceed; 0 if there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
