package failover

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/cairndb/cairn/bench/peer"
)

// System is a kind of server, with arguments besides its defaults.
type System struct {
	Name string
	peer.System
	More []string
}

func client(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: time.Second, Logger: zap.NewNop()})
}

// cluster is three processes on a host.
type cluster struct {
	h     *host
	sys   System
	l     peer.Layout
	nodes [peer.Nodes]*exec.Cmd
	logs  string
}

const readyLimit = 60 * time.Second

func startCluster(ctx context.Context, h *host, sys System, logs string) (*cluster, error) {
	l, err := h.layout()
	if err != nil {
		return nil, err
	}
	c := &cluster{h: h, sys: sys, l: l, logs: logs}
	for i := range peer.Nodes {
		if err := c.start(i); err != nil {
			return c, err
		}
	}
	return c, c.ready(ctx)
}

// start starts a node's process in its namespace. ip execs it: the process has the pid.
func (c *cluster) start(i int) error {
	out, err := os.OpenFile(filepath.Join(c.logs, c.sys.Name+"-n"+strconv.Itoa(i+1)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // the child has its own descriptor
	args := append([]string{"netns", "exec", c.h.namespace(i), c.sys.Binary()}, c.sys.Args(c.l, i)...)
	cmd := exec.Command("ip", append(args, c.sys.More...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = peer.Leashed()
	c.nodes[i] = cmd
	return cmd.Start()
}

// ready waits until every node serves, and somebody leads.
func (c *cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		err := c.sys.Ready(ctx, c.l)
		if err == nil {
			if _, err = c.sys.Leader(ctx, c.l); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w", c.sys.Name, readyLimit, err)
		case <-again.C:
		}
	}
}

func (c *cluster) signal(i int, s syscall.Signal) error { return c.nodes[i].Process.Signal(s) }

// end waits for a process that was told to end.
func (c *cluster) end(i int) { _ = c.nodes[i].Wait() } // how it ended is of no interest

func (c *cluster) stop() error {
	for _, n := range c.nodes {
		if n != nil && n.Process != nil {
			_ = n.Process.Kill() // it may have ended
			_ = n.Wait()
		}
	}
	return c.h.unmount()
}
