package jepsen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
)

// Config says what a cluster is made of.
type Config struct {
	Nodes  int
	Dir    string // of stores and logs; it must not have any
	Binary string // of cairn; empty: it is built into Dir
	// Loopback puts all nodes onto this machine's loopback interface: no root is needed, and nothing can be cut.
	Loopback bool
	Logger   *slog.Logger
}

// Cluster is nodes that run as processes of this machine. Its methods may be called from any goroutine.
type Cluster struct {
	Nodes   []*Node
	binary  string
	network *network // nil: the nodes are on the loopback interface
	logger  *slog.Logger
	shard   shard
	spare   *Node         // joins under one nemesis; no other knows it
	several atomic.Bool   // nemeses act at once
	careful atomic.Uint64 // the keyspace of careful clients; 0: it is not made yet

	mu     sync.Mutex
	acts   acts
	broken []Failure // of what must hold under a nemesis
}

const (
	// startTime bounds the time in which a new cluster gets leaders and replicas everywhere.
	startTime = 2 * time.Minute
	// askAgain is how often a process is asked whether it is ready: there is no event between processes to wait for.
	askAgain = 100 * time.Millisecond
	// statusTime bounds one such question: a node gives the others two seconds.
	statusTime = 5 * time.Second
)

// Start starts a cluster and waits until every range has a leader and its replicas.
func Start(ctx context.Context, cfg Config) (c *Cluster, err error) {
	// The processes may run elsewhere: paths must not depend on where that is.
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err == nil {
		err = os.MkdirAll(cfg.Dir, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c = &Cluster{binary: cfg.Binary, logger: cfg.Logger}
	if c.binary == "" {
		c.binary = filepath.Join(cfg.Dir, "cairn")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", c.binary, "github.com/cairndb/cairn/cmd/cairn")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building the binary: %w\n%s", err, out)
		}
	}
	begun := c // what is returned beside an error is nil
	defer func() {
		if err != nil {
			err = errors.Join(err, begun.Close())
		}
	}()
	addresses, err := c.place(ctx, cfg.Loopback, cfg.Nodes+1) // one more, for the spare
	if err != nil {
		return nil, err
	}
	members := addresses[:cfg.Nodes]
	for i, a := range addresses {
		n, err := c.node(i, a, cfg.Dir, members)
		if err != nil {
			return nil, err
		}
		if i == cfg.Nodes {
			c.spare = n
			break
		}
		c.Nodes = append(c.Nodes, n)
	}
	for _, n := range c.Nodes {
		if err := n.start(); err != nil {
			return nil, err
		}
	}
	if err := c.whole(ctx); err != nil {
		return nil, err
	}
	return c, c.setPolicy(ctx)
}

// place finds an address for each node, in a namespace of its own or on the loopback interface.
func (c *Cluster) place(ctx context.Context, loopback bool, nodes int) (addresses []string, err error) {
	if loopback {
		addresses, err = freeAddresses(ctx, nodes)
		if err != nil {
			return nil, fmt.Errorf("no free ports: %w", err)
		}
		return addresses, nil
	}
	swept, err := sweep()
	if err != nil {
		return nil, fmt.Errorf("what an earlier run left could not be removed: %w", err)
	}
	for _, name := range swept {
		c.logger.Info("removed what a run left that was killed", "name", name)
	}
	c.network = newNetwork("")
	if err := c.network.make(nodes); err != nil {
		return nil, err
	}
	for i := range nodes {
		addresses = append(addresses, net.JoinHostPort(c.network.address(i), nodePort))
	}
	return addresses, nil
}

// nodePort is every node's where each has an address of its own.
const nodePort = "7400"

// node makes a node that has not been started.
func (c *Cluster) node(i int, address, dir string, all []string) (*Node, error) {
	name := fmt.Sprintf("node%d", i+1)
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n := &Node{
		Name: name, Index: i, IP: host, ClientAddr: address, Dir: filepath.Join(dir, name),
		Log: filepath.Join(dir, name+".log"), binary: c.binary,
	}
	if _, err := os.Stat(n.Dir); err == nil {
		return nil, fmt.Errorf("cluster: %s is there already: give an empty folder", n.Dir)
	}
	if c.network != nil {
		n.enter = []string{"ip", "netns", "exec", c.network.namespace(i)} // it becomes the binary's process
	}
	n.args = []string{
		"start", "--store", n.Dir, "--listen", address, "--advertise", address, "--join", strings.Join(all, ","),
		"--bootstrap-expect", fmt.Sprint(len(all)), "--locality", "zone=" + zone(i), "--unsafe-testing",
		"--split-qps", "0", // a cut by load may fall within what a workload's transactions need in one range: nemeses know where not
	}
	return n, nil
}

// whole waits until every range has a leader and as many voters as a new cluster gives it.
func (c *Cluster) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	want := min(len(c.Nodes), 3)
	for {
		st, err := c.status(ctx, 0)
		if err == nil {
			err = replicated(st, want)
		}
		if err == nil {
			return nil
		}
		if !pause(ctx, nil, askAgain) {
			return fmt.Errorf("the cluster is not up within %s: %w; the end of a log:\n%s", startTime, err, lastLines(c.Nodes[0].Log, 10))
		}
	}
}

func replicated(st *clusterpb.StatusResponse, want int) error {
	if len(st.Ranges) == 0 {
		return errors.New("there are no ranges yet")
	}
	for _, r := range st.Ranges {
		if n := len(r.Descriptor_.GetReplicas()); n < want || r.LeaderNode == 0 {
			return fmt.Errorf("range %d: %d replicas, leader %d", r.Descriptor_.GetRangeId(), n, r.LeaderNode)
		}
	}
	return nil
}

// status asks one node how the cluster is.
func (c *Cluster) status(ctx context.Context, i int) (st *clusterpb.StatusResponse, err error) {
	err = c.ask(ctx, i, statusTime, func(ctx context.Context, cl clusterpb.ClusterClient) (err error) {
		st, err = cl.Status(ctx, &clusterpb.StatusRequest{Ranges: true})
		return err
	})
	return st, err
}

// Leader finds the node that leads a keyspace's first range: of what the nodes say, what names the highest term counts.
func (c *Cluster) Leader(ctx context.Context, ks base.KeyspaceID) (int, error) {
	type answer struct {
		term    uint64
		address string
	}
	answers := make(chan answer, len(c.Nodes))
	for i := range c.Nodes {
		go func() {
			var a answer
			if st, err := c.status(ctx, i); err == nil {
				a.term, a.address = leaderOf(st, ks)
			}
			answers <- a
		}()
	}
	var best answer
	for range c.Nodes {
		if a := <-answers; a.address != "" && a.term > best.term {
			best = a
		}
	}
	for i, n := range c.Nodes {
		if n.ClientAddr == best.address {
			return i, nil
		}
	}
	return -1, fmt.Errorf("no node knows a leader of keyspace %s", ks)
}

func leaderOf(st *clusterpb.StatusResponse, ks base.KeyspaceID) (term uint64, address string) {
	for _, r := range st.Ranges {
		if base.KeyspaceID(r.Descriptor_.GetKeyspaceId()) != ks || r.LeaderNode == 0 {
			continue
		}
		for _, n := range st.Nodes {
			if n.Node.GetNodeId() == r.LeaderNode {
				return r.Term, n.Node.GetAddress()
			}
		}
	}
	return 0, ""
}

// Len is the number of nodes.
func (c *Cluster) Len() int { return len(c.Nodes) }

// everyone are the nodes and the spare one, if that is made yet.
func (c *Cluster) everyone() []*Node {
	if c.spare == nil {
		return c.Nodes
	}
	return append(slices.Clone(c.Nodes), c.spare)
}

// All are the nodes.
func (c *Cluster) All() []*Node { return c.Nodes }

// Kill kills a node's process at once, paused or not, and waits for its end.
func (c *Cluster) Kill(i int) error { return c.Nodes[i].end(syscall.SIGKILL) }

// Restart starts a process on a node's store. It returns when the process runs, not when it serves.
func (c *Cluster) Restart(_ context.Context, i int) error { return c.Nodes[i].start() }

// Pause stops a node's process where it is.
func (c *Cluster) Pause(i int) error { return c.Nodes[i].pause(true) }

// Resume lets it go on.
func (c *Cluster) Resume(i int) error { return c.Nodes[i].pause(false) }

// errNoNetwork: on the loopback interface nothing can be cut.
var errNoNetwork = errors.New("the nodes are on the loopback interface: nothing can be cut")

// Cut loses, from now on, what one node sends to another; either may be Clients. Mend undoes it.
func (c *Cluster) Cut(from, to int) error {
	if c.network == nil {
		return errNoNetwork
	}
	return c.network.cut(from, to)
}

// Mend undoes a Cut.
func (c *Cluster) Mend(from, to int) error {
	if c.network == nil {
		return errNoNetwork
	}
	return c.network.mend(from, to)
}

// Shape makes the link from one node to another slow, or lossy, or narrow, until Unshape.
func (c *Cluster) Shape(from, to int, rule LinkRule) error {
	if c.network == nil {
		return errNoNetwork
	}
	return c.network.shape(from, to, rule)
}

// Unshape undoes a Shape.
func (c *Cluster) Unshape(from, to int) error {
	if c.network == nil {
		return errNoNetwork
	}
	return c.network.unshape(from, to)
}

// Findings are what went wrong with the processes: ends that nobody asked for, panics.
func (c *Cluster) Findings() (found []error) {
	for _, n := range c.everyone() {
		found = append(found, n.found()...)
	}
	return found
}

// Close kills all processes and removes their network. Stores and logs stay.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.everyone() {
		errs = append(errs, n.end(syscall.SIGKILL))
	}
	if c.network != nil {
		errs = append(errs, c.network.remove())
	}
	return errors.Join(errs...)
}

// freeAddresses finds ports that nobody listens on. They are free again when it returns, and are taken at once.
func freeAddresses(ctx context.Context, n int) ([]string, error) {
	var out []string
	var lc net.ListenConfig
	for range n {
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		out = append(out, l.Addr().String())
	}
	return out, nil
}
