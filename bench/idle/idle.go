// Command idle measures what ranges cost that nobody uses: CPU, frames and memory of three nodes with that many idle
// ranges, how long a node takes to serve again with them, and how long the ranges that a killed node led are without a
// leader.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/faultpb"
	"github.com/cairndb/cairn/bench/peer"
	"github.com/cairndb/cairn/bench/proc"
)

// Suite is one run.
type Suite struct {
	Binary string
	Counts []int
	Look   time.Duration // how long an idle cluster is watched
	Folder string
	Say    func(format string, args ...any)
}

// Row is what one number of ranges costs.
type Row struct {
	Ranges   int           `json:"ranges"`
	Settled  time.Duration `json:"settled_ns"` // from their making until all rest
	CPU      float64       `json:"cpu_cores"`  // of the three nodes together
	Frames   float64       `json:"frames_per_second"`
	Memory   uint64        `json:"memory_bytes"` // of the three, not file-backed
	PerRange float64       `json:"bytes_per_replica"`
	Restart  time.Duration `json:"restart_ns"`  // of one node, until it serves
	Failover time.Duration `json:"failover_ns"` // until all ranges that a killed node led are led again
	Led      int           `json:"led"`         // by it
}

// firstPort is that of the first node.
const firstPort = 7700

// firstRange is the id of the first range that is made.
const firstRange = 1 << 20

// Run measures each number of ranges on a cluster of its own.
func (s *Suite) Run(ctx context.Context) (rows []Row, err error) {
	if err := os.MkdirAll(s.Folder, 0o755); err != nil {
		return nil, err
	}
	var empty uint64
	for _, n := range s.Counts {
		row, err := s.one(ctx, n)
		if err != nil {
			return rows, fmt.Errorf("%d ranges: %w", n, err)
		}
		if n == 0 {
			empty = row.Memory
		} else if empty > 0 && row.Memory > empty {
			row.PerRange = float64(row.Memory-empty) / float64(peer.Nodes*n)
		}
		s.Say("%d ranges: %+v", n, row)
		rows = append(rows, row)
	}
	return rows, nil
}

// cluster is three nodes with a client each.
type cluster struct {
	s     *Suite
	dir   string
	port  int
	addr  [peer.Nodes]string
	nodes [peer.Nodes]*exec.Cmd
	conns [peer.Nodes]*grpc.ClientConn
}

// settled makes a cluster at some ports with that many ranges, and waits until all rest. Whatever it returns is to be stopped.
func (s *Suite) settled(ctx context.Context, port, count int) (c *cluster, took time.Duration, err error) {
	c = &cluster{s: s, dir: filepath.Join(s.Folder, strconv.Itoa(count)), port: port}
	if err := os.RemoveAll(c.dir); err != nil {
		return c, 0, err
	}
	for i := range c.addr {
		c.addr[i] = "127.0.0.1:" + strconv.Itoa(port+i)
	}
	for i := range c.addr {
		if err := c.start(i); err != nil {
			return c, 0, err
		}
	}
	if err := c.until(ctx, time.Minute, func(sum summary) bool { return sum.led == 4 && sum.resting == 4 }); err != nil {
		return c, 0, err
	}
	began := time.Now()
	if err := c.create(ctx, count); err != nil {
		return c, 0, err
	}
	err = c.until(ctx, 5*time.Minute, allRest(count))
	return c, time.Since(began), err
}

func allRest(count int) func(summary) bool {
	return func(sum summary) bool { return sum.led == count+4 && sum.resting == count+4 }
}

func (s *Suite) one(ctx context.Context, count int) (row Row, err error) {
	row.Ranges = count
	c, took, err := s.settled(ctx, firstPort, count)
	defer func() { err = errors.Join(err, c.stop()) }()
	if err != nil {
		return row, err
	}
	row.Settled = took
	if err := wait(ctx, 5*time.Second); err != nil { // what was garbage is given back
		return row, err
	}
	if err := c.watch(ctx, &row); err != nil {
		return row, err
	}
	if row.Restart, err = c.restart(ctx); err != nil {
		return row, err
	}
	if err := c.until(ctx, 5*time.Minute, allRest(count)); err != nil {
		return row, err
	}
	row.Failover, row.Led, err = c.failover(ctx, count+4)
	return row, err
}

func (c *cluster) start(i int) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(filepath.Join(c.dir, "n"+strconv.Itoa(i+1)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // the child has its own descriptor
	cmd := exec.Command(c.s.Binary, "start", "--store", filepath.Join(c.dir, "n"+strconv.Itoa(i+1)), "--listen", c.addr[i],
		"--advertise", c.addr[i], "--join", strings.Join(c.addr[:], ","), "--bootstrap-expect", strconv.Itoa(peer.Nodes), "--unsafe-testing",
		"--pprof", "127.0.0.1:"+strconv.Itoa(c.port+10+i))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = peer.Leashed()
	c.nodes[i] = cmd
	if c.conns[i] == nil {
		if c.conns[i], err = grpc.NewClient(c.addr[i], grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond}, MinConnectTimeout: time.Second}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30))); err != nil {
			return err
		}
	}
	return cmd.Start()
}

func (c *cluster) stop() error {
	for i, n := range c.nodes {
		if n != nil && n.Process != nil {
			_ = n.Process.Kill() // it may have ended
			_ = n.Wait()
		}
		if c.conns[i] != nil {
			_ = c.conns[i].Close()
		}
	}
	return os.RemoveAll(c.dir)
}

// create makes the ranges on all nodes, some at a time.
func (c *cluster) create(ctx context.Context, count int) error {
	const step = 1000
	for at := 0; at < count; at += step {
		req := &faultpb.CreateRangesRequest{First: firstRange + uint64(at), Count: uint64(min(step, count-at)), Nodes: []uint64{1, 2, 3}}
		for _, conn := range c.conns {
			if _, err := faultpb.NewFaultsClient(conn).CreateRanges(ctx, req); err != nil {
				return err
			}
		}
	}
	return nil
}

// summary is what the nodes say of their replicas, added up.
type summary struct {
	led, resting int
	frames       uint64
}

// ask asks one node.
func (c *cluster) ask(ctx context.Context, i int) (s summary, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	m, err := clusterpb.NewClusterClient(c.conns[i]).NodeStatus(ctx, &clusterpb.NodeStatusRequest{})
	if err != nil {
		return s, err
	}
	st := m.GetStore()
	if st == nil {
		return s, errors.New("the node is not part of a cluster yet")
	}
	return summary{int(st.Leaders), int(st.LeadersResting), st.FramesSent}, nil
}

func (c *cluster) until(ctx context.Context, limit time.Duration, reached func(summary) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		sum, err := c.sum(ctx)
		if err == nil && reached(sum) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %+v, %w", limit, sum, errors.Join(err, ctx.Err()))
		}
	}
}

func (c *cluster) sum(ctx context.Context) (sum summary, err error) {
	for i := range c.nodes {
		if c.nodes[i].ProcessState != nil {
			continue
		}
		s, err := c.ask(ctx, i)
		if err != nil {
			return sum, err
		}
		sum.led, sum.resting, sum.frames = sum.led+s.led, sum.resting+s.resting, sum.frames+s.frames
	}
	return sum, nil
}

// watch looks at an idle cluster for a while.
func (c *cluster) watch(ctx context.Context, row *Row) error {
	use := func() (u proc.Usage, err error) {
		for _, n := range c.nodes {
			one, err := proc.Of(n.Process.Pid)
			if err != nil {
				return u, err
			}
			u = u.Add(one)
		}
		return u, nil
	}
	before, err := c.sum(ctx)
	if err != nil {
		return err
	}
	a, err := use()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := wait(ctx, c.s.Look); err != nil {
		return err
	}
	b, err := use()
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := c.sum(ctx)
	if err != nil {
		return err
	}
	row.CPU, row.Frames = float64(b.CPU-a.CPU)/float64(took), float64(after.frames-before.frames)/took.Seconds()
	row.Memory = b.Anon
	return nil
}

// restart kills the last node, starts it again, and returns how long that took until it serves.
func (c *cluster) restart(ctx context.Context) (time.Duration, error) {
	i := len(c.nodes) - 1
	if err := c.kill(i); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := c.start(i); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := c.ask(ctx, i); err == nil {
			return time.Since(began), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, errors.New("the node does not serve again")
		}
	}
}

func (c *cluster) kill(i int) error {
	if err := c.nodes[i].Process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	_ = c.nodes[i].Wait() // killed
	return nil
}

// failover kills the node that leads most, and waits until the others lead all.
func (c *cluster) failover(ctx context.Context, all int) (time.Duration, int, error) {
	most, led := 0, -1
	for i := range c.nodes {
		s, err := c.ask(ctx, i)
		if err != nil {
			return 0, 0, err
		}
		if s.led > led {
			most, led = i, s.led
		}
	}
	began := time.Now()
	if err := c.kill(most); err != nil {
		return 0, 0, err
	}
	err := c.until(ctx, 2*time.Minute, func(sum summary) bool { return sum.led == all })
	return time.Since(began), led, err
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Print writes the rows.
func Print(out io.Writer, rows []Row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "RANGES\tSETTLED\tCPU, 3 NODES\tFRAMES/S\tMB, 3 NODES\tBYTES A REPLICA\tRESTART\tLED BY THE KILLED\tLED AGAIN\t")
	for _, r := range rows {
		fmt.Fprintf(w, "%d\t%s\t%.1f %%\t%.0f\t%.0f\t%.0f\t%s\t%d\t%s\t\n", r.Ranges, r.Settled.Round(time.Millisecond), 100*r.CPU, r.Frames,
			float64(r.Memory)/1e6, r.PerRange, r.Restart.Round(time.Millisecond), r.Led, r.Failover.Round(time.Millisecond))
	}
	return w.Flush()
}
