package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cairndb/cairn/bench/compare"
	"github.com/cairndb/cairn/bench/peer"
	"github.com/cairndb/cairn/bench/proc"
)

// Suite is what the parts of one run share.
type Suite struct {
	Cairn, Etcd, Load string // binaries
	Folder            string // of stores and logs
	Seed              uint64
	Ranges            []int         // of the keyspaces that are compared
	Block             time.Duration // how long one block counts
	Rounds            int           // of blocks
	Clients           int           // of the closed loops
	Keys              int           // of each keyspace that is compared
	ValueBytes        int
	Splits            int // that are watched
	MoveRanges        int // large ones
	ScanKeys          int
	EtcdFor           time.Duration // what etcd's paged scan may take; then it is broken off, and its rate so far counts
	Profiles          string        // a folder for CPU profiles of the servers; empty: none are taken
	Say               func(format string, args ...any)
	Out               io.Writer // tables

	random *rand.Rand
	probe  *proc.Probe
}

// probeFor is how long the disk is probed before and after each block, and noisyAt the share by which it may move.
const (
	probeFor = 150 * time.Millisecond
	noisyAt  = 0.20
	restFor  = 150 * time.Millisecond
)

// open makes what all parts need.
func (s *Suite) open() (err error) {
	if err := os.MkdirAll(s.Folder, 0o755); err != nil {
		return err
	}
	s.random = rand.New(rand.NewPCG(s.Seed, 0))
	s.probe, err = proc.NewProbe(filepath.Join(s.Folder, "probe"))
	return err
}

// close leaves nothing on the disk, unless it went wrong: then the nodes' logs say more.
func (s *Suite) close(went error) error {
	if went != nil {
		return s.probe.Close()
	}
	return errors.Join(s.probe.Close(), os.RemoveAll(s.Folder))
}

// cairn starts a cluster of three that splits nothing by itself unless it is told to.
func (s *Suite) cairn(ctx context.Context, name string, extra ...string) (*peer.Cluster, error) {
	help, err := exec.CommandContext(ctx, s.Cairn, "start", "--help").Output()
	if err != nil {
		return nil, fmt.Errorf("cairn start --help: %w", err)
	}
	if strings.Contains(string(help), "--split-qps") {
		extra = append(extra, "--split-qps", "0") // load must not change what is measured under it
	}
	return peer.Start(ctx, name, peer.Cairn{Path: s.Cairn, Extra: extra, Profile: s.Profiles != ""}, filepath.Join(s.Folder, name))
}

// never is a size that no range reaches.
const never = "1099511627776"

// probed says how long a sync takes now.
func (s *Suite) probed(ctx context.Context) (time.Duration, error) {
	if err := wait(ctx, restFor); err != nil {
		return 0, err
	}
	return s.probe.Run(probeFor)
}

// noisy says whether the disk changed so much between two probes that what lay between says more about it than about the servers.
func noisy(before, after time.Duration) bool {
	return float64((after - before).Abs()) > noisyAt*float64(before)
}

// spread is a median with the smallest and the largest.
func spread(figures []float64) string {
	v := compare.SpreadOf(figures)
	return fmt.Sprintf("%.2f [%.2f-%.2f]", v.Median, v.Min, v.Max)
}

func median(figures []float64) float64 { return compare.SpreadOf(figures).Median }

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
