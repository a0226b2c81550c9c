package cairntest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cairndb/cairn/cairntest"
	"github.com/cairndb/cairn/client"
)

// Nothing that a test started runs on after it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// A cluster of each size serves both clients as soon as Start returns.
func TestStart(t *testing.T) {
	for _, n := range []int{1, 3} {
		began := time.Now()
		c := cairntest.Start(t, n)
		t.Logf("%d nodes in %s", n, time.Since(began).Round(time.Millisecond))
		if len(c.Endpoints()) != n {
			t.Errorf("%d nodes: %s", n, c)
		}
		if _, err := c.Client().Put(testContext(t), "k", []byte("v")); err != nil {
			t.Error(err)
		}
		etcd, err := clientv3.New(c.EtcdConfig())
		if err != nil {
			t.Fatal(err)
		}
		if r, err := etcd.Get(testContext(t), "k"); err != nil || r.Count != 1 {
			t.Errorf("%v, %v", r, err)
		}
		if err := etcd.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A node that is killed at once is missed by nobody, and what was written is there when it is back; so it is with one that is stopped.
func TestKill(t *testing.T) {
	c := cairntest.Start(t, 3)
	ctx, cl := testContext(t), c.Client()
	for _, end := range []func(int){c.Kill, c.Stop} {
		gone := c.Leader("default", "k")
		before, err := cl.Put(ctx, "k", []byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		end(gone)
		for {
			rev, err := cl.Put(ctx, "k", []byte("after"))
			if errors.As(err, new(*client.Ambiguous)) {
				continue // it was under way as the leader went
			}
			if err != nil || rev <= before {
				t.Fatalf("%d after %d: %v", rev, before, err)
			}
			break
		}
		if c.Leader("default", "k") == gone {
			t.Error("a node that was ended leads")
		}
		c.Restart(gone)
		kv, found, err := cl.Get(ctx, "k")
		if err != nil || !found || string(kv.Value) != "after" {
			t.Errorf("%v, %v, %v", kv, found, err)
		}
	}
}

// What cannot be is said at once.
func TestConfig(t *testing.T) {
	for _, n := range []int{-1, 0, 10} {
		if err := (&cairntest.Config{Nodes: n}).Validate(); err == nil {
			t.Errorf("%d nodes", n)
		}
	}
}
