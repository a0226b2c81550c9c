package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A lease that holds many keys, among others, ends as one of few does: all go in one revision, a watch is told of each with what was there,
// every replica comes to the same, and none comes back with a restart.
func TestLeaseOfManyKeysEnds(t *testing.T) {
	const keys = 2000
	c := startCluster(t, 3)
	cl := c.client()
	ctx := in(t, "default")
	lease, err := cl.Grant(ctx, 600)
	mustDo(t, err)
	var ops []clientv3.Op
	for i := range keys {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("many/%05d", i), fmt.Sprint(i), clientv3.WithLease(lease.ID)))
		if i%3 == 0 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("many/%05d/other", i), "stays"))
		}
	}
	var last int64
	for some := range slices.Chunk(ops, 100) {
		resp, err := cl.Txn(ctx).Then(some...).Commit()
		mustDo(t, err)
		last = resp.Header.Revision
	}
	watching, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	events := cl.Watch(watching, "many/", clientv3.WithPrefix(), clientv3.WithRev(last+1), clientv3.WithPrevKV())
	revoked, err := cl.Revoke(ctx, lease.ID)
	mustDo(t, err)
	for told := 0; told < keys; {
		resp, ok := <-events
		if !ok || resp.Err() != nil {
			t.Fatalf("the watch ended after %d: %v", told, resp.Err())
		}
		for _, ev := range resp.Events {
			if key := fmt.Sprintf("many/%05d", told); ev.Type != clientv3.EventTypeDelete || string(ev.Kv.Key) != key || ev.Kv.ModRevision != revoked.Header.Revision ||
				ev.PrevKv == nil || string(ev.PrevKv.Value) != fmt.Sprint(told) || ev.PrevKv.Lease != int64(lease.ID) {
				t.Fatalf("event %d is %s of %q at %d, after %v; the lease ended at %d", told, ev.Type, ev.Kv.Key, ev.Kv.ModRevision, ev.PrevKv, revoked.Header.Revision)
			}
			told++
		}
	}
	c.procs[1].kill()
	c.procs[1].start()
	hashes := map[uint32]bool{}
	for _, p := range c.procs {
		c.eventually(30*time.Second, func() error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			h, err := cl.HashKV(ctx, p.addr, revoked.Header.Revision)
			if err == nil {
				hashes[h.Hash] = true
			}
			return err
		})
	}
	if len(hashes) != 1 {
		t.Errorf("the members differ: %v", hashes)
	}
	left, err := cl.Get(ctx, "many/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	mustDo(t, err)
	if left.Count != (keys+2)/3 {
		t.Errorf("%d keys are left", left.Count)
	}
	c.cairn("debug", "check")
}
