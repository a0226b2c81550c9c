package cairntest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cairndb/cairn/cairntest"
	"github.com/cairndb/cairn/client"
)

// Watches of each kind, over the loss of the nodes that serve them: each revision once, whole, in order.
func TestWatch(t *testing.T) {
	cluster := cairntest.Start(t, 3)
	ctx, c := testContext(t), cluster.Client()
	const writes = 300
	first, err := c.Put(ctx, "w/first", nil)
	if err != nil {
		t.Fatal(err)
	}
	var written []int64
	watching, enough := context.WithCancel(ctx)
	defer enough()
	var wg sync.WaitGroup
	seen := make([][]int64, 6)
	for i := range seen {
		o := client.WatchOptions{Span: client.Prefix("w/"), From: first + 1, PrevKV: i%2 == 0}
		if i >= 3 {
			o.Span = client.All()
		}
		wg.Go(func() {
			for u, err := range c.Watch(watching, o) {
				if err != nil {
					if watching.Err() == nil {
						t.Error(err)
					}
					return
				}
				if n := len(u.Events); n != 2 {
					t.Errorf("%d events at %d", n, u.Revision)
				}
				for _, e := range u.Events {
					if o.PrevKV && (e.Prev == nil) != (e.Version == 1) || !o.PrevKV && e.Prev != nil {
						t.Errorf("%s at %d: before it was %v", e.Key, e.ModRevision, e.Prev)
					}
				}
				if seen[i] = append(seen[i], u.Revision); len(seen[i]) == writes {
					return
				}
			}
		})
	}
	for i := range writes {
		r, err := c.Txn(ctx, client.Txn{Then: client.Do(
			client.PutOp(fmt.Sprintf("w/%d", i%7), fmt.Append(nil, i)), client.PutOp(fmt.Sprintf("w/%d", 10+i%5), nil))})
		if err != nil { // none is ambiguous: nodes are stopped and started between two writes
			t.Fatal(err)
		}
		written = append(written, r.Revision)
		switch i {
		case writes / 3:
			cluster.Stop((cluster.Leader("default", "w/") + 1) % 3)
		case writes / 2:
			for n := range 3 {
				cluster.Restart(n)
			}
		}
	}
	wg.Wait()
	for i := range seen {
		if !slices.Equal(seen[i], written) {
			t.Errorf("watch %d saw %d of %d revisions", i, len(seen[i]), len(written))
		}
	}
}

// A watch of what was compacted says so, and from where there is something.
func TestWatchCompacted(t *testing.T) {
	ctx := testContext(t)
	c := cairntest.Start(t, 1).Client()
	var last int64
	for range 10 {
		var err error
		if last, err = c.Put(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Compact(ctx, last-2); err != nil {
		t.Fatal(err)
	}
	for _, err := range c.Watch(ctx, client.WatchOptions{Span: client.Key("k"), From: last - 5}) {
		var compacted *client.Compacted
		if !errors.As(err, &compacted) || compacted.Revision != last-2 {
			t.Errorf("%v, want it at %d", err, last-2)
		}
	}
	var seen []int64
	for u, err := range c.Watch(ctx, client.WatchOptions{Span: client.Key("k"), From: last - 2}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, u.Revision); u.Revision == last {
			break
		}
	}
	if len(seen) != 3 {
		t.Errorf("%v", seen)
	}
}

// In a keyspace of several ranges, which are cut while it is watched, revisions come in their order too.
func TestWatchSharded(t *testing.T) {
	ctx := testContext(t)
	c := cairntest.Start(t, 3).Client()
	if _, err := c.CreateKeyspace(ctx, "shards", false); err != nil {
		t.Fatal(err)
	}
	kv := c.Keyspace("shards")
	if _, _, err := c.SplitRange(ctx, "shards", "k5"); err != nil {
		t.Fatal(err)
	}
	const writes = 200
	began := make(chan struct{})
	done := make(chan []string)
	go func() {
		var got []string
		defer func() { done <- got }()
		for u, err := range kv.Watch(ctx, client.WatchOptions{}) {
			if err != nil {
				t.Error(err)
				return
			}
			if len(u.Events) == 0 {
				close(began)
			}
			for _, e := range u.Events {
				if got = append(got, string(e.Value)); len(got) == writes {
					return
				}
			}
		}
	}()
	<-began
	var want []string
	for i := range writes {
		if _, err := kv.Put(ctx, fmt.Sprintf("k%d", i%10), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprint(i))
		if i == writes/2 {
			if _, _, err := c.SplitRange(ctx, "shards", "k3"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := <-done; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// A lock goes from one session to the next, with tokens that grow, also when its owner is gone without a word.
func TestLock(t *testing.T) {
	cluster := cairntest.Start(t, 3)
	ctx, c := testContext(t), cluster.Client()
	const sessions, rounds = 5, 4
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		tokens []int64
		inside int
	)
	for range sessions {
		s := mustSession(t, ctx, c)
		wg.Go(func() {
			m := s.Mutex("m")
			for range rounds {
				token, err := m.Lock(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				inside++
				if tokens = append(tokens, token); inside != 1 {
					t.Errorf("%d have the lock", inside)
				}
				mu.Unlock()
				mu.Lock()
				inside--
				mu.Unlock()
				if err := m.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(tokens) != sessions*rounds || !slices.IsSorted(tokens) {
		t.Errorf("tokens %v", tokens)
	}
	gone, err := c.NewSession(ctx, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Mutex("m").Lock(ctx); err != nil {
		t.Fatal(err)
	}
	gone.Orphan()
	began := time.Now()
	if _, err := mustSession(t, ctx, c).Mutex("m").Lock(ctx); err != nil {
		t.Error(err)
	}
	t.Logf("a lock whose owner is gone, with a TTL of 2 s, was had after %s", time.Since(began))
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := mustSession(t, ctx, c).Mutex("m").Lock(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	page, err := c.GetRange(ctx, client.Query{Span: client.Prefix("m/")})
	if err != nil || len(page.KVs) != 1 {
		t.Errorf("who gave up is in the queue: %v, %v", page, err)
	}
}

// One session leads; whoever observes sees each leader, and what it proclaims.
func TestElection(t *testing.T) {
	ctx := testContext(t)
	c := cairntest.Start(t, 1).Client()
	observed := make(chan string, 10)
	watching, enough := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer enough()
	wg.Go(func() {
		for kv, err := range c.Leaders(watching, "e") {
			if err != nil {
				return
			}
			observed <- string(kv.Value)
		}
	})
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-observed:
			if got != want {
				t.Errorf("%s leads, want %s", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("nobody saw %s lead", want)
		}
	}
	a, b := mustSession(t, ctx, c).Election("e"), mustSession(t, ctx, c).Election("e")
	first, err := a.Campaign(ctx, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	expect("a")
	if err := a.Proclaim(ctx, []byte("a2")); err != nil {
		t.Error(err)
	}
	expect("a2")
	if err := b.Proclaim(ctx, []byte("b")); !errors.Is(err, client.ErrNotLeader) {
		t.Errorf("a session that has not entered: %v", err)
	}
	next := make(chan int64)
	go func() {
		token, err := b.Campaign(ctx, []byte("b"))
		if err != nil {
			t.Error(err)
		}
		next <- token
	}()
	if err := a.Resign(ctx); err != nil {
		t.Error(err)
	}
	if second := <-next; second <= first {
		t.Errorf("%d after %d", second, first)
	}
	expect("b")
	if kv, found, err := c.KV.Leader(ctx, "e"); err != nil || !found || string(kv.Value) != "b" {
		t.Errorf("%v, %v, %v", kv, found, err)
	}
}
