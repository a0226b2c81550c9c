// Command ranges measures what it costs that a keyspace is many ranges: puts and gets over 1 to 1,000 of them, what a split does to
// the latency of what goes on meanwhile, reads over several ranges as one snapshot, and scans of many keys beside etcd's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// parts in the order in which they are run; big and moves are run only when they are asked for.
var parts = []struct {
	name string
	run  func(*Suite, context.Context) error
}{
	{"puts", func(s *Suite, ctx context.Context) error { return s.throughput(ctx, "put") }},
	{"gets", func(s *Suite, ctx context.Context) error { return s.throughput(ctx, "get") }},
	{"split", (*Suite).dip},
	{"snapshot", (*Suite).snapshots},
	{"scan", (*Suite).scan},
	{"big", (*Suite).big},
	{"moves", (*Suite).moves},
}

type options struct {
	parts, ranges string
	seconds       float64
	quick         bool
}

func main() {
	s := &Suite{Out: os.Stdout}
	var o options
	flag.StringVar(&o.parts, "parts", "puts,gets,split,snapshot,scan", "what to measure, separated by commas; also: big, moves")
	flag.StringVar(&o.ranges, "ranges", "1,10,100,1000", "of the keyspaces that puts and gets compare")
	flag.Float64Var(&o.seconds, "seconds", 5, "that one block counts")
	flag.BoolVar(&o.quick, "quick", false, "below two minutes; the figures are rough")
	flag.IntVar(&s.Rounds, "rounds", 5, "of blocks, one of each keyspace")
	flag.IntVar(&s.Clients, "clients", 64, "operations under way at once")
	flag.IntVar(&s.Keys, "keys", 100_000, "of each keyspace that puts and gets compare")
	flag.IntVar(&s.ValueBytes, "value-bytes", 128, "of each value")
	flag.IntVar(&s.Splits, "splits", 10, "that are watched")
	flag.IntVar(&s.MoveRanges, "move-ranges", 12, "of 64 MiB each, that are balanced over two more nodes")
	flag.IntVar(&s.ScanKeys, "scan-keys", 10_000_000, "that are scanned, and of the big one")
	flag.DurationVar(&s.EtcdFor, "etcd-scan", time.Minute, "what one scan of etcd's may take; after that its rate so far counts")
	flag.StringVar(&s.Profiles, "profile", "", "write CPU profiles of the servers under puts and gets into this `folder`")
	flag.Uint64Var(&s.Seed, "seed", 0, "of the order of blocks and of the keys and values drawn; 0: a new one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, s, o); err != nil {
		fmt.Fprintln(os.Stderr, "ranges:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *Suite, o options) (err error) {
	for _, c := range strings.Split(o.ranges, ",") {
		n, err := strconv.Atoi(c)
		if err != nil || n < 1 {
			return fmt.Errorf("-ranges: %q is no number of ranges", c)
		}
		s.Ranges = append(s.Ranges, n)
	}
	if s.Block = time.Duration(o.seconds * float64(time.Second)); o.quick {
		s.quick()
	}
	if s.Seed == 0 {
		s.Seed = rand.Uint64N(1 << 32)
	}
	wanted := strings.Split(o.parts, ",")
	for _, w := range wanted {
		if !slices.ContainsFunc(parts, func(p struct {
			name string
			run  func(*Suite, context.Context) error
		}) bool {
			return p.name == w
		}) {
			return fmt.Errorf("-parts: there is no part %q", w)
		}
	}
	began := time.Now()
	s.Say = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	if err := s.build(ctx, slices.Contains(wanted, "scan")); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(err)) }()
	fmt.Fprintf(s.Out, "seed %d, %s\n", s.Seed, time.Now().Format("2 January 2006"))
	for _, p := range parts {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		s.Say("%s", p.name)
		if err := p.run(s, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// quick makes everything short.
func (s *Suite) quick() {
	s.Rounds, s.Block, s.Keys, s.Splits, s.ScanKeys, s.EtcdFor, s.MoveRanges = 2, time.Second, 20_000, 3, 200_000, 3*time.Second, 4
	s.Ranges = slices.DeleteFunc(s.Ranges, func(n int) bool { return n > 100 })
}

// build builds what is run.
func (s *Suite) build(ctx context.Context, etcd bool) error {
	out, err := filepath.Abs("../out")
	if err != nil {
		return err
	}
	s.Cairn, s.Load, s.Etcd, s.Folder = filepath.Join(out, "cairn"), filepath.Join(out, "load"), filepath.Join(out, "etcd"), filepath.Join(out, "ranges")
	for _, b := range []struct {
		binary, folder, pkg string
		wanted              bool
	}{{s.Cairn, "../..", "./cmd/cairn", true}, {s.Load, "..", "./cmd/load", true}, {s.Etcd, "../etcd", "go.etcd.io/etcd/server/v3", etcd}} {
		if !b.wanted {
			continue
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.binary, b.pkg)
		cmd.Dir, cmd.Env = b.folder, append(os.Environ(), "CGO_ENABLED=0")
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", b.binary, err, output)
		}
	}
	return nil
}
