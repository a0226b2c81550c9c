package jepsen

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	goclient "github.com/cairndb/cairn/client"
	"github.com/cairndb/cairn/internal/base"
)

// A careful client is an application's: Cairn's own client for Go, whose every call has a second. What is planned (a drain, a stop
// that was announced, a node that leaves) must not be seen by it; what is not must be over soon.

const (
	carefulName    = "careful" // of its keyspace: histories of the workloads know nothing of its writes
	carefulTime    = time.Second
	carefulWorkers = 4
	carefulPause   = 10 * time.Millisecond
	carefulKept    = 5 // failures that are told
)

// careful is such a client at work, until it is ended.
type careful struct {
	client *goclient.Client
	stop   chan struct{}
	wg     sync.WaitGroup
	calls  atomic.Int64

	mu      sync.Mutex
	failed  int
	told    []string
	longest time.Duration
	last    [carefulWorkers]time.Time // when the last call that succeeded was begun
}

// newCareful starts one.
func (c *Cluster) newCareful(ctx context.Context) (*careful, error) {
	if c.careful.Load() == 0 {
		id, err := c.CreateKeyspace(ctx, carefulName)
		if err != nil {
			return nil, err
		}
		c.careful.Store(uint64(id))
	}
	cl, err := goclient.New(goclient.Config{Endpoints: endpoints(c), Keyspace: carefulName, DialTimeout: carefulTime / 4})
	if err != nil {
		return nil, err
	}
	k := &careful{client: cl, stop: make(chan struct{})}
	for i := range carefulWorkers {
		k.wg.Go(func() { k.work(i) })
	}
	if err := k.all(ctx, time.Now()); err != nil {
		k.end()
		return nil, err
	}
	k.mu.Lock() // what it took to find the cluster is no interruption
	k.failed, k.told, k.longest = 0, nil, 0
	k.mu.Unlock()
	return k, nil
}

func (k *careful) work(i int) {
	ctx := context.Background()
	key := fmt.Sprint(carefulName, "/", i)
	for n := 0; pause(ctx, k.stop, carefulPause); n++ {
		begun := time.Now()
		call, done := context.WithTimeout(ctx, carefulTime)
		var err error
		what := "a put"
		if n%2 == 0 {
			_, err = k.client.Put(call, key, fmt.Append(nil, n))
		} else {
			what = "a get"
			_, _, err = k.client.Get(call, key)
		}
		done()
		k.calls.Add(1)
		k.note(i, begun, what, err)
	}
}

func (k *careful) note(i int, begun time.Time, what string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.longest = max(k.longest, time.Since(begun))
	if err == nil {
		k.last[i] = begun
		return
	}
	if k.failed++; len(k.told) < carefulKept {
		k.told = append(k.told, fmt.Sprintf("%s begun at %s, of %s: %v", what, begun.UTC().Format("15:04:05.000"), time.Since(begun).Round(time.Millisecond), err))
	}
}

// all waits until each worker has succeeded in a call that it began after a moment.
func (k *careful) all(ctx context.Context, since time.Time) error {
	for {
		k.mu.Lock()
		late := 0
		for _, at := range k.last {
			if !at.After(since) {
				late++
			}
		}
		k.mu.Unlock()
		if late == 0 {
			return nil
		}
		if !pause(ctx, nil, carefulPause) {
			return fmt.Errorf("%d of %d careful clients did not succeed: %w", late, carefulWorkers, ctx.Err())
		}
	}
}

func (k *careful) end() {
	close(k.stop)
	k.wg.Wait()
	_ = k.client.Close() // nothing is under way
}

// unseen ends it, and complains if a call failed: under what, if that was all that happened to the cluster.
func (c *Cluster) unseen(k *careful, under string) {
	k.end()
	if k.failed > 0 && c.alone() {
		c.broke("no failed request", "%s: %d of %d calls of a client with %s of time failed: %v", under, k.failed, k.calls.Load(), carefulTime, k.told)
	}
	c.logger.Info("careful", "under", under, "calls", k.calls.Load(), "failed", k.failed, "longest", k.longest.Round(time.Millisecond))
}

// planned makes of a nemesis one that no client may notice: from its beginning until it is healed a careful client is at work.
func planned(name string, begin beginning) beginning {
	return func(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
		k, err := c.newCareful(ctx)
		if err != nil {
			return "", nil, fmt.Errorf("a careful client could not begin: %w", err)
		}
		what, heal, err := begin(ctx, c, r)
		return what, func(ctx context.Context) (err error) {
			if heal != nil {
				err = heal(ctx)
			}
			c.unseen(k, name)
			return err
		}, err
	}
}
