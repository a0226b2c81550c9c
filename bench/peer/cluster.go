// Package peer runs the two sides of a comparison: clusters of three server processes each on loopback, with shipped
// defaults and a store of their own on one disk. A System says how one kind of server is started and asked; a Cluster
// is three running processes of it.
package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairndb/cairn/bench/proc"
)

// Nodes is the size of every cluster.
const Nodes = 3

const (
	// readyTimeout bounds the time from the start of the processes to a cluster that answers everywhere.
	readyTimeout = 60 * time.Second
	// readyEvery is how often a cluster that is coming up is asked whether it is ready.
	readyEvery  = 100 * time.Millisecond
	killTimeout = 10 * time.Second
)

// Layout is where a cluster's processes live.
type Layout struct {
	Client [Nodes]string // host:port that clients call
	Peer   [Nodes]string // host:port for the other members, for a system that keeps the two apart
	Store  [Nodes]string // folders
}

// System is one kind of server.
type System interface {
	// Binary is the file to run, Args its arguments on node i.
	Binary() string
	Args(l Layout, i int) []string
	// Ready returns nil once every node serves linearizable requests and every range has its replicas.
	Ready(ctx context.Context, l Layout) error
	// Syncs is how often node i has synced anything to disk since its start, by its own counters; ok is false if it
	// has none.
	Syncs(ctx context.Context, l Layout, i int) (n float64, ok bool, err error)
	// Leader is the node that leads: for Cairn, the range of the default keyspace.
	Leader(ctx context.Context, l Layout) (int, error)
	// ProfileURL is where node i serves Go's CPU profile; it does so only if the system was told to.
	ProfileURL(l Layout, i int) string
}

// Cluster is three running processes.
type Cluster struct {
	Name      string
	Endpoints []string

	system System
	layout Layout
	nodes  []*process
}

// Start starts a cluster in an empty folder of its own and waits until it is ready.
func Start(ctx context.Context, name string, system System, folder string) (_ *Cluster, err error) {
	if err := os.RemoveAll(folder); err != nil {
		return nil, err
	}
	layout, err := newLayout(folder)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Name: name, Endpoints: layout.Client[:], system: system, layout: layout}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	for i := range Nodes {
		node := name + " node " + strconv.Itoa(i+1)
		p, err := start(node, filepath.Join(folder, "n"+strconv.Itoa(i+1)+".log"), system.Binary(), system.Args(layout, i))
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, p)
	}
	return c, c.awaitReady(ctx)
}

// newLayout picks ports that were free a moment ago.
func newLayout(folder string) (l Layout, err error) {
	var held []net.Listener
	defer func() {
		for _, h := range held {
			err = errors.Join(err, h.Close())
		}
	}()
	for i := range Nodes {
		for _, address := range []*string{&l.Client[i], &l.Peer[i]} {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return l, err
			}
			held = append(held, listener)
			*address = listener.Addr().String()
		}
		l.Store[i] = filepath.Join(folder, "n"+strconv.Itoa(i+1))
	}
	return l, nil
}

// Joins is a System that further nodes can be added to.
type Joins interface {
	// JoinArgs are the arguments of a node at an address, with its store in a folder.
	JoinArgs(l Layout, address, store string) []string
}

// Add starts a further node, and returns its address. What asks all nodes asks the first ones only.
func (c *Cluster) Add(ctx context.Context) (string, error) {
	system, ok := c.system.(Joins)
	if !ok {
		return "", fmt.Errorf("nothing is added to %s", c.Name)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return "", err
	}
	n := strconv.Itoa(len(c.nodes) + 1)
	store := filepath.Join(filepath.Dir(c.layout.Store[0]), "n"+n)
	p, err := start(c.Name+" node "+n, store+".log", c.system.Binary(), system.JoinArgs(c.layout, address, store))
	if err != nil {
		return "", err
	}
	c.nodes = append(c.nodes, p)
	return address, ctx.Err()
}

func (c *Cluster) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	again := time.NewTicker(readyEvery)
	defer again.Stop()
	for {
		err := c.system.Ready(ctx, c.layout)
		if err == nil {
			return nil
		}
		if dead := c.Check(); dead != nil {
			return dead
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %v: %w", c.Name, readyTimeout, err)
		case <-again.C:
		}
	}
}

// Check fails if a process has ended.
func (c *Cluster) Check() error {
	var errs []error
	for _, p := range c.nodes {
		errs = append(errs, p.check())
	}
	return errors.Join(errs...)
}

// Usage is what the processes have used together.
func (c *Cluster) Usage() (proc.Usage, error) {
	var sum proc.Usage
	for _, p := range c.nodes {
		u, err := p.usage()
		if err != nil {
			return sum, err
		}
		sum = sum.Add(u)
	}
	return sum, nil
}

// Syncs is the sum over the nodes; ok is false if any has no counter for it.
func (c *Cluster) Syncs(ctx context.Context) (sum float64, ok bool, err error) {
	for i := range Nodes {
		n, ok, err := c.system.Syncs(ctx, c.layout, i)
		if err != nil || !ok {
			return 0, false, err
		}
		sum += n
	}
	return sum, true, nil
}

// Profile takes a CPU profile of each node at once, d long, into the files prefix-n1.pprof and so on.
func (c *Cluster) Profile(ctx context.Context, d time.Duration, prefix string) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range Nodes {
		url := c.system.ProfileURL(c.layout, i) + "?seconds=" + strconv.Itoa(max(1, int(d.Seconds())))
		group.Go(func() error { return download(ctx, url, fmt.Sprintf("%s-n%d.pprof", prefix, i+1)) })
	}
	return group.Wait()
}

// Leader is the place of the node that leads in Endpoints.
func (c *Cluster) Leader(ctx context.Context) (int, error) { return c.system.Leader(ctx, c.layout) }

// Stop kills the processes and waits for their end. Their stores stay: Start empties them.
func (c *Cluster) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	var errs []error
	for _, p := range c.nodes {
		errs = append(errs, p.kill(ctx))
	}
	return errors.Join(errs...)
}
