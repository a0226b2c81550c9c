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
  cairn demo --nodes 5
  cairn demo --listen-keyspace shards   # and then: cairn keyspace create shards --sharded`,
		Args: cobra.NoArgs,
	}
	nodes := c.Flags().Int("nodes", 3, "number of nodes")
	bound := c.Flags().String("listen-keyspace", "", "let each node also listen for clients that mean the keyspace `NAME`, and name none")
	logs := c.Flags().Bool("log", false, "print the nodes' logs")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *nodes < 1 || *nodes > maxDemoNodes {
			return &usageError{[]error{fmt.Errorf("--nodes %d: give 1 to %d", *nodes, maxDemoNodes)}}
		}
		logger := slog.New(slog.DiscardHandler)
		if *logs {
			logger = slog.New(slog.NewTextHandler(e.err, nil))
		}
		return runDemo(c.Context(), e.out, logger, *nodes, *bound)
	}
	return c
}

func runDemo(ctx context.Context, out io.Writer, logger *slog.Logger, count int, keyspace string) (err error) {
	dir, err := os.MkdirTemp("", "cairn-demo-")
	if err != nil {
		return fmt.Errorf("demo: no place for the stores: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	free, err := freeAddresses(2 * count)
	if err != nil {
		return fmt.Errorf("demo: no free ports: %w", err)
	}
	addresses, bound := free[:count], free[count:]
	d := &demo{fatal: make(chan error, count)}
	defer func() { err = errors.Join(err, d.stop()) }()
	ctx, cancel := context.WithCancel(ctx) // ends the waiting for fatal errors, before the nodes are stopped
	defer cancel()
	for i, a := range addresses {
		cfg := node.Config{
			StoreDir: filepath.Join(dir, "n"+strconv.Itoa(i+1)), Listen: a, Advertise: a, Join: addresses,
			BootstrapExpect: count, Version: version, Logger: logger.With("at", a),
		}
		if keyspace != "" {
			cfg.ListenKeyspace = map[string]string{keyspace: bound[i]}
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
	if keyspace == "" {
		bound = nil
	}
	if err := describeDemo(out, addresses, keyspace, bound); err != nil {
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

func describeDemo(w io.Writer, addresses []string, keyspace string, bound []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "A cluster of %d runs in this process, at\n  %s\n", len(addresses), strings.Join(addresses, "\n  "))
	if len(bound) > 0 {
		fmt.Fprintf(&b, "and for clients of the keyspace %s, once it is made, at\n  %s\n", keyspace, strings.Join(bound, "\n  "))
	}
	fmt.Fprintf(&b, `Its stores are deleted when it ends. Stop it with ctrl-C.

Look at it:
  cairn status --ranges --host %[1]s

Use it as you would use etcd:
  etcdctl --endpoints %[2]s put greeting hello
  etcdctl --endpoints %[2]s get greeting
  etcdctl --endpoints %[2]s member list -w table
`, addresses[0], strings.Join(addresses, ","))
	if len(bound) > 0 {
		fmt.Fprintf(&b, `
A keyspace that grows beyond one range:
  cairn keyspace create %[1]s --sharded --host %[2]s
  etcdctl --endpoints %[3]s put greeting hello
  cairn range ls --keyspace %[1]s --host %[2]s
`, keyspace, addresses[0], strings.Join(bound, ","))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
