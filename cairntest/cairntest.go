// Package cairntest runs real nodes inside a Go test.
//
//	func TestMine(t *testing.T) {
//		cluster := cairntest.Start(t, 3)
//		c := cluster.Client()              // Cairn's client
//		etcd, err := clientv3.New(cluster.EtcdConfig())
//		…
//		cluster.Kill(cluster.Leader("default", "my/key"))
//	}
//
// They are the nodes of the product: stores on disk, in the test's own folder; gRPC over the loopback interface, on ports that
// the system chooses; elections, snapshots and all. They run in the test's process, so that a test can be stepped through and
// needs no binary. Start returns when every range has all the replicas it is to have: a node can be killed at once. When the
// test ends they are stopped, nothing that they started runs on, and if the test has failed the end of each node's log is printed.
//
// What such a test does not show is what a process of its own does: to be paused, or to lose its machine. Kill ends a node in the
// midst of its work, without a word to clients or other nodes; but what it wrote and did not sync is not lost, as it would not be
// if only the process were killed.
package cairntest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cairndb/cairn/client"
	"github.com/cairndb/cairn/node"
)

const (
	// maxNodes share one machine, and each has a store and the loops of every core.
	maxNodes = 9
	// patience is how long a step may take before the test fails: many times what it takes on a loaded machine of two cores.
	patience = time.Minute
	// logBytes is how much of each node's log is kept.
	logBytes = 16 << 10
)

// Config says what a cluster is made of. Nodes must be given.
type Config struct {
	// Nodes is how many there are: 1 to 9. With three or more a range has three replicas.
	Nodes int
	// Change may change the configuration of a node, the first being 0, before it is made: its place, say, or how large ranges may
	// be. The store's folder and the addresses are the cluster's.
	Change func(i int, c *node.Config)
	// Log is what the nodes' logs keep. Default: slog.LevelInfo.
	Log slog.Leveler
}

// EnsureDefaults fills what was left open.
func (c *Config) EnsureDefaults() {
	if c.Log == nil {
		c.Log = slog.LevelInfo
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	if c.Nodes < 1 || c.Nodes > maxNodes {
		return fmt.Errorf("cairntest: %d nodes: give 1 to %d", c.Nodes, maxNodes)
	}
	return nil
}

// Cluster is some nodes, which run until the test ends. Its methods fail the test if they cannot do what they are to do; they are
// to be called from the test's own goroutine, as testing.TB.FailNow is.
type Cluster struct {
	t     testing.TB
	nodes []*member

	once   sync.Once
	client *client.Client
}

// Start runs a cluster of n nodes.
func Start(t testing.TB, n int) *Cluster {
	t.Helper()
	return StartConfig(t, Config{Nodes: n})
}

// StartConfig runs the cluster that cfg describes.
func StartConfig(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t}
	t.Cleanup(c.end) // before anything is made: what is made is ended, wherever this fails
	c.make(&cfg)
	for _, m := range c.nodes {
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all errgroup.Group
	for _, m := range c.nodes {
		all.Go(func() error { return m.ready(ctx) })
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.await(ctx, c.replicated); err != nil {
		t.Fatalf("cairntest: not every range is replicated: %v", err)
	}
	return c
}

// make takes the nodes' ports, all of them before any node is configured: each is told of the others. A node takes its listener
// over, so that nobody else can have the port in between.
func (c *Cluster) make(cfg *Config) {
	c.t.Helper()
	dir := c.t.TempDir()
	var addrs []string
	for i := range cfg.Nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.t.Fatalf("cairntest: no port for node %d: %v", i, err)
		}
		m := &member{i: i, listener: l, addr: l.Addr().String(), log: &tail{limit: logBytes}}
		c.nodes = append(c.nodes, m)
		addrs = append(addrs, m.addr)
	}
	for _, m := range c.nodes {
		m.cfg = node.Config{
			Version:     "0.0.0",
			Logger:      slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: cfg.Log})),
			StopTimeout: patience,
		}
		if cfg.Change != nil {
			cfg.Change(m.i, &m.cfg)
		}
		m.cfg.StoreDir = fmt.Sprintf("%s/node%d", dir, m.i)
		m.cfg.Listen, m.cfg.Advertise = m.addr, m.addr
		m.cfg.Join, m.cfg.BootstrapExpect = addrs, cfg.Nodes
	}
}

// end stops what runs, and shows the logs of a test that failed.
func (c *Cluster) end() {
	if c.client != nil {
		_ = c.client.Close() // it opens nothing any more
	}
	var all sync.WaitGroup
	for _, m := range c.nodes {
		all.Go(func() {
			if err := m.stop(false); err != nil {
				c.t.Errorf("cairntest: node %d: %v", m.i, err)
			}
		})
	}
	all.Wait()
	if !c.t.Failed() {
		return
	}
	for _, m := range c.nodes {
		c.t.Logf("the end of the log of node %d (%s):\n%s", m.i, m.addr, m.log)
	}
}

// Endpoints are the addresses of all nodes, those that were stopped too.
func (c *Cluster) Endpoints() (out []string) {
	for _, m := range c.nodes {
		out = append(out, m.addr)
	}
	return out
}

// Client is a client of the cluster, the same for each call. It is closed when the test ends.
func (c *Cluster) Client() *client.Client {
	c.t.Helper()
	c.once.Do(func() {
		cl, err := client.New(client.Config{Endpoints: c.Endpoints()})
		if err != nil {
			c.t.Fatal(err)
		}
		c.client = cl
	})
	return c.client
}

// EtcdConfig is the configuration of an etcd client of the cluster, which the test makes and closes before it ends.
func (c *Cluster) EtcdConfig() clientv3.Config {
	return clientv3.Config{Endpoints: c.Endpoints(), DialTimeout: 5 * time.Second, Logger: zap.NewNop()}
}

// Kill ends a node, the first being 0, in the midst of what it does. Others find out as they would if its process had been killed.
func (c *Cluster) Kill(i int) { c.t.Helper(); c.check("kill", i, c.nodes[i].stop(false)) }

// Stop stops a node as an operator would: it hands over what it leads, and lets requests end.
func (c *Cluster) Stop(i int) { c.t.Helper(); c.check("stop", i, c.nodes[i].stop(true)) }

// Restart starts a node on the store and the address that it had, and returns when it serves.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m := c.nodes[i]
	err := m.stop(true)
	if err == nil {
		err = m.start()
	}
	if err == nil {
		err = m.ready(ctx)
	}
	c.check("restart", i, err)
}

func (c *Cluster) check(what string, i int, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("cairntest: cannot %s node %d: %v", what, i, err)
	}
}

// Leader is the node, the first being 0, that leads the range of a key. It waits until one does.
func (c *Cluster) Leader(keyspace, key string) (leader int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := c.await(ctx, func(ctx context.Context) (err error) {
		leader, err = c.leads(ctx, keyspace, key)
		return err
	})
	if err != nil {
		c.t.Fatalf("cairntest: nobody leads the range of %q in %s: %v", key, keyspace, err)
	}
	return leader
}

// await asks again until f has no complaint; there is no event to wait for that spans nodes.
func (c *Cluster) await(ctx context.Context, f func(context.Context) error) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// running are the addresses of the nodes that run.
func (c *Cluster) running() (out []string) {
	for _, m := range c.nodes {
		if m.node != nil {
			out = append(out, m.addr)
		}
	}
	return out
}

// String names the nodes.
func (c *Cluster) String() string { return strings.Join(c.Endpoints(), ",") }
