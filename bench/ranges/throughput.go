package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/bench/compare"
	"github.com/cairndb/cairn/bench/peer"
	"github.com/cairndb/cairn/bench/proc"
)

// One cluster holds a keyspace of each number of ranges, with the same keys in all. Blocks of load on one of them follow each other
// in rounds of all, each round in the reverse order of the one before: A B C C B A. A round gives one ratio of each keyspace to the
// one that it is held against; what the machine does slowly strikes all blocks of a round.

// rangesBlock is one block of load.
type rangesBlock struct {
	report closed.Report
	cpu    time.Duration // of the three servers
	noisy  bool
}

func (b rangesBlock) micros() float64 { return b.cpu.Seconds() * 1e6 / float64(b.report.Ops) }

func (s *Suite) throughput(ctx context.Context, op string) (err error) {
	c, err := s.cairn(ctx, "cairn", "--split-bytes", never)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := s.fillRanges(ctx, c); err != nil {
		return err
	}
	blocks := map[int][]rangesBlock{}
	order := slices.Clone(s.Ranges)
	s.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	before, err := s.probed(ctx)
	if err != nil {
		return err
	}
	for round := range s.Rounds {
		for _, n := range order {
			b, err := s.block(ctx, c, op, n, round)
			if err != nil {
				return fmt.Errorf("%d ranges: %w", n, err)
			}
			after, err := s.probed(ctx)
			if err != nil {
				return err
			}
			b.noisy = noisy(before, after)
			before = after
			blocks[n] = append(blocks[n], b)
			s.Say("%s, round %d, %d ranges: %.0f/s, p99 %s, %.0f µs of CPU", op, round+1, n, b.report.Rate(), b.report.P99.Round(10*time.Microsecond), b.micros())
		}
		slices.Reverse(order)
	}
	return s.throughputTable(op, blocks)
}

// fillRanges makes the keyspaces.
func (s *Suite) fillRanges(ctx context.Context, c *peer.Cluster) (err error) {
	cs, err := dial(ctx, c.Endpoints)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cs.close()) }()
	for _, n := range s.Ranges {
		began := time.Now()
		if err := cs.sharded(ctx, s, rangesName(n), n, s.Keys); err != nil {
			return fmt.Errorf("%d ranges: %w", n, err)
		}
		s.Say("a keyspace of %d ranges with %d keys, in %s", n, s.Keys, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

func rangesName(n int) string { return "of-" + strconv.Itoa(n) }

// block puts a load on one keyspace.
func (s *Suite) block(ctx context.Context, c *peer.Cluster, op string, n, round int) (b rangesBlock, err error) {
	var before, after proc.Usage
	warmup := min(time.Second, s.Block/3)
	args := []string{
		"-endpoints", strings.Join(c.Endpoints, ","), "-op", op, "-keyspace", rangesName(n), "-clients", strconv.Itoa(s.Clients),
		"-keys", strconv.Itoa(s.Keys), "-value-bytes", strconv.Itoa(s.ValueBytes), "-warmup", warmup.String(), "-length", s.Block.String(),
		"-seed", strconv.FormatUint(s.Seed+uint64(round), 10),
	}
	profiled := make(chan error, 1)
	profiled <- nil
	begin := func() (err error) {
		if s.Profiles != "" && round == 0 {
			<-profiled
			prefix := filepath.Join(s.Profiles, fmt.Sprintf("%s-%d", op, n))
			go func() { profiled <- c.Profile(ctx, max(time.Second, s.Block-time.Second), prefix) }()
		}
		before, err = c.Usage()
		return err
	}
	b.report, err = compare.Measure(ctx, s.Load, args, begin, func() (err error) { after, err = c.Usage(); return err })
	if err = errors.Join(err, <-profiled); err != nil {
		return b, err
	}
	b.cpu = after.CPU - before.CPU
	return b, c.Check()
}

// throughputTable writes what the blocks say, and each keyspace's ratio to the one of 10 ranges, or of the fewest, over the rounds in
// which the disk was steady, or over all if it never was: the column rounds says so.
func (s *Suite) throughputTable(op string, blocks map[int][]rangesBlock) error {
	against := slices.Min(s.Ranges)
	if _, ok := blocks[10]; ok {
		against = 10
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s, %d clients\t/s\tp50\tp99\tCPU µs/op\trate to %d ranges\tCPU to %d ranges\tp99 to %d ranges\trounds\terrors\n",
		op, s.Clients, against, against, against)
	for _, n := range s.Ranges {
		var rate, cpu, p50, p99, rates, cpus, p99s []float64
		quiet, failed := 0, 0
		allNoisy := true
		for i, b := range blocks[n] {
			allNoisy = allNoisy && (b.noisy || blocks[against][i].noisy)
		}
		for i, b := range blocks[n] {
			ref := blocks[against][i]
			failed += b.report.Errors
			if !b.noisy && !ref.noisy {
				quiet++
			}
			rate, cpu = append(rate, b.report.Rate()), append(cpu, b.micros())
			p50, p99 = append(p50, ms(b.report.P50)), append(p99, ms(b.report.P99))
			if (b.noisy || ref.noisy) && !allNoisy {
				continue
			}
			rates, cpus = append(rates, b.report.Rate()/ref.report.Rate()), append(cpus, b.micros()/ref.micros())
			p99s = append(p99s, float64(b.report.P99)/float64(ref.report.P99))
		}
		fmt.Fprintf(w, "%d ranges\t%.0f\t%.2f ms\t%.2f ms\t%.0f\t%s\t%s\t%s\t%d of %d\t%d\n", n, median(rate), median(p50), median(p99), median(cpu),
			spread(rates), spread(cpus), spread(p99s), quiet, len(blocks[n]), failed)
	}
	return w.Flush()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
