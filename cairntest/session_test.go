package cairntest_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cairndb/cairn/cairntest"
	"github.com/cairndb/cairn/client"
)

// A session's keys last as long as it does, over the loss of the leader; and go with it.
func TestSession(t *testing.T) {
	cluster := cairntest.Start(t, 3)
	ctx, c := testContext(t), cluster.Client()
	s, err := c.NewSession(ctx, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutLeased(ctx, "here", []byte("v"), s.Lease().ID); err != nil {
		t.Fatal(err)
	}
	st, err := c.TimeToLive(ctx, s.Lease().ID, true)
	if err != nil || st.TTL != 3*time.Second || !slices.Equal(st.Keys, []string{"here"}) {
		t.Errorf("%+v, %v", st, err)
	}
	ids, err := c.Leases(ctx)
	if err != nil || !slices.Equal(ids, []int64{s.Lease().ID}) {
		t.Errorf("%v, %v", ids, err)
	}
	cluster.Kill(cluster.Leader("default", "here"))
	lives := time.NewTimer(4 * time.Second) // more than its TTL
	defer lives.Stop()
	select {
	case <-s.Done():
		t.Fatal(s.Err())
	case <-lives.C:
	}
	if _, found, err := c.Get(ctx, "here"); err != nil || !found {
		t.Errorf("the key is gone: %v", err)
	}
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if _, found, err := c.Get(ctx, "here"); err != nil || found {
		t.Errorf("the key is there: %v", err)
	}
	if _, err := c.TimeToLive(ctx, s.Lease().ID, false); !errors.Is(err, client.ErrLeaseNotFound) {
		t.Error(err)
	}
	if _, err := c.PutLeased(ctx, "here", nil, s.Lease().ID); !errors.Is(err, client.ErrLeaseNotFound) {
		t.Error(err)
	}
}

func mustSession(t *testing.T, ctx context.Context, c *client.Client) *client.Session {
	t.Helper()
	s, err := c.NewSession(ctx, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Orphan)
	return s
}

// One session has the lock at a time, and the tokens grow.
func TestTryLock(t *testing.T) {
	ctx := testContext(t)
	c := cairntest.Start(t, 1).Client()
	a, b := mustSession(t, ctx, c).Mutex("m"), mustSession(t, ctx, c).Mutex("m")
	first, held, err := a.TryLock(ctx)
	if err != nil || !held {
		t.Fatal(held, err)
	}
	if again, err := a.Lock(ctx); err != nil || again != first {
		t.Errorf("a session that has it: %d after %d, %v", again, first, err)
	}
	if _, held, err := b.TryLock(ctx); err != nil || held {
		t.Errorf("held by two: %v, %v", held, err)
	}
	if err := errors.Join(a.Unlock(ctx), a.Unlock(ctx)); err != nil {
		t.Error(err)
	}
	second, held, err := b.TryLock(ctx)
	if err != nil || !held || second <= first {
		t.Errorf("%d after %d, %v, %v", second, first, held, err)
	}
	for _, m := range []*client.Mutex{a, b} {
		r, err := c.Txn(ctx, client.Txn{If: client.If(m.Held()), Then: client.Do(client.PutOp("guarded", nil))})
		if err != nil || r.Succeeded != (m == b) {
			t.Errorf("guarded: %+v, %v", r, err)
		}
	}
}
