package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// in is a context whose requests are for a keyspace.
func in(t *testing.T, keyspace string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return withKeyspace(ctx, keyspace)
}

func withKeyspace(ctx context.Context, keyspace string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "cairn-keyspace", keyspace)
}

// startKeyspaces is a cluster whose nodes also listen for clients of "shards", a sharded keyspace that is made and cut at g and p.
func startKeyspaces(t *testing.T) (c *cluster, bound []string) {
	addrs := freeAddrs(t, 6)
	addrs, bound = addrs[:3], addrs[3:]
	c = &cluster{t: t}
	for i, a := range addrs {
		c.procs = append(c.procs, newProc(t, fmt.Sprintf("node%d", i+1), a, "--join", strings.Join(addrs, ","), "--bootstrap-expect", "3",
			"--listen-keyspace", "shards="+bound[i]))
	}
	for _, p := range c.procs {
		p.start()
	}
	c.waitReplicated(3)
	c.cairn("keyspace", "create", "shards", "--sharded")
	c.cairn("range", "split", "--keyspace", "shards", "--key", "g")
	c.cairn("range", "split", "--keyspace", "shards", "--key", "p")
	return c, bound
}

// cairn runs a verb against the first node that is up, and it must succeed.
func (c *cluster) cairn(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) try(args ...string) (string, error) {
	return run(60*time.Second, append(args, "--host", c.alive()[0].addr)...)
}

// refused runs a verb that must fail and say why.
func (c *cluster) refused(says string, args ...string) {
	c.t.Helper()
	out, err := c.try(args...)
	if err == nil || !strings.Contains(err.Error(), says) {
		c.t.Errorf("cairn %s: %q, %v; want %q", strings.Join(args, " "), out, err, says)
	}
}

// starts are the first keys of a keyspace's ranges, as the index has them.
func (c *cluster) starts(keyspace string) (starts []string) {
	c.t.Helper()
	var list []struct {
		Start string `json:"start"`
	}
	if err := json.Unmarshal([]byte(c.cairn("range", "ls", "--keyspace", keyspace, "-o", "json")), &list); err != nil {
		c.t.Fatal(err)
	}
	for _, r := range list {
		starts = append(starts, r.Start)
	}
	return starts
}

// An unmodified etcd client works on a sharded keyspace as on one range: chosen by metadata or by the address, through any node.
func TestShardedKeyspace(t *testing.T) {
	c, bound := startKeyspaces(t)
	cl, ctx := c.client(), in(t, "shards")
	keys := []string{"a", "f", "g", "m", "p", "z"}
	for _, k := range keys {
		if _, err := cl.Put(ctx, k, "value of "+k); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range c.procs {
		byName, byAddress := c.client(p.addr), c.client(bound[i])
		for how, get := range map[string]func(...clientv3.OpOption) (*clientv3.GetResponse, error){
			"metadata": func(o ...clientv3.OpOption) (*clientv3.GetResponse, error) { return byName.Get(ctx, "", o...) },
			"address": func(o ...clientv3.OpOption) (*clientv3.GetResponse, error) {
				return byAddress.Get(t.Context(), "", o...)
			},
		} {
			all, err := get(clientv3.WithPrefix())
			if err != nil || all.Count != 6 || len(all.Kvs) != 6 || string(all.Kvs[2].Value) != "value of g" {
				t.Fatalf("%s, by %s: %v, %v", p.name, how, all, err)
			}
			last, err := get(clientv3.WithPrefix(), clientv3.WithLimit(2), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
			if err != nil || len(last.Kvs) != 2 || string(last.Kvs[1].Key) != "p" || !last.More || last.Count != 6 {
				t.Errorf("%s, by %s: the last two: %v, %v", p.name, how, last, err)
			}
			then, err := get(clientv3.WithPrefix(), clientv3.WithRev(all.Header.Revision))
			if err != nil || len(then.Kvs) != 6 {
				t.Errorf("%s, by %s, at revision %d: %v, %v", p.name, how, all.Header.Revision, then, err)
			}
		}
		if other, err := c.client(p.addr).Get(t.Context(), "", clientv3.WithPrefix()); err != nil || other.Count != 0 {
			t.Errorf("%s: default has %v, %v", p.name, other, err)
		}
	}
	txn, err := cl.Txn(ctx).If(clientv3.Compare(clientv3.Value("g"), "=", "value of g")).Then(clientv3.OpPut("m", "new")).Commit()
	if err != nil || !txn.Succeeded {
		t.Errorf("a transaction in one range: %v, %v", txn, err)
	}
	_, err = cl.Txn(ctx).Then(clientv3.OpPut("a", "x"), clientv3.OpPut("z", "y")).Commit()
	if grpcstatus.Code(unwrap(err)) != codes.FailedPrecondition && (err == nil || !strings.Contains(err.Error(), "more than one range")) {
		t.Errorf("a transaction over ranges: %v", err)
	}
	for _, name := range []string{`r100 ["", "g")`} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name the ranges: %s", err, name)
		}
	}
	if got, err := cl.Get(ctx, "a"); err != nil || string(got.Kvs[0].Value) != "value of a" {
		t.Errorf("of the refused transaction something happened: %v, %v", got, err)
	}
	c.badKeyspaces(cl)
}

// badKeyspaces asks for what cannot be done: each is refused, says why, and changes nothing.
func (c *cluster) badKeyspaces(cl *clientv3.Client) {
	t := c.t
	c.refused("a small letter", "keyspace", "create", "Shards", "--sharded")
	c.refused("keyspace of every cluster's", "keyspace", "create", "sys", "--sharded")
	c.refused("already", "keyspace", "create", "shards", "--sharded")
	c.refused("already", "keyspace", "create", "shards", "--single")
	c.refused("no keyspace nope", "keyspace", "drop", "nope", "--yes-delete-all-of", "nope")
	c.refused("neither made nor dropped", "keyspace", "drop", "default", "--yes-delete-all-of", "default")
	c.refused("say so with", "keyspace", "drop", "shards", "--yes-delete-all-of", "shard")
	c.refused("no keyspace nope", "range", "ls", "--keyspace", "nope")
	c.refused("no keyspace nope", "range", "split", "--keyspace", "nope", "--key", "k")
	c.refused("one range for ever", "range", "split", "--keyspace", "default", "--key", "k")
	c.refused("begins at", "range", "split", "--keyspace", "shards", "--key", "g")
	c.refused("no key", "range", "split", "--keyspace", "shards", "--key", "")
	c.refused("no range r999", "range", "show", "r999")
	c.refused("not the id of a range", "range", "show", "x")
	c.refused("no keyspace nope", "debug", "check", "--keyspace", "nope")
	if _, err := cl.Get(in(t, "nope"), "a"); grpcstatus.Code(unwrap(err)) != codes.NotFound && (err == nil || !strings.Contains(err.Error(), "no keyspace nope")) {
		t.Errorf("a request to a keyspace that there is not: %v", err)
	}
	if got := strings.Join(c.starts("shards"), ","); got != ",g,p" {
		t.Errorf("the ranges begin at %s", got)
	}
	// The same key at once from several nodes: one cuts, and the others say that it is so already.
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = run(60*time.Second, "range", "split", "--keyspace", "shards", "--key", "k", "--host", c.procs[i%3].addr)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !strings.Contains(err.Error(), `begins at "k" already`) {
			t.Errorf("a split that came second: %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d of six splits at one key were made", won)
	}
	c.eventually(10*time.Second, func() error {
		if got := strings.Join(c.starts("shards"), ","); got != ",g,k,p" {
			return fmt.Errorf("the ranges begin at %s", got)
		}
		return nil
	})
}
