package compare

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/bench/load"
	"github.com/cairndb/cairn/bench/peer"
	"github.com/cairndb/cairn/bench/proc"
)

// servers compares two clusters that run all the time; the load is on one of them. Neither is paused while the other is
// measured: a paused process would lose its leases and elect anew in its next block. What the idle side costs is
// measured instead, in each block.
type servers struct {
	config   Config
	loader   string // the binary of cmd/load
	clusters [2]*peer.Cluster
	running  *child
	profiles string           // folder for CPU profiles; empty: none are taken
	profiled map[profile]bool // what was taken so far
}

// profile names one set of profiles: the first block of each row and side is profiled.
type profile struct {
	cell Cell
	side Side
}

func (s *servers) load(ctx context.Context, cell Cell, side Side, begin, end func() error) (report closed.Report, err error) {
	op := cell.Op
	endpoints := s.clusters[side].Endpoints
	if op == GetAtLeader {
		i, err := s.clusters[side].Leader(ctx)
		if err != nil {
			return report, err
		}
		op, endpoints = "get", endpoints[i:i+1]
	}
	args := []string{
		"-op", op, "-clients", strconv.Itoa(cell.Clients), "-keys", strconv.Itoa(s.config.Keys),
		"-warmup", s.config.Warmup.String(), "-length", s.config.Length.String(),
	}
	if what := (profile{cell, side}); s.profiles != "" && !s.profiled[what] {
		s.profiled[what] = true
		var profiling errgroup.Group
		defer func() { err = errors.Join(err, profiling.Wait()) }()
		start := begin
		begin = func() error {
			c := s.clusters[side]
			file := filepath.Join(s.profiles, fmt.Sprintf("%s-%s-%d", c.Name, cell.Op, cell.Clients))
			profiling.Go(func() error { return c.Profile(ctx, s.config.Length, file) })
			return start()
		}
	}
	return s.run(ctx, s.clusters[side], endpoints, args, begin, end)
}

// preload stores the first n keys.
func (s *servers) preload(ctx context.Context, c *peer.Cluster, n int) (closed.Report, error) {
	const clients = 16 // enough to keep three members busy with transactions of 128 puts
	nothing := func() error { return nil }
	return s.run(ctx, c, c.Endpoints, []string{"-op", load.Preload, "-clients", strconv.Itoa(clients), "-keys", strconv.Itoa(n)}, nothing, nothing)
}

func (s *servers) run(ctx context.Context, c *peer.Cluster, endpoints, args []string, begin, end func() error) (closed.Report, error) {
	started, err := startChild(ctx, s.loader, append(args,
		"-endpoints", strings.Join(endpoints, ","), "-conns", strconv.Itoa(s.config.Conns),
		"-value-bytes", strconv.Itoa(s.config.ValueBytes), "-seed", strconv.FormatUint(s.config.Seed, 10)))
	if err != nil {
		return closed.Report{}, err
	}
	s.running = started
	report, err := started.finish(begin, end)
	return report, errors.Join(err, c.Check())
}

func (s *servers) usage(side Side) (proc.Usage, error) { return s.clusters[side].Usage() }

func (s *servers) loadUsage() (proc.Usage, error) { return proc.Of(s.running.cmd.Process.Pid) }

func (s *servers) syncs(ctx context.Context, side Side) (float64, bool, error) {
	return s.clusters[side].Syncs(ctx)
}

// idle measures the CPU that each side uses while nothing is asked of either, in cores.
func (s *servers) idle(ctx context.Context, d time.Duration) (cores [2]float64, err error) {
	var before, after [2]proc.Usage
	read := func(into *[2]proc.Usage) (err error) {
		for i := range into {
			if into[i], err = s.usage(Side(i)); err != nil {
				return err
			}
		}
		return nil
	}
	began := time.Now()
	if err := errors.Join(read(&before), wait(ctx, d), read(&after)); err != nil {
		return cores, err
	}
	took := time.Since(began)
	for i := range cores {
		cores[i] = float64(after[i].CPU-before[i].CPU) / float64(took)
	}
	return cores, nil
}
