package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// follow checks that a watch of everything under a prefix shows puts of 0, 1, 2, … each once and in order.
type follow struct {
	*watched
	next int
}

func (f *follow) upTo(n int) {
	f.t.Helper()
	for f.next < n {
		r := f.watched.next()
		if err := r.Err(); err != nil {
			f.t.Fatal(err)
		}
		for _, e := range r.Events {
			if want := fmt.Sprint(f.next); string(e.Kv.Value) != want {
				f.t.Fatalf("got %s=%s, want %s", e.Kv.Key, e.Kv.Value, want)
			}
			f.next++
		}
	}
}

// TestWatchFaults: watches go on, each event once and in order, while the leader is killed and comes again, over split and merge.
func TestWatchFaults(t *testing.T) {
	c := startCluster(t, 3)
	c.sharded("shards")
	for _, keyspace := range []string{"default", "shards"} {
		t.Run(keyspace, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			defer cancel()
			if keyspace != "default" {
				ctx = withKeyspace(ctx, keyspace)
			}
			cl := c.client()
			f := &follow{watched: &watched{t, cl.Watch(ctx, "f/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())}}
			f.created()
			n := 0
			put := func(many int) {
				t.Helper()
				for range many {
					eventually(t, 20*time.Second, func() error { // what failed may have been done: each value has its key, and is put once
						key := fmt.Sprintf("f/%d/%06d", n%10, n)
						_, err := cl.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, fmt.Sprint(n))).Commit()
						return err
					})
					n++
				}
				f.upTo(n)
			}
			put(50)
			if keyspace != "default" {
				c.cutAt(keyspace, "f/3")
				put(50)
				c.cutAt(keyspace, "f/7")
				put(50)
			}
			p := c.leader()
			p.kill()
			put(50)
			p.start()
			put(50)
			if keyspace != "default" {
				for range 2 {
					c.eventually(30*time.Second, func() error {
						_, err := c.verb("range", "merge", "--keyspace", keyspace, "--key", "f/0")
						return err
					})
					put(50)
				}
			}
			// And once more from the beginning, by whoever has it.
			again := &follow{watched: &watched{t, cl.Watch(ctx, "f/", clientv3.WithPrefix(), clientv3.WithRev(1))}}
			again.upTo(n)
		})
	}
}
