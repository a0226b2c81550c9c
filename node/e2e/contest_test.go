package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/electionpb"
	"github.com/cairndb/cairn/api/lockpb"
)

// etcd's lock and election services, and its clients' own locks beside them: all are one contest. Tokens grow from owner to owner.
func TestContests(t *testing.T) {
	c := startCluster(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	t.Run("locks", func(t *testing.T) { locks(t, ctx, c) })
	t.Run("elections", func(t *testing.T) { elections(t, ctx, c) })
	t.Run("concurrency", func(t *testing.T) { concurrently(t, ctx, c) })
	t.Run("json", func(t *testing.T) { lockOverJSON(t, ctx, c) })
}

func granted(t *testing.T, ctx context.Context, cl *clientv3.Client, ttl int64) int64 {
	t.Helper()
	g, err := cl.Grant(ctx, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return int64(g.ID)
}

type locked struct {
	resp *lockpb.LockResponse
	err  error
}

func lockLater(ctx context.Context, l lockpb.LockClient, req *lockpb.LockRequest) chan locked {
	ch := make(chan locked, 1)
	go func() {
		resp, err := l.Lock(ctx, req)
		ch <- locked{resp, err}
	}()
	return ch
}

func locks(t *testing.T, ctx context.Context, c *cluster) {
	cl, other := c.client(c.procs[0].addr), c.client(c.procs[1].addr)
	l, l2 := lockpb.NewLockClient(cl.ActiveConnection()), lockpb.NewLockClient(other.ActiveConnection())
	name := []byte("locks/one")
	mine, theirs := granted(t, ctx, cl, 60), granted(t, ctx, other, 60)

	first, err := l.Lock(ctx, &lockpb.LockRequest{Name: name, Lease: mine})
	if err != nil || string(first.Key) != fmt.Sprintf("locks/one/%x", mine) || first.Rev == 0 || first.Header.Revision != first.Rev {
		t.Fatalf("%v, %v", first, err)
	}
	again, err := l.Lock(ctx, &lockpb.LockRequest{Name: name, Lease: mine})
	if err != nil || !bytes.Equal(again.Key, first.Key) || again.Rev != first.Rev {
		t.Errorf("locked twice with one lease: %v, %v", again, err)
	}
	second := lockLater(ctx, l2, &lockpb.LockRequest{Name: name, Lease: theirs})
	// One whose client gives up is not in the way of those behind it.
	gaveUp, giveUp := context.WithCancel(ctx)
	waiting := lockLater(gaveUp, l2, &lockpb.LockRequest{Name: name, Lease: granted(t, ctx, other, 60)})
	waiters(t, ctx, cl, "locks/one/", 3)
	giveUp()
	if got := <-waiting; grpcstatus.Code(got.err) != codes.Canceled {
		t.Errorf("gave up: %+v", got)
	}
	waiters(t, ctx, cl, "locks/one/", 2)
	select {
	case got := <-second:
		t.Fatalf("two hold the lock: %+v", got)
	default:
	}
	if _, err := l.Unlock(ctx, &lockpb.UnlockRequest{Key: first.Key}); err != nil {
		t.Fatal(err)
	}
	got := <-second
	if got.err != nil || got.resp.Rev <= first.Rev || got.resp.Header.Revision <= again.Header.Revision {
		t.Fatalf("the next one: %+v; the token before was %d", got, first.Rev)
	}
	// The lock goes with the lease.
	third := lockLater(ctx, l, &lockpb.LockRequest{Name: name}) // a lease is chosen
	waiters(t, ctx, cl, "locks/one/", 2)
	if _, err := other.Revoke(ctx, clientv3.LeaseID(theirs)); err != nil {
		t.Fatal(err)
	}
	after := <-third
	if after.err != nil || after.resp.Rev <= got.resp.Rev {
		t.Fatalf("after the lease ended: %+v", after)
	}
	// A data node that keeps the largest token it has seen refuses the owner that was, and takes what comes from the present one.
	if first.Rev >= got.resp.Rev || got.resp.Rev >= after.resp.Rev {
		t.Errorf("tokens %d, %d, %d", first.Rev, got.resp.Rev, after.resp.Rev)
	}
	if _, err := l.Lock(ctx, &lockpb.LockRequest{Name: name, Lease: theirs}); grpcstatus.Code(err) != codes.NotFound {
		t.Errorf("a lease that is gone: %v", err)
	}
	if _, err := l.Unlock(ctx, &lockpb.UnlockRequest{Key: after.resp.Key}); err != nil {
		t.Fatal(err)
	}
}

// waiters waits until so many have a key under the prefix.
func waiters(t *testing.T, ctx context.Context, cl *clientv3.Client, prefix string, n int64) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		got, err := cl.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && got.Count != n {
			err = fmt.Errorf("%d keys under %s, want %d", got.Count, prefix, n)
		}
		return err
	})
}

func elections(t *testing.T, ctx context.Context, c *cluster) {
	cl := c.client(c.procs[2].addr)
	e := electionpb.NewElectionClient(cl.ActiveConnection())
	name := []byte("elections/one")
	if _, err := e.Leader(ctx, &electionpb.LeaderRequest{Name: name}); grpcstatus.Convert(err).Message() != "election: no leader" {
		t.Errorf("nobody leads: %v", err)
	}
	observing, end := context.WithCancel(ctx)
	defer end()
	seen, err := e.Observe(observing, &electionpb.LeaderRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	a, err := e.Campaign(ctx, &electionpb.CampaignRequest{Name: name, Lease: granted(t, ctx, cl, 60), Value: []byte("a")})
	if err != nil || a.Leader.Rev == 0 || string(a.Leader.Name) != string(name) {
		t.Fatalf("%v, %v", a, err)
	}
	sees := func(value string) {
		t.Helper()
		if got, err := seen.Recv(); err != nil || string(got.Kv.Value) != value {
			t.Fatalf("observed %v, %v; want %s", got, err, value)
		}
	}
	sees("a")
	if _, err := e.Proclaim(ctx, &electionpb.ProclaimRequest{Leader: a.Leader, Value: []byte("a2")}); err != nil {
		t.Fatal(err)
	}
	sees("a2")
	type won struct {
		resp *electionpb.CampaignResponse
		err  error
	}
	next := make(chan won, 1)
	lease := granted(t, ctx, cl, 60)
	go func() {
		resp, err := e.Campaign(ctx, &electionpb.CampaignRequest{Name: name, Lease: lease, Value: []byte("b")})
		next <- won{resp, err}
	}()
	waiters(t, ctx, cl, "elections/one/", 2)
	if l, err := e.Leader(ctx, &electionpb.LeaderRequest{Name: name}); err != nil || string(l.Kv.Value) != "a2" || l.Kv.CreateRevision != a.Leader.Rev {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := e.Resign(ctx, &electionpb.ResignRequest{Leader: a.Leader}); err != nil {
		t.Fatal(err)
	}
	b := <-next
	if b.err != nil || b.resp.Leader.Rev <= a.Leader.Rev {
		t.Fatalf("%+v", b)
	}
	sees("b")
	if _, err := e.Proclaim(ctx, &electionpb.ProclaimRequest{Leader: a.Leader, Value: []byte("a3")}); grpcstatus.Convert(err).Message() != "election: not leader" {
		t.Errorf("who has resigned proclaims: %v", err)
	}
	if _, err := e.Resign(ctx, &electionpb.ResignRequest{}); grpcstatus.Convert(err).Message() != `"leader" field must be provided` {
		t.Errorf("nothing to resign: %v", err)
	}
}

// concurrently is etcd's own package: sessions, mutexes, elections, and transactions that are tried again.
func concurrently(t *testing.T, ctx context.Context, c *cluster) {
	s1, s2 := opened(t, c.client(c.procs[0].addr)), opened(t, c.client(c.procs[1].addr))
	m1, m2 := concurrency.NewMutex(s1, "mutex"), concurrency.NewMutex(s2, "mutex")
	if err := m1.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m2.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Errorf("it is locked: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- m2.Lock(ctx) }()
	waiters(t, ctx, s1.Client(), "mutex/", 2)
	if err := m1.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	e1, e2 := concurrency.NewElection(s1, "race"), concurrency.NewElection(s2, "race")
	if err := e1.Campaign(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	go func() { done <- e2.Campaign(ctx, "two") }()
	waiters(t, ctx, s1.Client(), "race/", 2)
	if err := s1.Close(); err != nil { // its lease is revoked
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if l, err := e2.Leader(ctx); err != nil || string(l.Kvs[0].Value) != "two" {
		t.Errorf("%v, %v", l, err)
	}
	stm(t, ctx, s2.Client())
}

// stm moves money between accounts from several goroutines; none is lost.
func stm(t *testing.T, ctx context.Context, cl *clientv3.Client) {
	for i := range 4 {
		if _, err := cl.Put(ctx, fmt.Sprintf("account/%d", i), "100"); err != nil {
			t.Fatal(err)
		}
	}
	errs := make(chan error, 4)
	for g := range 4 {
		go func() {
			for i := range 10 {
				from, to := fmt.Sprintf("account/%d", (g+i)%4), fmt.Sprintf("account/%d", (g+i+1)%4)
				_, err := concurrency.NewSTM(cl, func(s concurrency.STM) error {
					var a, b int
					if _, err := fmt.Sscan(s.Get(from), &a); err != nil {
						return err
					}
					if _, err := fmt.Sscan(s.Get(to), &b); err != nil {
						return err
					}
					s.Put(from, fmt.Sprint(a-1))
					s.Put(to, fmt.Sprint(b+1))
					return nil
				}, concurrency.WithAbortContext(ctx))
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	got, err := cl.Get(ctx, "account/", clientv3.WithPrefix())
	sum := 0
	for _, kv := range got.Kvs {
		n := 0
		_, _ = fmt.Sscan(string(kv.Value), &n)
		sum += n
	}
	if err != nil || sum != 400 {
		t.Errorf("%d in all, %v", sum, err)
	}
}

func opened(t *testing.T, cl *clientv3.Client) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(cl, concurrency.WithTTL(10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // it may be closed, or its cluster gone
	return s
}

// lockOverJSON is the same over etcd's paths of the gateway.
func lockOverJSON(t *testing.T, ctx context.Context, c *cluster) {
	post := func(path, body string) map[string]any {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.procs[1].addr+path, bytes.NewBufferString(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		out := map[string]any{}
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v, %v", path, resp.Status, out, err)
		}
		return out
	}
	name := base64.StdEncoding.EncodeToString([]byte("json"))
	lock := post("/v3/lock/lock", `{"name":"`+name+`"}`)
	key, _ := lock["key"].(string)
	if raw, err := base64.StdEncoding.DecodeString(key); err != nil || !bytes.HasPrefix(raw, []byte("json/")) || lock["rev"] == nil {
		t.Errorf("%v", lock)
	}
	post("/v3/lock/unlock", `{"key":"`+key+`"}`)
	won := post("/v3/election/campaign", `{"name":"`+name+`","value":"eA=="}`)
	leader, _ := json.Marshal(won["leader"])
	if l := post("/v3/election/leader", `{"name":"`+name+`"}`); l["kv"] == nil {
		t.Errorf("%v", l)
	}
	post("/v3/election/resign", `{"leader":`+string(leader)+`}`)
}
