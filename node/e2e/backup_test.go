package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"
)

// saved is `cairn snapshot status -o json`.
type saved struct {
	Bytes     int64 `json:"bytes"`
	Keyspaces []struct {
		Name      string `json:"name"`
		Revision  int64  `json:"revision"`
		Compacted int64  `json:"compacted"`
		Keys      uint64 `json:"keys"`
		Versions  uint64 `json:"versions"`
		Leases    uint64 `json:"leases"`
	} `json:"keyspaces"`
}

func inspect(t *testing.T, file string) (s saved) {
	t.Helper()
	out, err := run(30*time.Second, "snapshot", "status", file, "-o", "json")
	mustDo(t, err)
	mustDo(t, json.Unmarshal([]byte(out), &s))
	return s
}

// revisions are those at which a file holds its keyspaces.
func (s *saved) revisions() map[string]int64 {
	out := map[string]int64{}
	for _, k := range s.Keyspaces {
		out[k.Name] = k.Revision
	}
	return out
}

// hashes are those of all keyspaces at these revisions, from one node; a keyspace that is compacted at another one counts as another.
func hashes(t *testing.T, cl *clientv3.Client, endpoint string, at map[string]int64) string {
	t.Helper()
	var out []string
	for _, name := range []string{"default", "conf", "shards"} {
		h, err := cl.HashKV(in(t, name), endpoint, at[name])
		if err != nil {
			t.Fatalf("%s at %d: %v", name, at[name], err)
		}
		out = append(out, fmt.Sprint(name, " at ", h.HashRevision, " since ", h.CompactRevision, " is ", h.Hash))
	}
	return strings.Join(out, ", ")
}

// writer goes on writing, in all keyspaces, until it is stopped.
func startWriter(t *testing.T, cl *clientv3.Client) (stop func() int64) {
	ctx, cancel := context.WithCancel(context.Background())
	var n atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			for _, ks := range []string{"default", "conf", "shards"} {
				if _, err := cl.Put(withKeyspace(ctx, ks), fmt.Sprintf("%c/%d", 'a'+i%26, i%100), fmt.Sprint("later ", i)); err == nil {
					n.Add(1)
				}
			}
		}
	}()
	return func() int64 {
		cancel()
		<-done
		return n.Load()
	}
}

// startMixed is a cluster of four, so that not every node has a replica of everything, with three keyspaces in which there is history.
func startMixed(t *testing.T) (*cluster, *clientv3.Client) {
	c := startCluster(t, 4)
	c.cairn("keyspace", "create", "shards", "--sharded")
	c.cairn("keyspace", "create", "conf", "--single")
	c.cairn("range", "split", "--keyspace", "shards", "--key", "g")
	c.cairn("range", "split", "--keyspace", "shards", "--key", "p")
	cl := c.client()
	large := strings.Repeat("x", 100<<10)
	for _, ks := range []string{"default", "conf", "shards"} {
		ctx := in(t, ks)
		var last int64
		for i := range 100 {
			value := fmt.Sprint(i)
			if i%5 == 0 {
				value = large // so that it takes some pages
			}
			resp, err := cl.Put(ctx, fmt.Sprintf("%c/%d", 'a'+i%26, i%40), value)
			mustDo(t, err)
			if i == 20 {
				last = resp.Header.Revision
			}
		}
		_, err := cl.Delete(ctx, "b/1")
		mustDo(t, err)
		_, err = cl.Compact(ctx, last)
		mustDo(t, err)
	}
	return c, cl
}

// A snapshot is what the cluster was at one moment of each keyspace, from whichever node it is taken and while clients write: the cluster
// that is made of it has the same history, version by version, and goes on from there, on as many nodes as join.
func TestSnapshotAndRestore(t *testing.T) {
	c, cl := startMixed(t)
	stop := startWriter(t, cl)
	dir := t.TempDir()
	var files []string
	for i, p := range c.procs {
		file := filepath.Join(dir, fmt.Sprint("cairn", i))
		_, err := run(60*time.Second, "snapshot", "save", file, "--host", p.addr)
		mustDo(t, err)
		files = append(files, file)
		if i == 1 {
			c.cairn("range", "split", "--keyspace", "shards", "--key", "c")
		}
	}
	etcds := filepath.Join(dir, "etcd")
	version, err := snapshot.SaveWithVersion(t.Context(), zap.NewNop(), clientv3.Config{Endpoints: []string{c.procs[0].addr}}, etcds)
	if err != nil || version == "" {
		t.Fatalf("etcd's client: %v", err)
	}
	if stop() == 0 {
		t.Error("nothing was written meanwhile")
	}
	for i, file := range append(files, etcds) {
		s := inspect(t, file)
		if len(s.Keyspaces) != 3 || s.Bytes%512 != 32 {
			t.Fatalf("%s: %+v", file, s)
		}
		want := hashes(t, cl, c.procs[0].addr, s.revisions())
		if i > 0 && i < len(files)-1 {
			continue // one of a node with all replicas, one of that without, and etcd's
		}
		n := restore(t, file)
		fresh := n.client()
		if got := hashes(t, fresh, n.procs[0].addr, s.revisions()); got != want {
			t.Fatalf("%s:\nwas      %s\nrestored %s", file, want, got)
		}
		for ks, rev := range s.revisions() {
			resp, err := fresh.Put(in(t, ks), "a/next", "x")
			if err != nil || resp.Header.Revision <= rev || ks != "shards" && resp.Header.Revision != rev+1 {
				t.Errorf("%s: %v after revision %d: %v", ks, resp, rev, err)
			}
		}
		if i == len(files)-1 {
			grow(t, n, s.revisions(), want)
		}
		for _, p := range n.procs {
			p.kill()
		}
	}
}

// restore starts the first node of the cluster that a file makes.
func restore(t *testing.T, file string) *cluster {
	t.Helper()
	addr := freeAddrs(t, 1)[0]
	p := newProc(t, "restored1", addr)
	_, err := run(60*time.Second, "snapshot", "restore", file, "--store", p.store)
	mustDo(t, err)
	p.start()
	n := &cluster{t: t, procs: []*proc{p}}
	n.eventually(30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := n.client().Get(ctx, "x")
		return err
	})
	return n
}

// grow adds two nodes, waits until all is on all three, and compares what each has.
func grow(t *testing.T, n *cluster, at map[string]int64, want string) {
	t.Helper()
	for i, a := range freeAddrs(t, 2) {
		p := newProc(t, fmt.Sprint("restored", i+2), a, "--join", n.procs[0].addr)
		p.start()
		n.procs = append(n.procs, p)
	}
	n.eventually(90*time.Second, func() error {
		s, err := n.status(n.procs[0])
		if err != nil {
			return err
		}
		for _, r := range s.Ranges {
			voters := 0
			for _, rep := range r.Replicas {
				if rep.Role == "voter" {
					voters++
				}
			}
			if voters != 3 {
				return fmt.Errorf("range %d has %d voters", r.ID, voters)
			}
		}
		return nil
	})
	cl := n.client()
	for _, p := range n.procs {
		if got := hashes(t, cl, p.addr, at); got != want {
			t.Errorf("%s has %s and not %s", p.name, got, want)
		}
	}
	if _, code := n.check(); code != 0 {
		t.Errorf("debug check: %d", code)
	}
}

// What is no whole snapshot is refused, with an exit code that says so, and nothing is made of it.
func TestBadSnapshots(t *testing.T) {
	c := startCluster(t, 1)
	_, err := c.client().Put(t.Context(), "k", strings.Repeat("v", 10_000))
	mustDo(t, err)
	dir := t.TempDir()
	good, bad, store := filepath.Join(dir, "good"), filepath.Join(dir, "bad"), filepath.Join(dir, "store")
	c.cairn("snapshot", "save", good)
	raw, err := os.ReadFile(good)
	mustDo(t, err)
	flipped := append([]byte(nil), raw...)
	flipped[len(flipped)/3] ^= 0x10
	for says, b := range map[string][]byte{
		"is damaged at byte 5000: it is cut off there": raw[:5000],
		"the checksum of the block there is another":   flipped,
		"this is no snapshot of Cairn's":               []byte("not a snapshot, but long enough for one"),
	} {
		mustDo(t, os.WriteFile(bad, b, 0o600))
		for _, args := range [][]string{{"snapshot", "status", bad}, {"snapshot", "restore", bad, "--store", store}} {
			if out, err := run(30*time.Second, args...); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "exit status 1") {
				t.Errorf("%v: %q, %v; want %q", args, out, err, says)
			}
		}
		if _, err := os.Stat(store); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a store was made of it: %v", err)
		}
	}
	_, err = run(30*time.Second, "snapshot", "restore", good, "--store", c.procs[0].store)
	if err == nil || !strings.Contains(err.Error(), "is not empty") || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("over a store: %v", err)
	}
	if _, err := run(30*time.Second, "snapshot", "restore", good); err == nil || !strings.Contains(err.Error(), "exit status 2") {
		t.Errorf("without a store: %v", err)
	}
	if _, err := run(30*time.Second, "snapshot", "save", filepath.Join(dir, "none"), "--host", freeAddrs(t, 1)[0]); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("of nobody: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "none*")); len(left) != 0 { // the pattern is a good one
		t.Errorf("%v is left", left)
	}
}
