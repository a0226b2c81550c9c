package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

// What etcd's Go client has on top of its API, unmodified, against three nodes: sessions, mutexes, elections and STM of its package
// concurrency, and its clients for namespaces, leases on keys, mirrors and order.
func TestEtcdRecipes(t *testing.T) {
	c := startCluster(t, 3)
	for name, f := range map[string]func(*testing.T, context.Context, *cluster){
		"mutex": recipeMutex, "try lock and orphan": recipeTryLock, "election": recipeElection, "STM": recipeSTM,
		"namespace": recipeNamespace, "leasing": recipeLeasing, "mirror": recipeMirror, "ordering": recipeOrdering,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			of := *c
			of.t = t
			f(t, ctx, &of)
		})
	}
}

func session3(t *testing.T, cl *clientv3.Client, ttl int) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(cl, concurrency.WithTTL(ttl))
	mustDo(t, err)
	return s
}

// One has the lock at a time, in the order of the revisions of their keys, also as the leader goes and comes back.
func recipeMutex(t *testing.T, ctx context.Context, c *cluster) {
	const lockers, rounds = 4, 5
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		inside int
		tokens []int64
		half   = make(chan struct{})
	)
	// What was under way as the leader went fails, as with etcd; each of these may be done again.
	insist := func(f func() error) {
		for err := f(); err != nil; err = f() {
			if ctx.Err() != nil {
				t.Errorf("%v: %v", ctx.Err(), err)
				return
			}
		}
	}
	for i := range lockers {
		cl := c.client(c.endpoints()[i%3:]...)
		s := session3(t, cl, 10)
		wg.Go(func() {
			m := concurrency.NewMutex(s, "recipes/mutex")
			for range rounds {
				insist(func() error { return m.Lock(ctx) })
				mu.Lock()
				if inside++; inside != 1 {
					t.Errorf("%d have the lock", inside)
				}
				mu.Unlock()
				var r *clientv3.GetResponse
				insist(func() (err error) { r, err = cl.Get(ctx, m.Key()); return err })
				mu.Lock()
				if r == nil || len(r.Kvs) != 1 {
					t.Errorf("the owner's key: %v", r)
				} else if tokens = append(tokens, r.Kvs[0].CreateRevision); len(tokens) == lockers*rounds/2 {
					close(half)
				}
				inside--
				mu.Unlock()
				insist(func() error { return m.Unlock(ctx) })
			}
			insist(func() error {
				// A revocation that was carried out, and whose answer was lost, finds no lease when it is asked for again.
				if err := s.Close(); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
					return err
				}
				return nil
			})
		})
	}
	select {
	case <-half:
	case <-ctx.Done():
		t.Fatal("the lock does not go round")
	}
	p := c.leader()
	p.kill()
	p.start()
	wg.Wait()
	if len(tokens) != lockers*rounds || !slices.IsSorted(tokens) {
		t.Errorf("tokens %v", tokens)
	}
	c.waitReplicated(3)
}

// A lock that is held is not waited for by TryLock; one whose owner is gone is free when its lease ends.
func recipeTryLock(t *testing.T, ctx context.Context, c *cluster) {
	cl := c.client()
	owner, other := session3(t, cl, 2), session3(t, cl, 10)
	a, b := concurrency.NewMutex(owner, "recipes/try"), concurrency.NewMutex(other, "recipes/try")
	mustDo(t, a.TryLock(ctx))
	if err := b.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Errorf("held by another: %v", err)
	}
	owner.Orphan()
	began := time.Now()
	mustDo(t, b.Lock(ctx))
	if took := time.Since(began); took < time.Second || took > 20*time.Second {
		t.Errorf("an orphan's lock of 2 s was free after %s", took)
	}
	r, err := cl.Txn(ctx).If(a.IsOwner()).Then(clientv3.OpPut("recipes/guarded", "")).Commit()
	if err != nil || r.Succeeded {
		t.Errorf("who was the owner writes: %v, %v", r, err)
	}
	mustDo(t, other.Close())
}

// Each leader is observed, with what it proclaims, and who resigns is followed by the next.
func recipeElection(t *testing.T, ctx context.Context, c *cluster) {
	a, b := session3(t, c.client(), 10), session3(t, c.client(), 10)
	ea, eb := concurrency.NewElection(a, "recipes/election"), concurrency.NewElection(b, "recipes/election")
	mustDo(t, ea.Campaign(ctx, "a"))
	first := ea.Rev()
	observing, enough := context.WithCancel(ctx)
	defer enough()
	seen := eb.Observe(observing)
	expect := func(want string) {
		t.Helper()
		select {
		case r, ok := <-seen:
			if !ok || string(r.Kvs[0].Value) != want {
				t.Fatalf("%v, want %s", r, want)
			}
		case <-ctx.Done():
			t.Fatalf("%s was not seen", want)
		}
	}
	expect("a")
	mustDo(t, ea.Proclaim(ctx, "a2"))
	expect("a2")
	won := make(chan error, 1)
	go func() { won <- eb.Campaign(ctx, "b") }()
	mustDo(t, ea.Resign(ctx))
	mustDo(t, <-won)
	expect("b")
	if eb.Rev() <= first {
		t.Errorf("the token went from %d to %d", first, eb.Rev())
	}
	if r, err := ea.Leader(ctx); err != nil || string(r.Kvs[0].Value) != "b" {
		t.Errorf("%v, %v", r, err)
	}
	mustDo(t, errors.Join(a.Close(), b.Close()))
}

// Transactions in software, at each level of isolation that promises it, lose no increment.
func recipeSTM(t *testing.T, ctx context.Context, c *cluster) {
	for _, level := range []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads} {
		const workers, rounds = 4, 10
		key := fmt.Sprintf("recipes/stm/%d", level)
		var wg sync.WaitGroup
		for range workers {
			cl := c.client()
			wg.Go(func() {
				for range rounds {
					_, err := concurrency.NewSTM(cl, func(s concurrency.STM) error {
						n := 0
						if v := s.Get(key); v != "" {
							if _, err := fmt.Sscan(v, &n); err != nil {
								return err
							}
						}
						s.Put(key, fmt.Sprint(n+1))
						return nil
					}, concurrency.WithIsolation(level), concurrency.WithAbortContext(ctx))
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if r, err := c.client().Get(ctx, key); err != nil || string(r.Kvs[0].Value) != fmt.Sprint(workers*rounds) {
			t.Errorf("level %d: %v, %v", level, r, err)
		}
	}
}

// A client of a namespace sees its own keys without the prefix, and its watches and leases do.
func recipeNamespace(t *testing.T, ctx context.Context, c *cluster) {
	cl, plain := c.client(), c.client()
	cl.KV, cl.Watcher, cl.Lease = namespace.NewKV(cl.KV, "recipes/ns/"), namespace.NewWatcher(cl.Watcher, "recipes/ns/"), namespace.NewLease(cl.Lease, "recipes/ns/")
	lease, err := cl.Grant(ctx, 60)
	mustDo(t, err)
	put, err := cl.Put(ctx, "k", "v", clientv3.WithLease(lease.ID))
	mustDo(t, err)
	r, err := plain.Get(ctx, "recipes/ns/k")
	if err != nil || r.Count != 1 || r.Kvs[0].Lease != int64(lease.ID) {
		t.Errorf("%v, %v", r, err)
	}
	w := <-cl.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(put.Header.Revision))
	if w.Err() != nil || len(w.Events) != 1 || string(w.Events[0].Kv.Key) != "k" {
		t.Errorf("%v, %v", w, w.Err())
	}
	ttl, err := cl.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil || len(ttl.Keys) != 1 || string(ttl.Keys[0]) != "k" {
		t.Errorf("%v, %v", ttl, err)
	}
	_, err = cl.Revoke(ctx, lease.ID)
	mustDo(t, err)
	if r, err = plain.Get(ctx, "recipes/ns/", clientv3.WithPrefix()); err != nil || r.Count != 0 {
		t.Errorf("%v, %v", r, err)
	}
}

// A leasing client reads from its memory what it holds, and gives it up when another writes it.
func recipeLeasing(t *testing.T, ctx context.Context, c *cluster) {
	a, stopA, err := leasing.NewKV(c.client(), "recipes/leasing/")
	mustDo(t, err)
	defer stopA()
	b, stopB, err := leasing.NewKV(c.client(), "recipes/leasing/")
	mustDo(t, err)
	defer stopB()
	for i := range 10 {
		writer, reader := a, b
		if i%2 == 1 {
			writer, reader = b, a
		}
		want := fmt.Sprint(i)
		_, err := writer.Put(ctx, "recipes/leased", want)
		mustDo(t, err)
		for range 3 {
			for _, kv := range []clientv3.KV{reader, writer} {
				if r, err := kv.Get(ctx, "recipes/leased"); err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != want {
					t.Fatalf("%v, %v, want %s", r, err, want)
				}
			}
		}
	}
}

// A mirror has what was there, and then each change.
func recipeMirror(t *testing.T, ctx context.Context, c *cluster) {
	cl := c.client()
	want := map[string]string{}
	write := func(i int) {
		key, value := fmt.Sprintf("recipes/mirror/%03d", i%50), fmt.Sprint(i)
		_, err := cl.Put(ctx, key, value)
		mustDo(t, err)
		want[key] = value
	}
	for i := range 60 {
		write(i)
	}
	got := map[string]string{}
	s := mirror.NewSyncer(cl, "recipes/mirror/", 0)
	base, errs := s.SyncBase(ctx)
	for r := range base {
		for _, kv := range r.Kvs {
			got[string(kv.Key)] = string(kv.Value)
		}
	}
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	updates := s.SyncUpdates(ctx)
	for i := 60; i < 160; i++ {
		write(i)
	}
	for n := 0; n < 100; {
		w := <-updates
		mustDo(t, w.Err())
		for _, e := range w.Events {
			got[string(e.Kv.Key)] = string(e.Kv.Value)
			n++
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A client that asks replicas, whichever node it is at, never reads what is older than what it has read.
func recipeOrdering(t *testing.T, ctx context.Context, c *cluster) {
	cl := c.client()
	kv := ordering.NewKV(cl.KV, ordering.NewOrderViolationSwitchEndpointClosure(cl))
	last, read := -1, 0
	for i := range 100 {
		_, err := kv.Put(ctx, "recipes/ordered", fmt.Sprint(i))
		mustDo(t, err)
		r, err := kv.Get(ctx, "recipes/ordered", clientv3.WithSerializable())
		if errors.Is(err, ordering.ErrNoGreaterRev) {
			continue // no replica was as far
		}
		mustDo(t, err)
		if len(r.Kvs) == 0 && last < 0 {
			continue
		}
		n := -1
		if _, err := fmt.Sscan(string(r.Kvs[0].Value), &n); err != nil || n < last {
			t.Fatalf("%d was read, and then %d: %v", last, n, err)
		}
		last = n
		read++
	}
	if read == 0 {
		t.Error("no read was answered")
	}
}
