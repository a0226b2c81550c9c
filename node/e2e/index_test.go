package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cairndb/cairn/client"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
)

// The index is a sharded keyspace as any: cut into ranges it goes on serving, a keyspace's entries may lie in several of them, and
// they are put together again. A node that is killed meanwhile, and a client with no cache, find
// everything.
func TestIndexInRanges(t *testing.T) {
	c := startCluster(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cl := c.goClient()
	rec, err := cl.CreateKeyspace(ctx, "shards", false)
	mustDo(t, err)
	ks := base.KeyspaceID(rec.KeyspaceId)
	cutHere := func(keyspace, key string) {
		t.Helper()
		if _, _, err := cl.SplitRange(ctx, keyspace, key); err != nil {
			t.Fatalf("cutting %s at %q: %v", keyspace, key, err)
		}
	}
	cutHere("meta", string(route.IndexKey(ks, []byte("k5")))) // the entries of shards lie on both sides
	cutHere("meta", string(route.IndexKey(base.KeyspaceSys, nil)))
	if _, _, err := cl.SplitRange(ctx, "sys", "node/"); err == nil {
		t.Error("sys was cut between what changes in one transaction")
	}
	for i := range 9 {
		cutHere("shards", fmt.Sprintf("k%d", i+1))
	}
	kv := cl.Keyspace("shards")
	for i := range 100 {
		_, err := kv.Put(ctx, fmt.Sprintf("k%02d", i), []byte("v"))
		mustDo(t, err)
	}
	for range 3 {
		_, err := cl.MergeRange(ctx, "shards", "k45") // over the cut of the index, too: k5's entry is another range's there
		mustDo(t, err)
	}
	victim := c.mostLed()
	victim.kill()
	c.eventually(30*time.Second, func() error {
		cold := c.goClient(c.alive()[0].addr)
		n, _, err := cold.Keyspace("shards").Count(ctx, client.All())
		if err == nil && n != 100 {
			err = fmt.Errorf("%d keys of 100", n)
		}
		return err
	})
	if _, err := c.goClient(c.alive()[0].addr).CreateKeyspace(ctx, "another", false); err != nil {
		t.Errorf("making a keyspace while a node is down: %v", err)
	}
	victim.start()
	c.mostLed()
	for range 2 {
		c.eventually(30*time.Second, func() error {
			_, err := cl.MergeRange(ctx, "meta", "\x00")
			return err
		})
	}
	c.settled(30*time.Second, "meta", 1)
	c.settled(30*time.Second, "shards", 7)
	c.eventually(30*time.Second, func() error {
		if found, code := c.check(); code != 0 {
			return fmt.Errorf("the check ends with %d: %+v", code, found)
		}
		return nil
	})
}
