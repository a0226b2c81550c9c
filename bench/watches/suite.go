// Package watches compares how two clusters serve watches and leases: fan-out, latency, leases kept alive and expiring, a watcher
// that is far behind, watches that wait. Every figure is taken on both sides in one run, in blocks that follow each other A B B A.
package watches

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/cairndb/cairn/bench/compare"
	"github.com/cairndb/cairn/bench/peer"
	"github.com/cairndb/cairn/bench/proc"
)

// Suite is one run.
type Suite struct {
	Names     [2]string
	Systems   [2]peer.System
	Folder    string
	Parts     []string
	Rounds    int           // pairs of blocks
	Block     time.Duration // that a block counts
	Watchers  []int
	Conns     []int // that the watchers are over; 0: each has its own
	Value     int   // bytes
	Leases    int
	Revisions int    // that a watcher is behind
	Idle      int    // watches
	Profiles  string // a folder for CPU profiles of the fan-out; empty: none are taken
	Out       io.Writer
	Say       func(format string, args ...any)
}

// parts in the order in which they are run.
var parts = []struct {
	name string
	run  func(*Suite, context.Context, *[2]side) error
}{
	{"fanout", (*Suite).fanout},
	{"idle", (*Suite).idle},
	{"alive", (*Suite).alive},
	{"expiry", (*Suite).expiry},
	{"behind", (*Suite).behind},
}

// PartNames are all parts.
func PartNames() (names []string) {
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// side is one of the two clusters.
type side struct {
	name    string
	cluster *peer.Cluster
	client  *clientv3.Client
}

// Run carries the parts out, each on two fresh clusters. One that fails does not keep the others from being run.
func (s *Suite) Run(ctx context.Context) error {
	for _, want := range s.Parts {
		if !slices.Contains(PartNames(), want) {
			return fmt.Errorf("there is no part %q; there are %s", want, strings.Join(PartNames(), ", "))
		}
	}
	var errs []error
	for _, p := range parts {
		if !slices.Contains(s.Parts, p.name) || ctx.Err() != nil {
			continue
		}
		s.Say("%s", p.name)
		if err := s.part(ctx, p.name, p.run); err != nil {
			s.Say("%s: %v", p.name, err)
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func (s *Suite) part(ctx context.Context, name string, run func(*Suite, context.Context, *[2]side) error) (err error) {
	var sides [2]side
	for i := range sides {
		folder := filepath.Join(s.Folder, name+"-"+s.Names[i])
		c, err := peer.Start(ctx, s.Names[i], s.Systems[i], folder)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Stop(), os.RemoveAll(folder)) }()
		client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints, Context: ctx, Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()
		sides[i] = side{s.Names[i], c, client}
	}
	return run(s, ctx, &sides)
}

// pairs runs blocks of both sides in turn, and each pair in the other order than the one before.
func (s *Suite) pairs(sides *[2]side, block func(i int, c *side) error) error {
	for round := range s.Rounds {
		if err := pair(round, sides, block); err != nil {
			return err
		}
	}
	return nil
}

func pair(round int, sides *[2]side, block func(i int, c *side) error) error {
	for j := range sides {
		i := (round + j) % 2
		if err := block(i, &sides[i]); err != nil {
			return fmt.Errorf("%s: %w", sides[i].name, err)
		}
	}
	return nil
}

func (s *Suite) table() *tabwriter.Writer { return tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0) }

// figure prints the middle of some figures and their range.
func figure(f []float64, digits int) string {
	x := compare.SpreadOf(f)
	return fmt.Sprintf("%.*f [%.*f-%.*f]", digits, x.Median, digits, x.Min, digits, x.Max)
}

// ratios are of pairs of figures.
func ratios(a, b []float64) (r []float64) {
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			r = append(r, a[i]/b[i])
		}
	}
	return r
}

// quantile of latencies, which it sorts.
func quantile(took []time.Duration, q float64) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[min(int(q*float64(len(took))), len(took)-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// used is the CPU that a cluster's servers used since a moment.
func (c *side) used(since proc.Usage) (time.Duration, error) {
	now, err := c.cluster.Usage()
	return now.CPU - since.CPU, err
}

// logged is how many entries the log of the range (or group) that holds the keys has, by what its member says.
func (c *side) logged(ctx context.Context) (uint64, error) {
	st, err := c.client.Status(ctx, c.cluster.Endpoints[0])
	if err != nil {
		return 0, err
	}
	return st.RaftIndex, nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
