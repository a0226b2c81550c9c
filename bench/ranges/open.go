package main

import (
	"context"
	"slices"
	"sync"
	"time"
)

// An open loop begins operations on time, whatever became of those before: an operation's latency counts from when it was due, so
// that a stall is seen by all that it held up.

// sample is one operation of an open loop.
type sample struct {
	due  time.Time
	took time.Duration // since it was due
	err  error
}

// openLoop does n operations a second until stop is closed, and returns all of them. At most mostUnderWay are under way at once:
// more would measure this process.
func openLoop(ctx context.Context, perSecond int, stop <-chan struct{}, do func(ctx context.Context, n int) error) []sample {
	const mostUnderWay = 4096
	var (
		mu  sync.Mutex
		all []sample
		wg  sync.WaitGroup
	)
	slots := make(chan struct{}, mostUnderWay)
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-stop:
			wg.Wait()
			return all
		case <-ctx.Done():
			wg.Wait()
			return all
		case <-tick.C:
		}
		for ; ; n++ {
			due := began.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
			if due.After(time.Now()) {
				break
			}
			slots <- struct{}{}
			wg.Add(1)
			go func() {
				defer wg.Done()
				err := do(ctx, n)
				took := time.Since(due)
				<-slots
				mu.Lock()
				defer mu.Unlock()
				all = append(all, sample{due, took, err})
			}()
		}
	}
}

// quantile of latencies, which it sorts.
func quantile(took []time.Duration, q float64) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[min(int(q*float64(len(took))), len(took)-1)]
}
