package failover

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cairndb/cairn/bench/peer"
)

const (
	putEvery   = 5 * time.Millisecond // at each endpoint
	putTimeout = 3 * time.Second
	maxOpen    = 400 // puts without an answer at each endpoint
)

// load puts at every endpoint, on time and whatever became of the puts before, and keeps when each succeeded and how long
// it took.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	conns  []*clientv3.Client

	mu     sync.Mutex
	done   []time.Time // of successes, in order
	slow   time.Duration
	failed int
}

func startLoad(ctx context.Context, l peer.Layout) (*load, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &load{cancel: cancel}
	for i, e := range l.Client {
		c, err := client(e)
		if err != nil {
			cancel()
			return nil, err
		}
		w.conns = append(w.conns, c)
		w.wg.Go(func() { w.endpoint(ctx, c, i) })
	}
	return w, nil
}

func (w *load) endpoint(ctx context.Context, c *clientv3.Client, at int) {
	tick := time.NewTicker(putEvery)
	defer tick.Stop()
	open := make(chan struct{}, maxOpen)
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		select {
		case open <- struct{}{}:
		default:
			continue
		}
		w.wg.Go(func() {
			defer func() { <-open }()
			w.put(ctx, c, fmt.Sprintf("failover/%d/%d", at, n%100))
		})
	}
}

func (w *load) put(ctx context.Context, c *clientv3.Client, key string) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	_, err := c.Put(ctx, key, "value")
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed++
		return
	}
	w.done = append(w.done, now)
	w.slow = max(w.slow, now.Sub(began))
}

// reset forgets what was, and begins to count anew.
func (w *load) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done, w.slow, w.failed = w.done[:0], 0, 0
}

// gap is the longest time without a success between from and to, the slowest success, and how many failed.
func (w *load) gap(from, to time.Time) (longest, slowest time.Duration, failed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := from
	for _, at := range append(w.done[:len(w.done):len(w.done)], to) {
		if at.Before(from) || at.After(to) {
			continue
		}
		longest = max(longest, at.Sub(last))
		last = at
	}
	return longest, w.slow, w.failed
}

func (w *load) stop() {
	w.cancel()
	for _, c := range w.conns {
		_ = c.Close() // nothing is asked any more
	}
	w.wg.Wait()
}
