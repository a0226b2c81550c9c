package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
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
