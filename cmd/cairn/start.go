package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/retention"
	"github.com/cairndb/cairn/node"
)

// gcPercent lets the heap grow to one and a half times what is alive before it is collected. A node lives beside a
// database and should be small: with a million keys and under load it took 115 to 120 MB, and 145 to 150 with Go's
// default of twice. The price is about a twentieth of a loaded node's CPU.
const gcPercent = 50

// startFlags are the flags of start as they were given.
type startFlags struct {
	store, listen, advertise string
	join                     []string
	locality                 string
	attributes               []string
	expect                   int
	replaceLost              bool
	unsafeTesting            bool
	listenKeyspace           map[string]string
	splitBytes               int64
	splitQPS                 float64
	quota                    int64
	compactMode, compactKeep string
	supportInterval          time.Duration
	supportDuration          time.Duration
	watchProgress            time.Duration
	logLevel, logFormat      string
	pprof                    string
}

func newStart(e env) *cobra.Command {
	var f startFlags
	c := &cobra.Command{
		Use:   "start",
		Short: "Run a node",
		Long: `Run a node until it is told to stop (SIGTERM or ctrl-C), which it does gracefully.

A node with an empty store waits until it is part of a cluster: it goes through the addresses of --join until a
member lets it in, or until cairn init makes a cluster, or, with --bootstrap-expect, until that many nodes are there
and make one by themselves. A node that is part of a cluster needs --join no more, unless
all nodes that it knows have moved. Names are looked up again and again: dns:NAME:PORT leads to every address of NAME,
srv:NAME to the hosts and ports of its SRV records.`,
		Example: `  # three nodes that make a cluster by themselves; the same --join for all
  cairn start --store ./n1 --listen 127.0.0.1:7401 --bootstrap-expect 3 \
    --join 127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403

  # three nodes that find each other by DNS
  cairn start --store /var/lib/cairn --listen :7400 --advertise "$(hostname -f):7400" \
    --join srv:_cairn._tcp.example.org --bootstrap-expect 3

  # a node that others reach under a name, in a place
  cairn start --store /var/lib/cairn --listen :7400 --advertise db1.example.com:7400 \
    --join db2.example.com:7400,db3.example.com:7400 --locality region=eu,zone=a`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.config(e)
			if err != nil {
				return err
			}
			if e.getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			return runNode(c.Context(), cfg, f.pprof)
		},
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.store, "store", "", "`DIR` of the node's store; made if it does not exist (required)")
	fs.StringVar(&f.listen, "listen", defaultAddress, "address to serve on, `HOST:PORT`")
	fs.StringVar(&f.advertise, "advertise", "", "`HOST:PORT` that other nodes and clients reach this one at (default: --listen)")
	fs.StringSliceVar(&f.join, "join", nil, "`HOST:PORT,…` of other nodes, and names that lead to them, dns:NAME:PORT and srv:NAME; this node may be among them")
	fs.StringVar(&f.locality, "locality", "", "where the node is, `KEY=VALUE,…`, outermost first: region=eu,zone=a")
	fs.StringArrayVar(&f.attributes, "attribute", nil, "a `WORD` that constraints on placement may ask for, such as ssd; may be given again")
	fs.IntVar(&f.expect, "bootstrap-expect", 0, "make a cluster when `N` nodes of --join, this one counted, wait for one")
	fs.BoolVar(&f.replaceLost, "replace-lost", false, "the store that was at this address is lost for good: join as a new node and retire the old one")
	fs.StringToStringVar(&f.listenKeyspace, "listen-keyspace", nil, "also listen for clients that mean the keyspace `NAME=HOST:PORT,…`, and name none")
	fs.Int64Var(&f.splitBytes, "split-bytes", base.SplitBytes, "how many `BYTES` a range of a sharded keyspace may hold before it is cut in two")
	fs.Float64Var(&f.splitQPS, "split-qps", base.SplitQPS, "how many requests a second, `N`, a range of a sharded keyspace may be served before it is cut in two; 0: any number")
	fs.Int64Var(&f.quota, "quota-backend-bytes", 0, "how many `BYTES` the store may take on disk before the cluster takes no more data (alarm NOSPACE); 0: any number")
	fs.StringVar(&f.compactMode, "auto-compaction-mode", "periodic", "`MODE` of the automatic compaction of history: periodic or revision")
	fs.StringVar(&f.compactKeep, "auto-compaction-retention", "0", "how much history is kept: hours, or a time such as 30m, or with revision a number of revisions `N`; 0: all")
	fs.BoolVar(&f.unsafeTesting, "unsafe-testing", false, "let whoever reaches this node make its disk and its clock fail: for tests")
	fs.DurationVar(&f.supportInterval, "support-interval", base.SupportInterval, "how often this node asks others for the support that its leases rest on")
	fs.DurationVar(&f.supportDuration, "support-duration", base.SupportDuration, "how long they promise it for: about as long a failover takes; at least twice the interval, at most "+base.SupportMaxDuration.String())
	fs.DurationVar(&f.watchProgress, "watch-progress-notify-interval", base.WatchProgressInterval, "how often a watch that asked for it is told how far it is, while nothing happens; at least "+base.WatchProgressLeast.String())
	fs.StringVar(&f.logLevel, "log-level", "info", "`LEVEL` debug, info, warn or error")
	fs.StringVar(&f.logFormat, "log-format", "text", "`FORMAT` text or json")
	fs.StringVar(&f.pprof, "pprof", "", "address to serve Go profiles on")
	_ = fs.MarkHidden("pprof") // it exists: it was defined in the line above
	return c
}

// config checks all flags at once.
func (f *startFlags) config(e env) (node.Config, error) {
	var problems []error
	logger, err := newLogger(e, f.logLevel, f.logFormat)
	problems = append(problems, flatten(err)...)
	locality, err := parseLocality(f.locality)
	problems = append(problems, flatten(err)...)
	keep, err := retention.Parse(f.compactMode, f.compactKeep)
	if err != nil {
		problems = append(problems, fmt.Errorf("--auto-compaction-mode %s --auto-compaction-retention %s: %w", f.compactMode, f.compactKeep, err))
	}
	cfg := node.Config{
		StoreDir: f.store, Listen: f.listen, Advertise: f.advertise, Join: f.join, BootstrapExpect: f.expect,
		ReplaceLost: f.replaceLost, ListenKeyspace: f.listenKeyspace, SplitBytes: f.splitBytes, SplitQPS: f.splitQPS, WatchProgressInterval: f.watchProgress, QuotaBytes: max(f.quota, 0), Retention: keep, UnsafeTesting: f.unsafeTesting, SupportInterval: f.supportInterval, SupportDuration: f.supportDuration, Locality: locality, Attributes: f.attributes, Version: version, Logger: logger,
	}
	cfg.EnsureDefaults()
	problems = append(problems, flatten(cfg.Validate())...)
	if f.pprof != "" {
		if _, _, err := net.SplitHostPort(f.pprof); err != nil {
			problems = append(problems, fmt.Errorf("--pprof %q is not HOST:PORT: %w", f.pprof, err))
		}
	}
	if len(problems) > 0 {
		return node.Config{}, &usageError{problems}
	}
	return cfg, nil
}

// flatten gives the parts of what errors.Join made.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

func newLogger(e env, level, format string) (*slog.Logger, error) {
	var errs []error
	var l slog.Level
	switch level {
	case "debug", "info", "warn", "error":
		if err := l.UnmarshalText([]byte(level)); err != nil {
			errs = append(errs, err)
		}
	default:
		errs = append(errs, fmt.Errorf("--log-level %q is not known: give debug, info, warn or error", level))
	}
	opts := &slog.HandlerOptions{Level: l}
	var h slog.Handler
	switch format {
	case "text":
		h = slog.NewTextHandler(e.err, opts)
	case "json":
		h = slog.NewJSONHandler(e.err, opts)
	default:
		errs = append(errs, fmt.Errorf("--log-format %q is not known: give text or json", format))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return slog.New(h), nil
}

// parseLocality reads key=value,key=value.
func parseLocality(s string) ([]*metapb.LocalityTier, error) {
	if s == "" {
		return nil, nil
	}
	var tiers []*metapb.LocalityTier
	var errs []error
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(part, "=")
		switch {
		case !ok || key == "" || value == "" || strings.ContainsAny(part, " \t"):
			errs = append(errs, fmt.Errorf("--locality: %q is not KEY=VALUE: give region=eu,zone=a", part))
		case seen[key]:
			errs = append(errs, fmt.Errorf("--locality: %q is given twice: give each tier once, outermost first", key))
		}
		seen[key] = true
		tiers = append(tiers, &metapb.LocalityTier{Key: key, Value: value})
	}
	return tiers, errors.Join(errs...)
}

// stopTimeout bounds a graceful stop from outside of the node's own bound.
const stopTimeout = time.Minute

// runNode runs a node until ctx ends or the node fails.
func runNode(ctx context.Context, cfg node.Config, pprofAddress string) error {
	if pprofAddress != "" {
		stop, err := servePprof(pprofAddress)
		if err != nil {
			return err
		}
		defer stop()
	}
	n, err := node.New(cfg)
	if err != nil {
		return &usageError{flatten(err)}
	}
	if err := n.Start(ctx); err != nil {
		return err
	}
	cfg.Logger.Info("serving", "address", cfg.Advertise, "store", cfg.StoreDir, "version", version)
	if len(cfg.Join) == 0 && cfg.BootstrapExpect == 0 {
		cfg.Logger.Info("a new node waits for: cairn init --host " + cfg.Advertise)
	}
	ready := n.Ready()
	for {
		select {
		case <-ready:
			cfg.Logger.Info("ready: the node is part of a cluster and serves clients", "address", cfg.Advertise)
			ready = nil // once
		case err := <-n.Fatal():
			return errors.Join(err, stopNode(n))
		case <-ctx.Done():
			cfg.Logger.Info("stopping")
			return stopNode(n)
		}
	}
}

func stopNode(n *node.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return n.Stop(ctx)
}

// servePprof serves Go's profiles, for whoever looks for where time and memory go.
func servePprof(address string) (stop func(), err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--pprof: %w: give another address", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.Serve(l) }() // it ends with the listener
	return func() { _ = s.Close() }, nil
}
