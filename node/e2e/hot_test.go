package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/cairndb/cairn/internal/base"
)

// paced writes and reads keys of a keyspace at an even pace, from several clients, each of which has its keys for itself and
// expects to read what it wrote last.
type paced struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex
	ops  int
	errs []error
}

func startPaced(c *cluster, keyspace string, clients, keysEach int, pause time.Duration) *paced {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(c.t.Context(), "cairn-keyspace", keyspace))
	p := &paced{stop: cancel}
	cl := c.client()
	for i := range clients {
		p.wg.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			last := make([]string, keysEach)
			for n := 0; ; n++ {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				k := rand.IntN(keysEach)
				value := fmt.Sprint(n)
				err := p.once(ctx, cl, fmt.Sprintf("key/%05d", k*clients+i), last[k], value)
				if ctx.Err() != nil {
					return
				}
				last[k] = value
				p.mu.Lock()
				p.ops++
				if err != nil {
					p.errs = append(p.errs, err)
				}
				p.mu.Unlock()
			}
		})
	}
	c.t.Cleanup(p.end)
	return p
}

// once reads a key, which must hold what its client wrote last, and writes it.
func (p *paced) once(ctx context.Context, cl *clientv3.Client, key, want, value string) error {
	ctx, done := context.WithTimeout(ctx, 5*time.Second)
	defer done()
	resp, err := cl.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("get %s: %w", key, err)
	}
	got := ""
	if len(resp.Kvs) > 0 {
		got = string(resp.Kvs[0].Value)
	}
	if got != want {
		return fmt.Errorf("%s holds %q, and %q was written last", key, got, want)
	}
	if _, err := cl.Put(ctx, key, value); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

func (p *paced) end() {
	p.stop()
	p.wg.Wait()
}

func (p *paced) done() (ops int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ops, errors.Join(p.errs...)
}

// ranges lists the ids of a keyspace's ranges, as the index has them.
func (c *cluster) ranges(keyspace string) (ids []uint64, err error) {
	out, err := run(10*time.Second, "range", "ls", "--keyspace", keyspace, "-o", "json", "--host", c.procs[0].addr)
	if err != nil {
		return nil, err
	}
	var rs []struct {
		ID uint64 `json:"id"`
	}
	err = json.Unmarshal([]byte(out), &rs)
	for _, r := range rs {
		ids = append(ids, r.ID)
	}
	return ids, err
}

// busiest is the highest rate of a user's ranges.
func (c *cluster) busiest() (rate float64, err error) {
	s, err := c.status(c.procs[0])
	if err != nil {
		return 0, err
	}
	for _, r := range s.Ranges {
		if r.ID > uint64(base.RangeDefault) {
			rate = max(rate, r.Rate)
		}
	}
	return rate, nil
}

// metric sums a counter over the nodes.
func (c *cluster) metric(name string) (sum uint64) {
	c.t.Helper()
	for _, p := range c.procs {
		out, err := run(10*time.Second, "debug", "metrics", "-o", "json", "--host", p.addr)
		values := map[string]uint64{}
		if err == nil {
			err = json.Unmarshal([]byte(out), &values)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		sum += values[name]
	}
	return sum
}

// logged says whether a node has said something.
func (c *cluster) logged(what string) bool {
	for _, p := range c.procs {
		if strings.Contains(p.log.String(), what) {
			return true
		}
	}
	return false
}

// TestHotRangesSplit: one small range that is evenly in use is cut, and cut again, under load and without an error; one whose load is
// a single key for each client stays whole, and its node says why; one that does little is left alone.
func TestHotRangesSplit(t *testing.T) {
	c := startCluster(t, 3, "--split-qps", "40")
	for _, ks := range []string{"even", "one", "calm"} {
		if _, err := run(30*time.Second, "keyspace", "create", ks, "--sharded", "--host", c.procs[0].addr); err != nil {
			t.Fatal(err)
		}
	}
	even := startPaced(c, "even", 8, 60, 25*time.Millisecond)
	one := startPaced(c, "one", 1, 1, 5*time.Millisecond)
	calm := startPaced(c, "calm", 1, 100, 200*time.Millisecond)
	c.eventually(120*time.Second, func() error {
		ids, err := c.ranges("even")
		if err != nil {
			return err
		}
		if len(ids) < 4 {
			return fmt.Errorf("%d ranges", len(ids))
		}
		if !c.logged("a range is hot and stays whole") {
			return errors.New("nothing was said of the range with one hot key")
		}
		return nil
	})
	if r, err := c.busiest(); err != nil || r < 10 {
		t.Errorf("the busiest range has %.1f requests/s, %v", r, err)
	}
	for _, p := range []*paced{even, one, calm} {
		before, _ := p.done()
		c.eventually(20*time.Second, func() error { // it goes on in the new ranges
			if ops, _ := p.done(); ops < before+10 {
				return fmt.Errorf("%d operations since", ops-before)
			}
			return nil
		})
		p.end()
		if ops, err := p.done(); err != nil {
			t.Errorf("of %d operations some failed: %v", ops, err)
		}
	}
	for _, ks := range []string{"one", "calm"} {
		if ids, err := c.ranges(ks); err != nil || len(ids) != 1 {
			t.Errorf("%s has ranges %v, %v", ks, ids, err)
		}
	}
	if n := c.metric("splits_load"); n < 3 || !c.logged("range split: it was hot") {
		t.Errorf("splits_load is %d", n)
	}
	if n := c.metric("splits_size") + c.metric("splits_hand"); n != 0 {
		t.Errorf("%d splits for another reason", n)
	}
	c.eventually(30*time.Second, func() error { // what is counted of a load that has ended fades
		r, err := c.busiest()
		if err == nil && r > 5 {
			err = fmt.Errorf("the busiest range has %.1f requests/s", r)
		}
		return err
	})
}
