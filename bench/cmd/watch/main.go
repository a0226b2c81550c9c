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
	conns := flag.String("conns", "0,10,1", "of the fan-out: over how many connections the watchers are; 0: each has its own")
	quick := flag.Bool("quick", false, "short; the figures are rough")
	selfCheck := flag.Bool("self-check", false, "etcd against etcd: every ratio must come out near 1")
	flag.IntVar(&s.Rounds, "rounds", 3, "pairs of blocks")
	flag.DurationVar(&s.Block, "block", 5*time.Second, "that one block counts")
	flag.IntVar(&s.Value, "value-bytes", 128, "of each value")
	flag.IntVar(&s.Leases, "leases", 10_000, "that are kept, and that expire")
	flag.IntVar(&s.Revisions, "revisions", 1_000_000, "that a watcher is behind")
	flag.IntVar(&s.Idle, "idle", 1_000_000, "watches that wait")
	flag.StringVar(&s.Profiles, "profile", "", "write CPU profiles of the first blocks of the fan-out into this `folder`, which costs them something")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if *quick {
		s.Rounds, s.Block, s.Leases, s.Revisions, s.Idle = 1, 2*time.Second, 1000, 50_000, 10_000
	}
	if err := run(ctx, s, *parts, *watchers, *conns, *selfCheck); err != nil {
		fmt.Fprintln(os.Stderr, "watch:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *watches.Suite, parts, watchers, conns string, selfCheck bool) (err error) {
	if s.Watchers, err = numbers(watchers, 1); err != nil {
		return fmt.Errorf("-watchers: %w", err)
	}
	if s.Conns, err = numbers(conns, 0); err != nil {
		return fmt.Errorf("-conns: %w", err)
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
	profile := s.Profiles != ""
	if profile {
		if err := os.MkdirAll(s.Profiles, 0o755); err != nil {
			return err
		}
	}
	s.Systems = [2]peer.System{peer.Cairn{Path: cairn, Profile: profile}, peer.Etcd{Path: etcd, Profile: profile}}
	if selfCheck {
		s.Names[0], s.Systems[0] = "etcd again", s.Systems[1]
	}
	fmt.Fprintln(s.Out, time.Now().Format("2 January 2006"))
	return s.Run(ctx)
}

// numbers reads some, separated by commas, none of them below the least.
func numbers(list string, least int) (out []int, err error) {
	for _, text := range strings.Split(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < least {
			return nil, fmt.Errorf("%q is no number from %d on", text, least)
		}
		out = append(out, n)
	}
	return out, nil
}
