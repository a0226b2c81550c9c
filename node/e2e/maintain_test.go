package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A node whose store is above its quota raises an alarm; then no gateway of the cluster takes data any more, and each goes on taking what
// makes room. When there is room the alarm is taken back by hand.
func TestQuota(t *testing.T) {
	const quota = 64 << 20
	c := startCluster(t, 3, "--quota-backend-bytes", fmt.Sprint(quota))
	cl := c.client()
	ctx := in(t, "default")
	value := make([]byte, 256<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(value) // never fails; what is regular would be compressed to nothing
	var full error
	for i := 0; full == nil && i < 600; i++ {
		_, full = cl.Put(ctx, fmt.Sprint("full/", i%10), string(value))
	}
	if !errors.Is(full, rpctypes.ErrNoSpace) {
		t.Fatalf("writing without end ends with %v", full)
	}
	for _, p := range c.procs {
		one := c.client(p.addr)
		c.eventually(10*time.Second, func() error {
			if _, err := one.Put(ctx, "k", "v"); !errors.Is(err, rpctypes.ErrNoSpace) {
				return fmt.Errorf("%s takes a put: %v", p.name, err)
			}
			return nil
		})
		if _, err := one.Txn(ctx).Then(clientv3.OpPut("k", "v")).Commit(); !errors.Is(err, rpctypes.ErrNoSpace) {
			t.Errorf("%s: a txn that puts: %v", p.name, err)
		}
		if _, err := one.Txn(ctx).Then(clientv3.OpDelete("k")).Commit(); err != nil {
			t.Errorf("%s: a txn that deletes: %v", p.name, err)
		}
		if _, err := one.Get(ctx, "full/1"); err != nil {
			t.Errorf("%s: a get: %v", p.name, err)
		}
	}
	alarms, err := cl.AlarmList(ctx)
	if err != nil || len(alarms.Alarms) == 0 || alarms.Alarms[0].Alarm != etcdserverpb.AlarmType_NOSPACE {
		t.Fatalf("%v, %v", alarms, err)
	}
	if code, said, err := page(c.procs[0], "/health"); err != nil || code != 503 || !strings.Contains(said, "ALARM NOSPACE") {
		t.Errorf("/health: %d %q %v", code, said, err)
	}
	makeRoom(t, c, cl, ctx, quota)
	c.eventually(20*time.Second, func() error {
		if _, err := cl.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
			return err
		}
		for _, p := range c.procs {
			if _, err := c.client(p.addr).Put(ctx, "k", "v"); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
		return nil
	})
}

// makeRoom deletes, compacts and defragments until every node's store is below its quota again.
func makeRoom(t *testing.T, c *cluster, cl *clientv3.Client, ctx context.Context, quota int64) {
	t.Helper()
	gone, err := cl.Delete(ctx, "full/", clientv3.WithPrefix())
	if err != nil || gone.Deleted != 10 {
		t.Fatalf("%v, %v", gone, err)
	}
	if _, err := cl.Compact(ctx, gone.Header.Revision); err != nil {
		t.Fatal(err)
	}
	c.eventually(60*time.Second, func() error {
		for _, p := range c.procs {
			if _, err := cl.Defragment(ctx, p.addr); err != nil {
				return err
			}
			st, err := cl.Status(ctx, p.addr)
			if err != nil {
				return err
			}
			if st.DbSizeQuota != quota || len(st.Errors) == 0 {
				return fmt.Errorf("%s: quota %d, errors %v", p.name, st.DbSizeQuota, st.Errors)
			}
			if st.DbSize > quota {
				return fmt.Errorf("%s still has %d bytes", p.name, st.DbSize)
			}
		}
		return nil
	})
}

// An alarm that a person raises counts on every node and over restarts, until it is taken back; CORRUPT forbids every write.
func TestAlarmByHand(t *testing.T) {
	c := startCluster(t, 3)
	cl := c.client()
	ctx := in(t, "default")
	raise := func(action etcdserverpb.AlarmRequest_AlarmAction) {
		t.Helper()
		if _, err := etcdserverpb.NewMaintenanceClient(cl.ActiveConnection()).Alarm(ctx, &etcdserverpb.AlarmRequest{
			Action: action, MemberID: 2, Alarm: etcdserverpb.AlarmType_CORRUPT}); err != nil {
			t.Fatal(err)
		}
	}
	raise(etcdserverpb.AlarmRequest_ACTIVATE)
	raise(etcdserverpb.AlarmRequest_ACTIVATE) // it may be repeated
	c.procs[2].kill()
	c.procs[2].start()
	for _, p := range c.procs {
		one := c.client(p.addr)
		c.eventually(20*time.Second, func() error {
			_, errPut := one.Put(ctx, "k", "v")
			_, errDel := one.Delete(ctx, "k")
			_, errCompact := one.Compact(ctx, 1)
			for _, err := range []error{errPut, errDel, errCompact} {
				if !errors.Is(err, rpctypes.ErrCorrupt) {
					return fmt.Errorf("%s: %w", p.name, err)
				}
			}
			return nil
		})
		if _, err := one.Get(ctx, "k"); err != nil {
			t.Errorf("%s: a get: %v", p.name, err)
		}
	}
	if code, said, err := page(c.procs[0], "/readyz"); err != nil || code != 503 || !strings.Contains(said, "data_corruption failed") {
		t.Errorf("/readyz: %d %q %v", code, said, err)
	}
	raise(etcdserverpb.AlarmRequest_DEACTIVATE)
	c.eventually(10*time.Second, func() error {
		for _, p := range c.procs {
			if _, err := c.client(p.addr).Put(ctx, "k", "v"); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
		return nil
	})
}

// With automatic compaction history is kept for about as long as was asked, in single and in sharded keyspaces, and what is current stays.
func TestAutoCompaction(t *testing.T) {
	c := startCluster(t, 3, "--auto-compaction-retention", "2s")
	c.cairn("keyspace", "create", "shards", "--sharded")
	c.cairn("range", "split", "--keyspace", "shards", "--key", "m")
	cl := c.client()
	for _, ks := range []string{"default", "shards"} {
		ctx := in(t, ks)
		first, err := cl.Put(ctx, "a", "one")
		mustDo(t, err)
		_, err = cl.Put(ctx, "z", "one")
		mustDo(t, err)
		began := time.Now()
		_, err = cl.Put(ctx, "a", "two")
		mustDo(t, err)
		if resp, err := cl.Get(ctx, "a", clientv3.WithRev(first.Header.Revision)); err == nil && string(resp.Kvs[0].Value) != "one" ||
			err != nil && time.Since(began) < time.Second {
			t.Errorf("%s: %v, %v", ks, resp, err)
		}
		c.eventually(30*time.Second, func() error {
			if _, err := cl.Get(ctx, "a", clientv3.WithRev(first.Header.Revision)); !errors.Is(err, rpctypes.ErrCompacted) {
				return fmt.Errorf("%s: history is still there: %v", ks, err)
			}
			return nil
		})
		if took := time.Since(began); took < 2*time.Second-200*time.Millisecond {
			t.Errorf("%s: history was kept for %s", ks, took)
		}
		resp, err := cl.Get(ctx, "", clientv3.WithPrefix())
		if err != nil || len(resp.Kvs) != 2 || string(resp.Kvs[0].Value) != "two" || string(resp.Kvs[1].Value) != "one" {
			t.Errorf("%s: %v, %v", ks, resp, err)
		}
	}
}

// All members answer with the same hash at every revision that is kept: over a lease's revoke, after a
// compaction, while its removal goes on, and after a restart.
func TestHashKVAgrees(t *testing.T) {
	c := startCluster(t, 3)
	cl := c.client()
	ctx := in(t, "default")
	var revisions []int64
	for i := range 300 {
		resp, err := cl.Put(ctx, fmt.Sprint("k", i%17), fmt.Sprint(i))
		mustDo(t, err)
		if i%50 == 7 {
			del, err := cl.Delete(ctx, fmt.Sprint("k", i%17))
			mustDo(t, err)
			revisions = append(revisions, resp.Header.Revision, del.Header.Revision)
		}
	}
	agree := func(when string, revisions []int64) {
		t.Helper()
		for _, rev := range append(revisions, 0) {
			seen := map[string][]string{}
			for _, p := range c.procs {
				h, err := cl.HashKV(ctx, p.addr, rev)
				if err != nil {
					t.Fatalf("%s: %s at %d: %v", when, p.name, rev, err)
				}
				what := fmt.Sprint(h.Hash, h.CompactRevision, h.HashRevision)
				seen[what] = append(seen[what], p.name)
			}
			if len(seen) != 1 {
				t.Errorf("%s: at %d: %v", when, rev, seen)
			}
		}
	}
	lease, err := cl.Grant(ctx, 600)
	mustDo(t, err)
	for i := range 5 {
		resp, err := cl.Put(ctx, fmt.Sprint("leased", i), "v", clientv3.WithLease(lease.ID))
		mustDo(t, err)
		revisions = append(revisions, resp.Header.Revision)
	}
	revoked, err := cl.Revoke(ctx, lease.ID)
	mustDo(t, err)
	revisions = append(revisions, revoked.Header.Revision)
	agree("at first, with a lease revoked", revisions)
	mark := revisions[5]
	_, err = cl.Compact(ctx, mark)
	mustDo(t, err)
	kept := revisions[5:]
	agree("right after a compaction", kept)
	c.procs[1].kill()
	c.procs[1].start()
	c.eventually(30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := cl.HashKV(ctx, c.procs[1].addr, 0)
		return err
	})
	agree("after a restart", kept)
	for _, p := range c.procs {
		_, err := cl.Defragment(ctx, p.addr)
		mustDo(t, err)
	}
	agree("after a defragmentation", kept)
}
