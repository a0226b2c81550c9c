package node

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// TestOwnHistoryGoes: whatever is done to a cluster is written down in its own keyspaces (root, meta, sys), each version of it. What is not
// current any more goes by itself, and what is current stays, with nothing set for it.
func TestOwnHistoryGoes(t *testing.T) {
	n := alone(t, time.Second)
	ctx := t.Context()
	if _, err := n.CreateKeyspace(ctx, "shards", false); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, _, err := n.SplitRange(ctx, "shards", fmt.Append(nil, "k", i), false); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 8 {
		if _, err := n.MergeRange(ctx, "shards", fmt.Append(nil, "k", i), false); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.After(time.Minute)
	for {
		versions, current := own(t, n)
		if versions == current {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("%d versions are stored of %d keys", versions, current)
		case <-time.After(100 * time.Millisecond): // one look of ten in the second that history is kept
		}
	}
	ranges, err := n.Ranges(ctx, "shards")
	if err != nil || len(ranges) != 3 {
		t.Fatalf("%v, %v", ranges, err)
	}
	if _, _, err := n.SplitRange(ctx, "shards", []byte("m"), false); err != nil {
		t.Fatal(err)
	}
}

// own counts the versions that are stored of Cairn's own keyspaces, and the keys that they are of.
func own(t *testing.T, n *Node) (versions, current int) {
	t.Helper()
	for ks := base.KeyspaceRoot; ks <= base.KeyspaceSys; ks++ {
		span := keys.KeyspaceSpan(ks)
		it, err := n.eng.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
		if err != nil {
			t.Fatal(err)
		}
		last := ""
		for ok := it.First(); ok; ok = it.Next() {
			versions++
			if prefix := string(it.Key()[:keys.Split(it.Key())]); prefix != last {
				last = prefix
				current++
			}
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return versions, current
}

// alone starts a cluster of one.
func alone(t *testing.T, history time.Duration) *Node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	n, err := New(Config{StoreDir: t.TempDir(), Listen: addr, Listener: l, Join: []string{addr}, BootstrapExpect: 1, Version: "0.0.0",
		OwnHistory: history})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), base.StopTimeout)
		defer cancel()
		if err := n.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-n.Ready():
	case err := <-n.Fatal():
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("no cluster within a minute")
	}
	return n
}
