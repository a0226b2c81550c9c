package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/keys"
)

// checked is what cairn debug check -o json prints.
type checked struct {
	Findings []struct {
		Part, Keyspace, What string
		Range, Node          uint64
	} `json:"findings"`
	Unseen []struct {
		Node, Replicas uint64
		Reason         string
	} `json:"unseen"`
	Summary struct {
		Ranges, Replicas, Versions uint64
	} `json:"summary"`
}

// check runs a check, and returns what it found and how it ended.
func (c *cluster) check() (*checked, int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 100*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "debug", "check", "-o", "json", "--host", c.alive()[0].addr)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	found := &checked{}
	if err := json.Unmarshal(out, found); err != nil {
		c.t.Fatalf("%v: %q, %s", err, out, said.String())
	}
	return found, cmd.ProcessState.ExitCode()
}

// A check of a cluster that is right says so, at rest and under load; of one with a node down it says which; and a byte that is
// another in one store it finds, and names the node, the range and the key.
func TestDebugCheck(t *testing.T) {
	c, bound := startKeyspaces(t)
	if found, code := c.check(); code != 0 || len(found.Findings)+len(found.Unseen) > 0 || found.Summary.Ranges != 7 || found.Summary.Replicas != 21 {
		t.Fatalf("at rest: exit %d, %+v", code, found)
	}

	l := startLoad(c, "m", 4, bound...)
	l.waitWrites(c, 200)
	cl := c.client(bound...)
	found, code := c.check()
	if code != 0 || found.Summary.Versions < 200 {
		t.Errorf("under load: exit %d, %+v", code, found)
	}
	got, err := cl.Get(t.Context(), "m", clientv3.WithLimit(1), clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Compact(t.Context(), got.Header.Revision); err != nil {
		t.Fatal(err)
	}
	if found, code = c.check(); code != 0 {
		t.Errorf("compacted, under load: exit %d, %+v", code, found)
	}
	l.waitWrites(c, 50)
	l.end()
	last, err := cl.Get(t.Context(), "m", clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil || len(last.Kvs) != 1 {
		t.Fatalf("%v, %v", last, err)
	}

	if _, err := cl.Put(t.Context(), "n", "behind it"); err != nil {
		t.Fatal(err)
	}

	// The last process is node n; it is stopped.
	s, err := c.status(c.procs[0])
	if err != nil {
		t.Fatal(err)
	}
	victim, node := c.procs[2], uint64(0)
	for _, n := range s.Nodes {
		if n.Address == victim.addr {
			node = n.ID
		}
	}
	if code := victim.term(); code != 0 {
		t.Fatalf("it ended with %d", code)
	}
	if found, code = c.check(); code != 4 || len(found.Findings) > 0 || len(found.Unseen) != 1 || found.Unseen[0].Node != node || found.Unseen[0].Replicas != 7 {
		t.Errorf("a node is down: exit %d, %+v", code, found)
	}

	spoil(t, victim, string(last.Kvs[0].Key))
	victim.start()
	c.waitUp(node)
	found, code = c.check()
	if code != 3 || len(found.Findings) != 1 {
		t.Fatalf("a changed byte: exit %d, %+v", code, found)
	}
	f := found.Findings[0]
	where := fmt.Sprintf("at key %q, revision %d", last.Kvs[0].Key, last.Kvs[0].ModRevision)
	if f.Part != "replicas" || f.Keyspace != "shards" || f.Node != node || f.Range == 0 || !strings.Contains(f.What, where) {
		t.Errorf("found %+v, and not n%d %s", f, node, where)
	}
}

// spoil changes the last byte of a key's newest version in the store of a process that is stopped.
func spoil(t *testing.T, p *proc, key string) {
	t.Helper()
	eng, err := engine.OpenPebble(engine.PebbleConfig{Dir: p.store})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
	}()
	span := keys.DataSpan(100, []byte(key), append([]byte(key), 0))
	it, err := eng.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		t.Fatal(err)
	}
	if !it.First() {
		t.Fatalf("%s does not hold %q: %v", p.name, key, it.Error())
	}
	v, err := it.Value()
	if err != nil {
		t.Fatal(err)
	}
	at, changed := slices.Clone(it.Key()), slices.Clone(v)
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	changed[len(changed)-1] ^= 1
	b := eng.NewBatch()
	if err := b.Set(at, changed); err != nil {
		t.Fatal(err)
	}
	wait, err := b.CommitSync()
	if err == nil {
		err = wait()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// waitUp waits until all others hear of a node again, and it is where its ranges are.
func (c *cluster) waitUp(node uint64) {
	c.t.Helper()
	c.eventually(60*time.Second, func() error {
		s, err := c.status(c.procs[0])
		if err != nil {
			return err
		}
		for _, n := range s.Nodes {
			if n.State == "unreachable" {
				return fmt.Errorf("n%d is unreachable", n.ID)
			}
		}
		for _, r := range s.Ranges {
			for _, rep := range r.Replicas {
				if rep.Node == node && rep.Applied == 0 {
					return fmt.Errorf("r%d is not back on n%d", r.ID, node)
				}
			}
		}
		return nil
	})
}

// A keyspace that is dropped while it is used, and while a node is away: its clients are told so, and the node ends its replicas
// when it is back; the name can be given again, to something empty.
func TestDropInUse(t *testing.T) {
	c, bound := startKeyspaces(t)
	cl := c.client(bound[:2]...)
	l := startLoad(c, "m", 2, bound[:2]...)
	l.waitWrites(c, 50)
	away := c.procs[2]
	away.kill()
	if out := c.cairn("keyspace", "drop", "shards", "--yes-delete-all-of", "shards"); !strings.Contains(out, "3 ranges") {
		t.Errorf("drop printed %q", out)
	}
	c.eventually(20*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := cl.Put(ctx, "m", "x"); err == nil || !strings.Contains(err.Error(), "no keyspace shards") {
			return fmt.Errorf("a client is told %v", err)
		}
		return nil
	})
	l.end()
	away.start()
	c.eventually(90*time.Second, func() error {
		s, err := c.status(c.procs[0])
		if err != nil {
			return err
		}
		for _, n := range s.Nodes {
			if n.State == "unreachable" {
				return fmt.Errorf("n%d is unreachable", n.ID)
			}
		}
		if len(s.Ranges) != 4 {
			return fmt.Errorf("%d ranges are left, want 4", len(s.Ranges))
		}
		return nil
	})
	if found, code := c.check(); code != 0 {
		t.Errorf("after the drop: exit %d, %+v", code, found)
	}
	c.cairn("keyspace", "create", "shards", "--single")
	got, err := c.client(bound...).Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil || got.Count != 0 {
		t.Errorf("a new keyspace of the old name has %v, %v", got, err)
	}
}
