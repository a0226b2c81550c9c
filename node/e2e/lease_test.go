package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/lockpb"
)

// etcd's Lease service, as its client sees it, whichever node is asked: all of it, and what is refused.
func TestLeasesOfAnEtcdClient(t *testing.T) {
	c := startCluster(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, p := range c.procs { // one leads; the others ask it
		leasesAt(t, ctx, c, c.client(p.addr))
	}
}

func leasesAt(t *testing.T, ctx context.Context, c *cluster, cl *clientv3.Client) {
	t.Helper()
	// Any id, and one of its own. A TTL that is too short is made longer; one that is too long is refused.
	g, err := cl.Grant(ctx, 1)
	if err != nil || g.ID <= 0 || g.TTL != 2 {
		t.Fatalf("grant: %+v, %v", g, err)
	}
	own := clientv3.LeaseID(0x7a11)
	if l, err := pb.NewLeaseClient(cl.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(own), TTL: 60}); err != nil || l.ID != int64(own) || l.TTL != 60 {
		t.Fatalf("grant of an id: %+v, %v", l, err)
	}
	if _, err := pb.NewLeaseClient(cl.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(own), TTL: 60}); rpctypes.Error(err) != rpctypes.ErrLeaseExist {
		t.Errorf("granted twice: %v", err)
	}
	if _, err := cl.Grant(ctx, 9_000_000_001); err != rpctypes.ErrLeaseTTLTooLarge {
		t.Errorf("a TTL that is too long: %v", err)
	}
	// Keys go with their lease; one that was written again without it stays.
	var last int64
	for _, k := range []string{"l/a", "l/b", "l/c"} {
		resp, err := cl.Put(ctx, k, "v", clientv3.WithLease(own))
		if err != nil {
			t.Fatal(err)
		}
		last = resp.Header.Revision
	}
	if _, err := cl.Put(ctx, "l/b", "mine"); err != nil {
		t.Fatal(err)
	}
	ttl, err := cl.TimeToLive(ctx, own, clientv3.WithAttachedKeys())
	if err != nil || ttl.GrantedTTL != 60 || ttl.TTL > 60 || ttl.TTL < 50 || len(ttl.Keys) != 2 || string(ttl.Keys[0]) != "l/a" || string(ttl.Keys[1]) != "l/c" {
		t.Errorf("time to live: %+v, %v", ttl, err)
	}
	leases, err := cl.Leases(ctx)
	if err != nil || !slices.Contains(leases.Leases, clientv3.LeaseStatus{ID: own}) {
		t.Errorf("leases: %+v, %v", leases, err)
	}
	if ka, err := cl.KeepAliveOnce(ctx, own); err != nil || ka.TTL != 60 || ka.Revision < last {
		t.Errorf("keep alive: %+v, %v; the last write was at %d", ka, err, last)
	}
	rev, err := cl.Revoke(ctx, own)
	if err != nil || rev.Header.Revision != last+2 { // one revision for both keys
		t.Errorf("revoke: %+v, %v; the last write with the lease was at %d", rev, err, last)
	}
	if got, err := cl.Get(ctx, "l/", clientv3.WithPrefix()); err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Key) != "l/b" || got.Kvs[0].Lease != 0 {
		t.Errorf("what is left: %v, %v", got, err)
	}
	// A lease that is gone.
	if _, err := cl.Revoke(ctx, own); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("revoked twice: %v", err)
	}
	if _, err := cl.KeepAliveOnce(ctx, own); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("kept alive when gone: %v", err)
	}
	if ttl, err := cl.TimeToLive(ctx, own); err != nil || ttl.TTL != -1 {
		t.Errorf("time to live of none: %+v, %v", ttl, err)
	}
	if _, err := cl.Put(ctx, "l/d", "v", clientv3.WithLease(own)); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("put with none: %v", err)
	}
	if _, err := cl.Delete(ctx, "l/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
}

// life measures when the key of a lease goes.
type life struct {
	t    *testing.T
	cl   *clientv3.Client
	key  string
	id   clientv3.LeaseID
	last time.Time // when the lease was granted or kept alive last, before it was asked for
}

func begin(t *testing.T, ctx context.Context, cl *clientv3.Client, key string, ttl int64) *life {
	t.Helper()
	l := &life{t: t, cl: cl, key: key, last: time.Now()}
	g, err := cl.Grant(ctx, ttl)
	if err != nil {
		t.Fatal(err)
	}
	l.id = g.ID
	if _, err := cl.Put(ctx, key, "v", clientv3.WithLease(g.ID)); err != nil {
		t.Fatal(err)
	}
	return l
}

// there says whether the key is.
func (l *life) there(ctx context.Context) bool {
	l.t.Helper()
	got, err := l.cl.Get(ctx, l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	return len(got.Kvs) > 0
}

// ends waits until the key is gone, and returns how long after the last keep-alive that was at the earliest and the latest.
func (l *life) ends(ctx context.Context, limit time.Duration) (least, most time.Duration) {
	l.t.Helper()
	eventually(l.t, limit, func() error {
		before := time.Now()
		if l.there(ctx) {
			least = before.Sub(l.last)
			return errors.New(l.key + " is there")
		}
		most = time.Since(l.last)
		return nil
	})
	return least, most
}

// A lease that nobody keeps alive ends on time, and not before, whatever happens to the leader of its home meanwhile.
func TestLeasesEndOnTimeAndNotBefore(t *testing.T) {
	c := startCluster(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	defer cancel()
	cl := c.client()
	const ttl = 3 * time.Second
	seconds := int64(ttl / time.Second)

	// On time: unless its home's leadership moves meanwhile, which gives it the whole TTL again, as in a cluster that was just made.
	var late time.Duration
	for try := range 5 {
		l := begin(t, ctx, cl, fmt.Sprintf("undisturbed %d", try), seconds)
		least, most := l.ends(ctx, 3*ttl)
		if most < ttl {
			t.Errorf("undisturbed it ended after %s; its TTL is %s", most, ttl)
		}
		if late = least - ttl; late < time.Second {
			t.Logf("undisturbed: between %s and %s late", least-ttl, most-ttl)
			break
		}
		t.Logf("undisturbed: at least %s late; the leader may have changed: once more", late)
	}
	if late > time.Second {
		t.Errorf("undisturbed it was at least %s late, again and again", late)
	}

	// A leader that is paused for longer than the TTL expires nothing when it goes on: it has another successor, who gives the
	// whole TTL, or it gives the time back.
	for _, away := range []time.Duration{ttl / 2, 2 * ttl} {
		l := begin(t, ctx, cl, fmt.Sprintf("paused %s", away), seconds)
		pause(c.leader(), away)
		least, most := l.ends(ctx, 5*ttl)
		if most < ttl || least > away+2*ttl+5*time.Second {
			t.Errorf("a leader was paused for %s: ended between %s and %s", away, least, most)
		}
		t.Logf("paused %s: ended between %s and %s after the grant", away, least, most)
	}

	killed := begin(t, ctx, cl, "killed", seconds)
	p := c.leader()
	p.kill()
	least, most := killed.ends(ctx, 10*ttl)
	if most < ttl || least > 2*ttl+8*time.Second {
		t.Errorf("its leader killed: ended between %s and %s", least, most)
	}
	t.Logf("killed: ended between %s and %s after the grant", least, most)
	p.start()
	c.waitReplicated(3)

	// All of them: the lease is there when they are back, with its whole TTL.
	restarted := begin(t, ctx, cl, "restarted", seconds)
	for _, p := range c.procs {
		p.kill()
	}
	for _, p := range c.procs {
		p.start()
	}
	back := time.Now()
	least, most = restarted.ends(ctx, 60*time.Second)
	if most < ttl {
		t.Errorf("all were started again: ended after %s", most)
	}
	if _, err := cl.TimeToLive(ctx, restarted.id); err != nil {
		t.Error(err)
	}
	t.Logf("restarted: ended between %s and %s after the grant, %s after the start", least, most, time.Since(back))
}

// A keep-alive is answered that a lease has ended only when none of its keys can be read any more, whichever node is asked, and as soon as its
// time is over: then its end is decided, and not done yet.
func TestKeepAliveSaysGoneWhenTheKeysAre(t *testing.T) {
	c := startCluster(t, 3)
	c.sharded("shards", "g", "p")
	var clients []*clientv3.Client
	for _, p := range c.procs {
		clients = append(clients, c.client(p.addr))
	}
	for _, keyspace := range []string{"default", "shards"} {
		t.Run(keyspace, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(withKeyspace(context.Background(), keyspace), 100*time.Second)
			defer cancel()
			var ends sync.WaitGroup
			defer ends.Wait()
			for i := range 60 {
				ends.Go(func() { endsWithItsKeys(t, ctx, clients[i%3], clients[(i+1)%3], fmt.Sprintf("/%d", i)) })
			}
		})
	}
}

// endsWithItsKeys asks for a lease as soon as its time is over.
func endsWithItsKeys(t *testing.T, ctx context.Context, cl, other *clientv3.Client, suffix string) {
	g, err := cl.Grant(ctx, 2)
	if err != nil {
		t.Error(err)
		return
	}
	over := time.NewTimer(time.Duration(g.TTL) * time.Second)
	defer over.Stop()
	keys := []string{"a" + suffix, "h" + suffix, "q" + suffix} // in the three ranges of shards
	for _, key := range keys {
		if _, err := cl.Put(ctx, key, "v", clientv3.WithLease(g.ID)); err != nil {
			t.Errorf("%s: %v", key, err)
			return
		}
	}
	<-over.C
	for {
		ka, err := cl.KeepAliveOnce(ctx, g.ID)
		switch {
		case err == nil: // a moment too soon
			over.Reset(time.Duration(ka.TTL) * time.Second)
			<-over.C
			continue
		case err != rpctypes.ErrLeaseNotFound:
			t.Errorf("lease %x: %v", g.ID, err)
		}
		break
	}
	for _, key := range keys {
		if got, err := other.Get(ctx, key); err != nil || len(got.Kvs) > 0 {
			t.Errorf("lease %x has ended, and of %s there is %v, %v", g.ID, key, got.Kvs, err)
		}
	}
}

// In a sharded keyspace a lease holds keys in several ranges, wherever they are cut and put together meanwhile; all go with it, and none of
// another lease does.
func TestLeasesOverRanges(t *testing.T) {
	c := startCluster(t, 3)
	c.sharded("shards", "g", "p")
	ctx, cancel := context.WithTimeout(withKeyspace(context.Background(), "shards"), 150*time.Second)
	defer cancel()
	cl, other := c.client(c.procs[0].addr), c.client(c.procs[1].addr)
	home := clientv3.LeaseID(int64('h')<<56 | 5) // it lives between g and p
	if _, err := pb.NewLeaseClient(cl.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(home), TTL: 120}); err != nil {
		t.Fatal(err)
	}
	stays, err := other.Grant(ctx, 120)
	if err != nil {
		t.Fatal(err)
	}
	put := func(id clientv3.LeaseID, keys ...string) {
		t.Helper()
		for i, k := range keys {
			if _, err := []*clientv3.Client{cl, other}[i%2].Put(ctx, k, "v", clientv3.WithLease(id)); err != nil {
				t.Fatalf("%s: %v", k, err)
			}
		}
	}
	holds := func(id clientv3.LeaseID, want ...string) {
		t.Helper()
		ttl, err := other.TimeToLive(ctx, id, clientv3.WithAttachedKeys())
		var got []string
		if err == nil {
			for _, k := range ttl.Keys {
				got = append(got, string(k))
			}
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("it holds %s, %v; want %s", got, err, want)
		}
	}
	put(home, "a1", "h1", "q1")
	put(stays.ID, "a9", "h9", "q9")
	holds(home, "a1", "h1", "q1")
	c.cutAt("shards", "d") // a guest's range
	put(home, "a2", "e2")
	c.cutAt("shards", "i") // its home, of which it keeps the left part
	put(home, "h2", "j2")
	c.cutAt("shards", "h") // and now it keeps the right part
	put(home, "g3", "h3")
	holds(home, "a1", "a2", "e2", "g3", "h1", "h2", "h3", "j2", "q1")
	for _, key := range []string{"d", "g"} { // r[d, g) takes over r[g, h), and r[a, d) is left
		if _, err := c.verb("range", "merge", "--keyspace", "shards", "--key", key); err != nil {
			t.Fatalf("merge at %s: %v", key, err)
		}
	}
	put(home, "f4", "g4", "h4")
	if ka, err := other.KeepAliveOnce(ctx, home); err != nil || ka.TTL != 120 {
		t.Errorf("%+v, %v", ka, err)
	}
	leases, err := cl.Leases(ctx)
	if err != nil || len(leases.Leases) != 2 {
		t.Errorf("%+v, %v", leases, err)
	}
	if _, err := other.Put(ctx, "a1", "of nobody"); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Revoke(ctx, home); err != nil {
		t.Fatal(err)
	}
	got, err := cl.Get(ctx, "\x00", clientv3.WithFromKey())
	var left []string
	for _, kv := range got.Kvs {
		left = append(left, string(kv.Key))
	}
	if want := []string{"a1", "a9", "h9", "q9"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left are %s, %v; want %s", left, err, want)
	}
	for _, k := range []string{"a5", "h5", "q5"} {
		if _, err := other.Put(ctx, k, "v", clientv3.WithLease(home)); err != rpctypes.ErrLeaseNotFound {
			t.Errorf("%s: %v", k, err)
		}
	}
	// A short one ends by itself in all of them; in default there is none of these.
	short := begin(t, ctx, cl, "b/short", 2)
	put(short.id, "k/short", "z/short")
	short.ends(ctx, 20*time.Second)
	eventually(t, 10*time.Second, func() error { // the ranges are visited one after the other
		for _, k := range []string{"k/short", "z/short"} {
			if got, err := cl.Get(ctx, k); err != nil || len(got.Kvs) > 0 {
				return fmt.Errorf("%s: %v, %v", k, got, err)
			}
		}
		return nil
	})
	if leases, err := cl.Leases(context.Background()); err != nil || len(leases.Leases) != 0 {
		t.Errorf("in default: %+v, %v", leases, err)
	}
	lockOverRanges(t, ctx, c, cl, other)
}

// lockOverRanges is a lock of a sharded keyspace: it goes over from one owner to the next, and nobody comes in while its keys are cut
// from each other, for revisions of two ranges say nothing of who came first.
func lockOverRanges(t *testing.T, ctx context.Context, c *cluster, cl, other *clientv3.Client) {
	t.Helper()
	l, l2, name := lockpb.NewLockClient(cl.ActiveConnection()), lockpb.NewLockClient(other.ActiveConnection()), []byte("lock")
	first, err := l.Lock(ctx, &lockpb.LockRequest{Name: name, Lease: granted(t, ctx, cl, 60)})
	if err != nil {
		t.Fatal(err)
	}
	next := lockLater(ctx, l2, &lockpb.LockRequest{Name: name, Lease: granted(t, ctx, other, 60)})
	waiters(t, ctx, cl, "lock/", 2)
	c.cutAt("shards", "lock/5")
	if _, err := l2.Lock(ctx, &lockpb.LockRequest{Name: name, Lease: granted(t, ctx, other, 60)}); grpcstatus.Code(err) != codes.FailedPrecondition {
		t.Errorf("its keys lie in two ranges: %v", err)
	}
	if _, err := l.Unlock(ctx, &lockpb.UnlockRequest{Key: first.Key}); err != nil {
		t.Fatal(err)
	}
	second := <-next // it came before
	if second.err != nil || second.resp.Rev <= first.Rev {
		t.Fatalf("%+v after %d", second, first.Rev)
	}
	if _, err := c.verb("range", "merge", "--keyspace", "shards", "--key", "lock"); err != nil {
		t.Fatal(err)
	}
	last := lockLater(ctx, l, &lockpb.LockRequest{Name: name, Lease: granted(t, ctx, cl, 60)})
	waiters(t, ctx, cl, "lock/", 2)
	if _, err := l.Unlock(ctx, &lockpb.UnlockRequest{Key: second.resp.Key}); err != nil {
		t.Fatal(err)
	}
	if third := <-last; third.err != nil || third.resp.Rev <= second.resp.Rev {
		t.Errorf("%+v after %d", third, second.resp.Rev)
	}
}

// A lease that is kept alive lives on over all of that.
func TestKeptAliveLeasesLiveOn(t *testing.T) {
	c := startCluster(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	cl := c.client()
	l := begin(t, ctx, cl, "kept", 5)
	answers, err := cl.KeepAlive(ctx, l.id)
	if err != nil {
		t.Fatal(err)
	}
	pause(c.leader(), 3*time.Second)
	p := c.leader()
	p.kill()
	p.start()
	c.waitReplicated(3)
	for end := time.Now().Add(7 * time.Second); time.Now().Before(end); {
		select {
		case a, ok := <-answers:
			if !ok || a.TTL != 5 {
				t.Fatalf("the lease was lost: %+v", a)
			}
		case <-ctx.Done():
			t.Fatal("no answers any more")
		}
	}
	if !l.there(ctx) {
		t.Error("the key of a lease that was kept alive is gone")
	}
}
