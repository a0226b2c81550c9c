package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/cairndb/cairn/internal/base"
)

// indexed is a range as `cairn range ls -o json` prints it.
type indexed struct {
	ID         uint64 `json:"id"`
	Keyspace   string `json:"keyspace"`
	Start      string `json:"start"`
	End        string `json:"end"`
	Generation uint64 `json:"generation"`
	FrozenFor  uint64 `json:"frozen_for"`
	Absorbing  uint64 `json:"absorbing"`
}

// verb runs a verb that prints ranges, against a node that is alive.
func (c *cluster) verb(args ...string) (rs []indexed, err error) {
	out, err := run(time.Minute, append(args, "-o", "json", "--host", c.alive()[0].addr)...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &rs)
	}
	return rs, err
}

// sharded makes a keyspace, and cuts it at keys.
func (c *cluster) sharded(name string, at ...string) {
	c.t.Helper()
	if _, err := run(30*time.Second, "keyspace", "create", name, "--sharded", "--host", c.procs[0].addr); err != nil {
		c.t.Fatal(err)
	}
	for _, key := range at {
		c.cutAt(name, key)
	}
}

// cutAt cuts a range; that there is a range of just this start already is as good.
func (c *cluster) cutAt(keyspace, key string) {
	c.t.Helper()
	c.eventually(30*time.Second, func() error {
		if rs, err := c.verb("range", "ls", "--keyspace", keyspace); err == nil && slices.ContainsFunc(rs, func(r indexed) bool { return r.Start == key }) {
			return nil
		}
		_, err := c.verb("range", "split", "--keyspace", keyspace, "--key", key)
		return err
	})
}

// settled waits until a keyspace's ranges tile it, so many, with no merge under way; 0: any number.
func (c *cluster) settled(limit time.Duration, keyspace string, want int) (rs []indexed) {
	c.t.Helper()
	c.eventually(limit, func() (err error) {
		if rs, err = c.verb("range", "ls", "--keyspace", keyspace); err != nil {
			return err
		}
		end := ""
		for i, r := range rs {
			switch {
			case r.FrozenFor != 0 || r.Absorbing != 0:
				return fmt.Errorf("r%d is frozen for r%d, or absorbing r%d", r.ID, r.FrozenFor, r.Absorbing)
			case r.Start != end || (r.End == "") != (i == len(rs)-1):
				return fmt.Errorf("the ranges do not tile: %+v", rs)
			}
			end = r.End
		}
		if want != 0 && len(rs) != want {
			return fmt.Errorf("%d ranges: %+v", len(rs), rs)
		}
		return nil
	})
	return rs
}

// TestMergeByHand: what was cut is merged again under load, without a request that fails or misses what was written; what cannot be
// merged is refused with the reason.
func TestMergeByHand(t *testing.T) {
	c := startCluster(t, 3)
	c.sharded("shards")
	p := startPaced(c, "shards", 8, 40, 10*time.Millisecond)
	const rounds = 4
	for range rounds {
		c.cutAt("shards", "key/00160")
		two := c.settled(20*time.Second, "shards", 2)
		dry, err := c.verb("range", "merge", "--keyspace", "shards", "--key", "key/00000", "--dry-run")
		if err != nil || len(dry) != 1 || dry[0].ID != two[0].ID || dry[0].End != "" {
			t.Fatalf("a dry run says %+v, %v", dry, err)
		}
		c.settled(20*time.Second, "shards", 2)
		before, _ := p.done()
		whole, err := c.verb("range", "merge", "--keyspace", "shards", "--key", "key/00000")
		if err != nil || len(whole) != 1 || whole[0].ID != two[0].ID || whole[0].Start != "" || whole[0].End != "" ||
			whole[0].Generation <= max(two[0].Generation, two[1].Generation) {
			t.Fatalf("%+v became %+v, %v", two, whole, err)
		}
		c.settled(20*time.Second, "shards", 1)
		c.eventually(20*time.Second, func() error {
			if ops, _ := p.done(); ops < before+500 {
				return fmt.Errorf("%d operations since", ops-before)
			}
			return nil
		})
	}
	p.end()
	ops, err := p.done()
	if err != nil {
		t.Errorf("of %d operations some failed: %v", ops, err)
	}
	t.Logf("%d operations, %d splits and merges", ops, rounds)
	c.cutAt("shards", "m")
	for _, refusal := range []struct {
		keyspace, key, says string
	}{
		{"shards", "z", "has no right neighbour"},
		{"default", "a", "one range for ever"},
		{"nobody", "a", "nobody"},
	} {
		for _, dry := range [][]string{nil, {"--dry-run"}} {
			_, err := c.verb(append([]string{"range", "merge", "--keyspace", refusal.keyspace, "--key", refusal.key}, dry...)...)
			if err == nil || !strings.Contains(err.Error(), refusal.says) {
				t.Errorf("%s %s %v: %v", refusal.keyspace, refusal.key, dry, err)
			}
		}
	}
	c.settled(20*time.Second, "shards", 2)
}

// shapes splits and merges a keyspace again and again, by whatever node is alive, until it is stopped.
type shapes struct {
	stop   context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	merges int
	failed int
}

func startShapes(c *cluster, keyspace, at string) *shapes {
	ctx, cancel := context.WithCancel(c.t.Context())
	s := &shapes{stop: cancel}
	s.wg.Go(func() {
		for ctx.Err() == nil {
			host := c.procs[rand.IntN(len(c.procs))].addr
			_, _ = run(20*time.Second, "range", "split", "--keyspace", keyspace, "--key", at, "--host", host) // it may be cut already
			_, err := run(20*time.Second, "range", "merge", "--keyspace", keyspace, "--key", "a", "--host", host)
			s.mu.Lock()
			if err == nil {
				s.merges++
			} else {
				s.failed++
			}
			s.mu.Unlock()
		}
	})
	return s
}

func (s *shapes) end() {
	s.stop()
	s.wg.Wait()
}

// TestMergesSurviveKills: a keyspace is cut and merged all the time, and the node that leads one of the ranges is killed at some
// moment of that. Soon after, no range is frozen or absorbing, and every write that was acknowledged is there.
func TestMergesSurviveKills(t *testing.T) {
	c := startCluster(t, 3)
	c.sharded("shards")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "cairn-keyspace", "shards")
	w := startWrites(ctx, c, "a/", "z/")
	s := startShapes(c, "shards", "m")
	for range 5 {
		before := w.count()
		c.eventually(60*time.Second, func() error {
			if n := w.count() - before; n < 200 {
				return fmt.Errorf("%d writes", n)
			}
			return nil
		})
		victim := c.leads()
		<-time.After(rand.N(300 * time.Millisecond)) // some moment of a merge, which takes about as long
		victim.kill()
		c.eventually(30*time.Second, func() error { // the others go on without it
			if n := w.count() - before; n < 300 {
				return fmt.Errorf("%d writes", n)
			}
			return nil
		})
		victim.start()
	}
	s.end()
	c.settled(20*time.Second, "shards", 0)
	w.end()
	c.settled(20*time.Second, "shards", 0)
	for _, p := range c.procs {
		w.verify(ctx, c.client(p.addr))
	}
	t.Logf("%d merges, %d not done or not known; %d writes, %d failed or not known", s.merges, s.failed, w.count(), w.fails)
	if s.merges == 0 {
		t.Error("nothing was merged")
	}
}

// leads is a process that leads one of the ranges that a user's keyspace has.
func (c *cluster) leads() (found *proc) {
	c.t.Helper()
	c.eventually(30*time.Second, func() error {
		st, err := c.status(c.alive()[0])
		if err != nil {
			return err
		}
		var all []*proc
		for _, r := range st.Ranges {
			for _, p := range c.alive() {
				if r.ID > uint64(base.RangeDefault) && p.addr == r.Leader.Address {
					all = append(all, p)
				}
			}
		}
		if len(all) == 0 {
			return errors.New("nobody leads it")
		}
		found = all[rand.IntN(len(all))]
		return nil
	})
	return found
}

// writes is a client for each prefix that writes new keys, one after the other.
type writes struct {
	t    *testing.T
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	acked []string
	fails int
}

func startWrites(ctx context.Context, c *cluster, prefixes ...string) *writes {
	ctx, cancel := context.WithCancel(ctx)
	w := &writes{t: c.t, stop: cancel}
	cl := c.client()
	for _, prefix := range prefixes {
		w.wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("%s%08d", prefix, n)
				op, done := context.WithTimeout(ctx, 5*time.Second)
				_, err := cl.Put(op, key, key)
				done()
				w.mu.Lock()
				if err == nil {
					w.acked = append(w.acked, key)
				} else {
					w.fails++
				}
				w.mu.Unlock()
			}
		})
	}
	return w
}

func (w *writes) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

func (w *writes) end() {
	w.stop()
	w.wg.Wait()
}

// verify reads all that was acknowledged.
func (w *writes) verify(ctx context.Context, cl *clientv3.Client) {
	w.t.Helper()
	have := map[string]bool{}
	for from := "\x00"; ; {
		op, done := context.WithTimeout(ctx, 20*time.Second)
		resp, err := cl.Get(op, from, clientv3.WithFromKey(), clientv3.WithLimit(1000))
		done()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, kv := range resp.Kvs {
			have[string(kv.Key)] = string(kv.Value) == string(kv.Key)
		}
		if len(resp.Kvs) == 0 || !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	missing := 0
	for _, key := range w.acked {
		if !have[key] {
			missing++
		}
	}
	if missing > 0 {
		w.t.Errorf("%d of %d acknowledged writes are missing", missing, len(w.acked))
	}
}

// TestSmallNeighboursMerge: ranges that were cut because they grew come back to one by themselves, once what they held is deleted
// and compacted; those that were cut by hand stay.
func TestSmallNeighboursMerge(t *testing.T) {
	c := startCluster(t, 3, "--split-bytes", "4000000")
	c.sharded("grown")
	c.sharded("cut", "m")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "cairn-keyspace", "grown")
	cl := c.client()
	value := make([]byte, 64<<10)
	for i := range 500 { // some tens of megabytes: what is only in memory does not count
		for j := range value {
			value[j] = byte('a' + rand.IntN(26)) // not to be compressed away
		}
		op, done := context.WithTimeout(ctx, 10*time.Second)
		_, err := cl.Put(op, fmt.Sprintf("key/%05d", i), string(value))
		done()
		if err != nil {
			t.Fatal(err)
		}
	}
	c.eventually(60*time.Second, func() error {
		rs, err := c.verb("range", "ls", "--keyspace", "grown")
		if err == nil && len(rs) < 3 {
			err = fmt.Errorf("%d ranges", len(rs))
		}
		return err
	})
	rs := c.settled(20*time.Second, "grown", 0)
	t.Logf("%d ranges", len(rs))
	revision := int64(0)
	for i := range 500 {
		op, done := context.WithTimeout(ctx, 10*time.Second)
		resp, err := cl.Delete(op, fmt.Sprintf("key/%05d", i))
		done()
		if err != nil {
			t.Fatal(err)
		}
		revision = max(revision, resp.Header.Revision)
	}
	if _, err := cl.Compact(ctx, revision); err != nil {
		t.Fatal(err)
	}
	c.settled(120*time.Second, "grown", 1)
	c.settled(20*time.Second, "cut", 2)
	if _, err := cl.Put(ctx, "key/00250", "again"); err != nil {
		t.Fatal(err)
	}
	if resp, err := cl.Get(ctx, "", clientv3.WithPrefix()); err != nil || len(resp.Kvs) != 1 {
		t.Errorf("it holds %v, %v", resp, err)
	}
}
