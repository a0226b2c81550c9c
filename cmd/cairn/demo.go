package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/node"
)

// maxDemoNodes: they share one machine, and each has a store and the loops of every core.
const maxDemoNodes = 9

func newDemo(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "demo",
		Short: "Run a throw-away cluster in one process",
		Long: `Run a cluster of some nodes in this process, on the loopback interface, with stores that are deleted when it
ends (ctrl-C).`,
		Example: `  cairn demo
  cairn demo --nodes 5`,
		Args: cobra.NoArgs,
	}
	nodes := c.Flags().Int("nodes", 3, "number of nodes")
	logs := c.Flags().Bool("log", false, "print the nodes' logs")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *nodes < 1 || *nodes > maxDemoNodes {
			return &usageError{[]error{fmt.Errorf("--nodes %d: give 1 to %d", *nodes, maxDemoNodes)}}
		}
		logger := slog.New(slog.DiscardHandler)
		if *logs {
			logger = slog.New(slog.NewTextHandler(e.err, nil))
		}
		return runDemo(c.Context(), e.out, logger, *nodes)
	}
	return c
}

func runDemo(ctx context.Context, out io.Writer, logger *slog.Logger, count int) (err error) {
	dir, err := os.MkdirTemp("", "cairn-demo-")
	if err != nil {
		return fmt.Errorf("demo: no place for the stores: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	addresses, err := freeAddresses(count)
	if err != nil {
		return fmt.Errorf("demo: no free ports: %w", err)
	}
	d := &demo{fatal: make(chan error, count)}
	defer func() { err = errors.Join(err, d.stop()) }()
	ctx, cancel := context.WithCancel(ctx) // ends the waiting for fatal errors, before the nodes are stopped
	defer cancel()
	for i, a := range addresses {
		cfg := node.Config{
			StoreDir: filepath.Join(dir, "n"+strconv.Itoa(i+1)), Listen: a, Advertise: a, Join: addresses,
			BootstrapExpect: count, Version: version, Logger: logger.With("at", a),
		}
		if err := d.start(ctx, cfg); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	for _, n := range d.nodes {
		select {
		case <-n.Ready():
		case err := <-d.fatal:
			return fmt.Errorf("demo: %w", err)
		case <-ctx.Done():
			return nil // asked to stop before it was up
		}
	}
	if err := describeDemo(out, addresses); err != nil {
		return err
	}
	select {
	case err := <-d.fatal:
		return fmt.Errorf("demo: %w", err)
	case <-ctx.Done():
		_, err := fmt.Fprintln(out, "\nstopping; the stores are deleted")
		return err
	}
}

// demo is the nodes of one process.
type demo struct {
	nodes []*node.Node
	fatal chan error // one place for each node
}

func (d *demo) start(ctx context.Context, cfg node.Config) error {
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	if err := n.Start(ctx); err != nil {
		return err
	}
	d.nodes = append(d.nodes, n)
	go func() {
		select {
		case err := <-n.Fatal():
			d.fatal <- err
		case <-ctx.Done():
		}
	}()
	return nil
}

// stop stops all nodes at once.
func (d *demo) stop() error {
	errs := make([]error, len(d.nodes))
	var wg sync.WaitGroup
	for i, n := range d.nodes {
		wg.Go(func() { errs[i] = stopNode(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// freeAddresses finds ports that nobody listens on. They are free again when it returns, and are taken at once.
func freeAddresses(n int) ([]string, error) {
	var addresses []string
	var lc net.ListenConfig
	for range n {
		l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

func describeDemo(w io.Writer, addresses []string) error {
	all := strings.Join(addresses, ",")
	_, err := fmt.Fprintf(w, `A cluster of %d runs in this process, at
  %s
Its stores are deleted when it ends. Stop it with ctrl-C.

Look at it:
  cairn status --ranges --host %[3]s

Use it as you would use etcd:
  etcdctl --endpoints %[4]s put greeting hello
  etcdctl --endpoints %[4]s get greeting
  etcdctl --endpoints %[4]s member list -w table
`, len(addresses), strings.Join(addresses, "\n  "), addresses[0], all)
	return err
}
