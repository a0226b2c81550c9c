package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/client"
	"github.com/cairndb/cairn/internal/base"
)

// Cairn's own Go client, against three real nodes and a keyspace that is cut in several ranges.

func (c *cluster) goClient(endpoints ...string) *client.Client {
	c.t.Helper()
	if len(endpoints) == 0 {
		endpoints = c.endpoints()
	}
	cl, err := client.New(client.Config{Endpoints: endpoints})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// cut makes a sharded keyspace that is cut at the keys.
func (c *cluster) cut(ctx context.Context, name string, keys ...string) {
	c.t.Helper()
	cl := c.goClient()
	if _, err := cl.CreateKeyspace(ctx, name, false); err != nil {
		c.t.Fatalf("making %s: %v", name, err)
	}
	for _, key := range keys {
		if _, _, err := cl.SplitRange(ctx, name, key); err != nil {
			c.t.Fatalf("cutting %s at %s: %v", name, key, err)
		}
	}
}

// mostLed returns the process that leads the most ranges of made keyspaces, once every range is led and has three voters.
func (c *cluster) mostLed() (found *proc) {
	c.t.Helper()
	c.eventually(60*time.Second, func() error {
		s, err := c.status(c.alive()[0])
		if err != nil {
			return err
		}
		led := map[string]int{}
		for _, r := range s.Ranges {
			voters := 0
			for _, rep := range r.Replicas {
				if rep.Role == "voter" {
					voters++
				}
			}
			if voters != 3 || r.Leader.Node == 0 {
				return fmt.Errorf("range %d (%s): %d voters, leader %d", r.ID, r.Keyspace, voters, r.Leader.Node)
			}
			if r.ID >= base.FirstFreeID {
				led[r.Leader.Address]++
			}
		}
		found = nil
		for _, p := range c.alive() {
			if led[p.addr] > 0 && (found == nil || led[p.addr] > led[found.addr]) {
				found = p
			}
		}
		if found == nil {
			return errors.New("no range of a made keyspace is led by a node that is alive")
		}
		return nil
	})
	return found
}

func (c *cluster) othersThan(p *proc) (addrs []string) {
	for _, o := range c.procs {
		if o != p {
			addrs = append(addrs, o.addr)
		}
	}
	return addrs
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// scanned is what a scan hands out: "key=value" each.
func scanned(t *testing.T, ctx context.Context, kv client.KV, o client.ScanOptions) (out []string) {
	t.Helper()
	for p, err := range kv.Scan(ctx, o) {
		mustDo(t, err)
		out = append(out, p.Key+"="+string(p.Value))
	}
	return out
}

func TestGoClient(t *testing.T) {
	c := startCluster(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c.cut(ctx, "shards", "k2", "k4", "k6", "k8")
	// It begins with a node that leads nothing, and is to find the leader by itself.
	cl := c.goClient(c.othersThan(c.mostLed())[0])
	kv := cl.Keyspace("shards")
	want := make([]string, 0, 500)
	for i := range 500 {
		key, value := fmt.Sprintf("k%d/%03d", i/50, i), fmt.Sprint(i)
		_, err := kv.Put(ctx, key, []byte(value))
		mustDo(t, err)
		got, found, err := kv.Get(ctx, key)
		if err != nil || !found || string(got.Value) != value || got.Version != 1 {
			t.Fatalf("%s: %+v, %v, %v", key, got, found, err)
		}
		want = append(want, key+"="+value)
	}
	if s := cl.Stats(); s.Direct < s.Sent*95/100 || s.Ambiguous != 0 {
		t.Errorf("not straight to the leader: %+v", s)
	}
	if got := scanned(t, ctx, kv, client.ScanOptions{}); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("scanned %d keys, want %d: %v", len(got), len(want), got)
	}
	t.Run("one revision", func(t *testing.T) { scanAtOneRevision(t, ctx, kv, want) })
	t.Run("transactions", func(t *testing.T) { transact(t, ctx, kv) })
	t.Run("refusals", func(t *testing.T) { refusals(t, ctx, cl, kv) })
	t.Run("stale", func(t *testing.T) { stale(t, ctx, c) })
	t.Run("default", func(t *testing.T) {
		first, err := cl.Put(ctx, "a", []byte("1"))
		mustDo(t, err)
		second, err := cl.Put(ctx, "a", []byte("2"))
		mustDo(t, err)
		if second != first+1 {
			t.Errorf("revisions %d, %d", first, second)
		}
	})
}

// A scan shows what was when it began, whatever is written while it walks.
func scanAtOneRevision(t *testing.T, ctx context.Context, kv client.KV, want []string) {
	n := 0
	for p, err := range kv.Scan(ctx, client.ScanOptions{}) {
		mustDo(t, err)
		if n == 0 {
			_, err := kv.Put(ctx, "k9/new", []byte("x"))
			mustDo(t, err)
			_, err = kv.Delete(ctx, "k5/250")
			mustDo(t, err)
		}
		if got := p.Key + "=" + string(p.Value); n >= len(want) || got != want[n] {
			t.Fatalf("key %d is %s", n, got)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d keys, want %d", n, len(want))
	}
	count, revision, err := kv.Count(ctx, client.All())
	mustDo(t, err)
	if count != int64(len(want)) { // one more, one less
		t.Errorf("%d keys are counted", count)
	}
	if again := scanned(t, ctx, kv, client.ScanOptions{Span: client.Prefix("k5/"), Revision: revision}); len(again) != 49 {
		t.Errorf("%d keys below k5/ at revision %d", len(again), revision)
	}
}

func transact(t *testing.T, ctx context.Context, kv client.KV) {
	r, err := kv.Txn(ctx, client.Txn{
		If:   client.If(client.Absent("k3/lock")),
		Then: client.Do(client.PutOp("k3/lock", []byte("me")), client.GetOp("k3/lock")),
	})
	if err != nil || !r.Succeeded || string(r.Responses[1].GetResponseRange().Kvs[0].Value) != "me" {
		t.Fatalf("%+v, %v", r, err)
	}
	again, err := kv.Txn(ctx, client.Txn{
		If:   client.If(client.Unchanged("k3/lock", r.Revision), client.ValueIs("k3/lock", []byte("you"))),
		Then: client.Do(client.DeleteOp("k3/lock")),
	})
	if err != nil || again.Succeeded {
		t.Fatalf("%+v, %v", again, err)
	}
	_, err = kv.Txn(ctx, client.Txn{Then: client.Do(client.PutOp("k1/x", nil), client.PutOp("k5/x", nil))})
	var several *client.SeveralRanges
	if !errors.As(err, &several) || len(several.Descriptors) < 2 || string(several.Descriptors[0].End) != "k2" || string(several.Descriptors[1].Start) != "k2" {
		t.Fatalf("a transaction over several ranges: %v", err)
	}
	if _, found, err := kv.Get(ctx, "k1/x"); found || err != nil {
		t.Errorf("a refused transaction wrote: %v, %v", found, err)
	}
}

func refusals(t *testing.T, ctx context.Context, cl *client.Client, kv client.KV) {
	got, _, err := kv.Get(ctx, "k0/001")
	mustDo(t, err)
	revision, err := kv.Put(ctx, "k0/001", []byte("newer"))
	mustDo(t, err)
	mustDo(t, kv.Compact(ctx, revision))
	if _, err := kv.GetRange(ctx, client.Query{Span: client.Prefix("k0/"), Revision: got.ModRevision}); !errors.Is(err, client.ErrCompacted) {
		t.Errorf("a compacted revision: %v", err)
	}
	for _, err := range kv.Scan(ctx, client.ScanOptions{Revision: got.ModRevision}) {
		if !errors.Is(err, client.ErrCompacted) {
			t.Errorf("a scan at a compacted revision: %v", err)
		}
	}
	if _, err := cl.GetRange(ctx, client.Query{Span: client.Prefix("a"), Revision: 1 << 40}); !errors.Is(err, client.ErrFutureRevision) {
		t.Errorf("a future revision: %v", err)
	}
	_, err = cl.Keyspace("nowhere").Put(ctx, "a", nil)
	var none *client.NoKeyspace
	if !errors.As(err, &none) || none.Name != "nowhere" {
		t.Errorf("no keyspace: %v", err)
	}
	if _, err := cl.DropKeyspace(ctx, "nowhere"); !errors.As(err, &none) {
		t.Errorf("dropping no keyspace: %v", err)
	}
}

// A client that knows how things were before a cut, a merge, or before the keyspace was dropped and made anew finds out silently.
func stale(t *testing.T, ctx context.Context, c *cluster) {
	c.cut(ctx, "old")
	cl := c.goClient()
	kv := cl.Keyspace("old")
	put := func(value string) {
		t.Helper()
		for i := range 10 {
			_, err := kv.Put(ctx, fmt.Sprintf("k%d", i), []byte(value))
			mustDo(t, err)
		}
	}
	all := func(value string) {
		t.Helper()
		put(value)
		put(value) // the first found out
		before := cl.Stats()
		put(value)
		if after := cl.Stats(); after.Direct-before.Direct != 10 || after.Sent-before.Sent != 10 {
			t.Errorf("%s: not healed: %+v, then %+v", value, before, after)
		}
		if got := scanned(t, ctx, kv, client.ScanOptions{}); len(got) != 10 || got[7] != "k7="+value {
			t.Errorf("%s: scanned %v", value, got)
		}
	}
	other := c.goClient()
	all("whole")
	for _, key := range []string{"k3", "k6", "k8"} {
		_, _, err := other.SplitRange(ctx, "old", key)
		mustDo(t, err)
	}
	all("cut")
	_, err := other.MergeRange(ctx, "old", "k4")
	mustDo(t, err)
	all("merged")
	_, err = other.DropKeyspace(ctx, "old")
	mustDo(t, err)
	_, err = other.CreateKeyspace(ctx, "old", false)
	mustDo(t, err)
	c.eventually(30*time.Second, func() error { // a node leads the name to the old one for up to two seconds
		opctx, done := context.WithTimeout(ctx, time.Second)
		defer done()
		kvs, err := kv.GetRange(opctx, client.Query{})
		if err == nil {
			for _, p := range kvs.KVs {
				if string(p.Value) != "anew" {
					t.Fatalf("%s=%s of the dropped keyspace is there", p.Key, p.Value)
				}
			}
			_, err = kv.Put(opctx, "k0", []byte("anew"))
		}
		return err
	})
	all("anew")
}

// clientLoad writes each key once, over all ranges, and keeps how each write ended.
type clientLoad struct {
	kv   client.KV
	wg   sync.WaitGroup
	stop context.CancelFunc

	mu      sync.Mutex
	ended   map[string]error // key → nil, or why not
	acked   atomic.Int64
	strange chan error
}

func (l *clientLoad) write(ctx context.Context, id int) {
	for n := 0; ctx.Err() == nil; n++ {
		key := fmt.Sprintf("k%d/%d/%06d", n%10, id, n)
		opctx, done := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := l.kv.Put(opctx, key, []byte(key))
		done()
		l.mu.Lock()
		l.ended[key] = err
		l.mu.Unlock()
		if err == nil {
			l.acked.Add(1)
		}
	}
}

// count writes a register of its own, again and again, and reads it: no read may show less than what was acknowledged before.
func (l *clientLoad) count(ctx context.Context, id int) {
	key, acked := fmt.Sprintf("k%d/register", id), 0
	for n := 1; ctx.Err() == nil; n++ {
		opctx, done := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := l.kv.Put(opctx, key, fmt.Append(nil, n))
		if err == nil {
			acked = n
		}
		got, found, err := l.kv.Get(opctx, key)
		done()
		var value int
		if err == nil && found {
			if _, err := fmt.Sscan(string(got.Value), &value); err != nil {
				l.strange <- err
				return
			}
		}
		if err == nil && (value < acked || value > n) {
			l.strange <- fmt.Errorf("%s: read %d, acknowledged was %d, written %d", key, value, acked, n)
			return
		}
	}
}

func (l *clientLoad) waitAcked(c *cluster, n int64) {
	c.t.Helper()
	goal := l.acked.Load() + n
	c.eventually(60*time.Second, func() error {
		if w := l.acked.Load(); w < goal {
			return fmt.Errorf("%d of %d writes", w, goal)
		}
		return nil
	})
}

// verify: what was acknowledged is there; what certainly was not carried out is not; and nothing was written twice.
func (l *clientLoad) verify(t *testing.T, ctx context.Context) {
	t.Helper()
	there := map[string]client.KeyValue{}
	for p, err := range l.kv.Scan(ctx, client.ScanOptions{}) {
		mustDo(t, err)
		there[p.Key] = p
	}
	var unknown, not int
	for key, err := range l.ended {
		p, found := there[key]
		var ambiguous *client.Ambiguous
		switch {
		case err == nil && (!found || string(p.Value) != key):
			t.Errorf("%s was acknowledged, and is %+v", key, p)
		case errors.As(err, &ambiguous):
			unknown++
		case err != nil:
			if not++; found {
				t.Errorf("%s is there, and was refused: %v", key, err)
			}
		}
		if found && p.Version != 1 {
			t.Errorf("%s was written %d times", key, p.Version)
		}
	}
	t.Logf("%d writes acknowledged, %d not known, %d not carried out", l.acked.Load(), unknown, not)
	if l.acked.Load() == 0 {
		t.Error("nothing was acknowledged")
	}
}

// Under load ranges are cut, and the node that leads most of them is killed with kill -9, twice. No answer is wrong, what was
// acknowledged is there, nothing is written twice, and in the end all goes straight to the leaders again.
func TestGoClientFailover(t *testing.T) {
	c := startCluster(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c.cut(ctx, "shards", "k2", "k4", "k6", "k8")
	c.mostLed()
	cl := c.goClient()
	lctx, stop := context.WithCancel(ctx)
	l := &clientLoad{kv: cl.Keyspace("shards"), stop: stop, ended: map[string]error{}, strange: make(chan error, 10)}
	for i := range 4 {
		l.wg.Go(func() { l.write(lctx, i) })
		l.wg.Go(func() { l.count(lctx, 2*i) })
	}
	defer l.wg.Wait()
	defer l.stop()
	other := c.goClient()
	l.waitAcked(c, 200)
	for _, key := range []string{"k1", "k5"} {
		_, _, err := other.SplitRange(ctx, "shards", key)
		mustDo(t, err)
		l.waitAcked(c, 100)
	}
	for range 2 {
		victim := c.mostLed()
		victim.kill()
		l.waitAcked(c, 200)
		victim.start()
		c.mostLed()
		l.waitAcked(c, 200)
	}
	c.eventually(30*time.Second, func() error { // a connection to a node that was away is tried again every two seconds
		before := cl.Stats()
		l.waitAcked(c, 200)
		after := cl.Stats()
		if sent, direct := after.Sent-before.Sent, after.Direct-before.Direct; direct < sent*95/100 {
			return fmt.Errorf("not straight to the leaders again: %d of %d", direct, sent)
		}
		return nil
	})
	l.stop()
	l.wg.Wait()
	select {
	case err := <-l.strange:
		t.Error(err)
	default:
	}
	t.Logf("%+v", cl.Stats())
	l.verify(t, ctx)
}
