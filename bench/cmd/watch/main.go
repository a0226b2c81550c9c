// Command watch compares how Cairn and etcd serve watches and leases. See bench/README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cairndb/cairn/bench/peer"
	"github.com/cairndb/cairn/bench/watches"
)

func main() {
	s := &watches.Suite{Names: [2]string{"cairn", "etcd"}, Out: os.Stdout}
	parts := flag.String("parts", strings.Join(watches.PartNames(), ","), "what to measure, separated by commas")
	watchers := flag.String("watchers", "100,1000,5000", "of the fan-out")
	quick := flag.Bool("quick", false, "short; the figures are rough")
	selfCheck := flag.Bool("self-check", false, "etcd against etcd: every ratio must come out near 1")
	flag.IntVar(&s.Rounds, "rounds", 3, "pairs of blocks")
	flag.DurationVar(&s.Block, "block", 5*time.Second, "that one block counts")
	flag.IntVar(&s.Value, "value-bytes", 128, "of each value")
	flag.IntVar(&s.Leases, "leases", 10_000, "that are kept, and that expire")
	flag.IntVar(&s.Revisions, "revisions", 1_000_000, "that a watcher is behind")
	flag.IntVar(&s.Idle, "idle", 100_000, "watches that wait")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if *quick {
		s.Rounds, s.Block, s.Leases, s.Revisions, s.Idle = 1, 2*time.Second, 1000, 50_000, 10_000
	}
	if err := run(ctx, s, *parts, *watchers, *selfCheck); err != nil {
		fmt.Fprintln(os.Stderr, "watch:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *watches.Suite, parts, watchers string, selfCheck bool) error {
	for _, w := range strings.Split(watchers, ",") {
		n, err := strconv.Atoi(w)
		if err != nil || n < 1 {
			return fmt.Errorf("-watchers: %q is no number of watchers", w)
		}
		s.Watchers = append(s.Watchers, n)
	}
	s.Parts = strings.Split(parts, ",")
	began := time.Now()
	s.Say = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	out, err := filepath.Abs("out")
	if err != nil {
		return err
	}
	cairn, etcd := filepath.Join(out, "cairn"), filepath.Join(out, "etcd")
	for _, b := range []struct{ binary, folder, pkg string }{{cairn, "..", "./cmd/cairn"}, {etcd, "etcd", "go.etcd.io/etcd/server/v3"}} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.binary, b.pkg)
		cmd.Dir, cmd.Env = b.folder, append(os.Environ(), "CGO_ENABLED=0")
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", b.binary, err, output)
		}
	}
	s.Folder = filepath.Join(out, "watches")
	s.Systems = [2]peer.System{peer.Cairn{Path: cairn}, peer.Etcd{Path: etcd}}
	if selfCheck {
		s.Names[0], s.Systems[0] = "etcd again", peer.Etcd{Path: etcd}
	}
	fmt.Fprintln(s.Out, time.Now().Format("2 January 2006"))
	return s.Run(ctx)
}
