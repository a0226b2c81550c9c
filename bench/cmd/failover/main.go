// Command failover compares how long Cairn, etcd, and etcd tuned to 20 ms heartbeats and 200 ms elections take no write
// after something befalls their leader's node. It needs root.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cairndb/cairn/bench/failover"
	"github.com/cairndb/cairn/bench/peer"
)

func main() {
	var s failover.Suite
	var modes, systems, save, flags string
	flag.IntVar(&s.Trials, "trials", 9, "of each mode and system")
	flag.DurationVar(&s.Window, "window", 4*time.Second, "how long each trial looks")
	flag.StringVar(&modes, "modes", "kill,pause,cut,stall,stop", "what befalls the leader's node")
	flag.StringVar(&systems, "systems", "etcd,etcd-tuned,cairn", "what is compared; the others are held against the first")
	flag.StringVar(&flags, "cairn-flags", "", "more flags of cairn start, separated by spaces")
	flag.StringVar(&save, "save", "", "write the trials as JSON to this `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, &s, strings.Split(modes, ","), strings.Split(systems, ","), strings.Fields(flags), save); err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *failover.Suite, modes, systems, more []string, save string) error {
	out, err := filepath.Abs("out")
	if err != nil {
		return err
	}
	cairn, etcd := filepath.Join(out, "cairn"), filepath.Join(out, "etcd")
	known := map[string]failover.System{
		"cairn": {Name: "cairn", System: peer.Cairn{Path: cairn}, More: more}, "etcd": {Name: "etcd", System: peer.Etcd{Path: etcd}},
		"etcd-tuned": {Name: "etcd-tuned", System: peer.Etcd{Path: etcd}, More: []string{"--heartbeat-interval", "20", "--election-timeout", "200"}},
	}
	for _, name := range systems {
		sys, ok := known[name]
		if !ok {
			return fmt.Errorf("-systems: there is no %q", name)
		}
		s.Systems = append(s.Systems, sys)
	}
	for _, name := range modes {
		at := slices.IndexFunc(failover.Modes(), func(m failover.Mode) bool { return m.Name == name })
		if at < 0 {
			return fmt.Errorf("-modes: there is no %q", name)
		}
		s.Modes = append(s.Modes, failover.Modes()[at])
	}
	for _, b := range []struct{ binary, module, pkg string }{{cairn, "..", "./cmd/cairn"}, {etcd, "etcd", "go.etcd.io/etcd/server/v3"}} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.binary, b.pkg)
		cmd.Dir, cmd.Env = b.module, append(os.Environ(), "CGO_ENABLED=0")
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", b.binary, err, output)
		}
	}
	s.Folder = filepath.Join(out, "failover")
	began := time.Now()
	s.Say = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	trials, err := s.Run(ctx)
	if save != "" && len(trials) > 0 {
		raw, merr := json.MarshalIndent(trials, "", "  ")
		if merr == nil {
			merr = os.WriteFile(save, append(raw, '\n'), 0o644)
		}
		if err == nil {
			err = merr
		}
	}
	if err != nil {
		return err
	}
	return failover.Print(os.Stdout, trials)
}
