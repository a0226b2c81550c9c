// Package failover measures how long a cluster of three takes no write after something befalls its leader's node: the
// longest time without any successful put, while puts are made on time at all three endpoints.
//
// Both systems run on the same host, one after the other and in turns: a network namespace and a file system of its own
// for each node, on loopback devices. It needs root, iproute2, mkfs.ext4 and fsfreeze.
package failover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

// Mode is something that befalls the leader's node, and how it is undone.
type Mode struct {
	Name string
	do   func(c *cluster, i int) error
	undo func(c *cluster, i int) error
}

// Modes are all there are.
func Modes() []Mode {
	again := func(c *cluster, i int) error { c.end(i); return c.start(i) }
	return []Mode{
		{"kill", func(c *cluster, i int) error { return c.signal(i, syscall.SIGKILL) }, again},
		{"pause", func(c *cluster, i int) error { return c.signal(i, syscall.SIGSTOP) },
			func(c *cluster, i int) error { return c.signal(i, syscall.SIGCONT) }},
		{"cut", func(c *cluster, i int) error { return run("ip", "link", "set", c.h.link(i), "down") },
			func(c *cluster, i int) error { return run("ip", "link", "set", c.h.link(i), "up") }},
		{"stall", func(c *cluster, i int) error { return run("fsfreeze", "-f", c.h.disk(i)) },
			func(c *cluster, i int) error { return run("fsfreeze", "-u", c.h.disk(i)) }},
		{"stop", func(c *cluster, i int) error { return c.signal(i, syscall.SIGTERM) }, again},
	}
}

// Suite is one comparison.
type Suite struct {
	Systems []System
	Modes   []Mode
	Trials  int
	Window  time.Duration // how long each trial looks
	Folder  string
	Say     func(format string, args ...any)
}

// Trial is one leader's misfortune.
type Trial struct {
	System  string        `json:"system"`
	Mode    string        `json:"mode"`
	Gap     time.Duration `json:"gap_ns"`
	Slowest time.Duration `json:"slowest_put_ns"`
	Failed  int           `json:"failed"`
}

// Run carries the trials out: each system in turn takes a round of all modes.
func (s *Suite) Run(ctx context.Context) (trials []Trial, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("namespaces and file systems are made by root alone: run it as root")
	}
	if err := os.MkdirAll(s.Folder, 0o755); err != nil {
		return nil, err
	}
	h, err := newHost(filepath.Join(s.Folder, "disks"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	const perCluster = 3 // trials of each mode before the other system's turn
	for n := 0; n < s.Trials; n += perCluster {
		for _, sys := range s.Systems {
			got, err := s.round(ctx, h, sys, min(perCluster, s.Trials-n))
			trials = append(trials, got...)
			if err != nil {
				return trials, fmt.Errorf("%s: %w", sys.Name, err)
			}
		}
	}
	return trials, nil
}

func (s *Suite) round(ctx context.Context, h *host, sys System, times int) (trials []Trial, err error) {
	c, err := startCluster(ctx, h, sys, s.Folder)
	if c != nil {
		defer func() { err = errors.Join(err, c.stop()) }()
	}
	if err != nil {
		return nil, err
	}
	w, err := startLoad(ctx, c.l)
	if err != nil {
		return nil, err
	}
	defer w.stop()
	for range times {
		for _, m := range s.Modes {
			t, err := s.trial(ctx, c, w, m)
			if err != nil {
				return trials, fmt.Errorf("%s: %w", m.Name, err)
			}
			s.Say("%-12s %-6s no write for %s, slowest %s, %d failed", t.System, t.Mode, t.Gap.Round(time.Millisecond), t.Slowest.Round(time.Millisecond), t.Failed)
			trials = append(trials, t)
		}
	}
	return trials, nil
}

// settle is how long a cluster is left alone before each trial.
const settle = 2 * time.Second

func (s *Suite) trial(ctx context.Context, c *cluster, w *load, m Mode) (Trial, error) {
	if err := wait(ctx, settle); err != nil {
		return Trial{}, err
	}
	i, err := c.sys.Leader(ctx, c.l)
	if err != nil {
		return Trial{}, err
	}
	w.reset()
	if err := wait(ctx, 300*time.Millisecond); err != nil {
		return Trial{}, err
	}
	began := time.Now()
	if err := m.do(c, i); err != nil {
		return Trial{}, err
	}
	err = wait(ctx, s.Window)
	gap, slowest, failed := w.gap(began, time.Now())
	err = errors.Join(err, m.undo(c, i), c.ready(ctx))
	return Trial{c.sys.Name, m.Name, gap, slowest, failed}, err
}

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

// Print writes the medians and extremes, one row a mode, and each system's median against the first's.
func Print(out io.Writer, trials []Trial) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MODE\tSYSTEM\tTRIALS\tNO WRITE FOR, MEDIAN\tMIN\tMAX\tSLOWEST PUT, MEDIAN\tMAX\tOF THE FIRST'S MEDIAN")
	type key struct{ mode, system string }
	var order []key
	gaps, slow := map[key][]time.Duration{}, map[key][]time.Duration{}
	for _, t := range trials {
		k := key{t.Mode, t.System}
		if gaps[k] == nil {
			order = append(order, k)
		}
		gaps[k], slow[k] = append(gaps[k], t.Gap), append(slow[k], t.Slowest)
	}
	slices.SortStableFunc(order, func(a, b key) int {
		return slices.IndexFunc(trials, func(t Trial) bool { return t.Mode == a.mode }) - slices.IndexFunc(trials, func(t Trial) bool { return t.Mode == b.mode })
	})
	first := map[string]time.Duration{}
	for _, k := range order {
		g, s := gaps[k], slow[k]
		slices.Sort(g)
		slices.Sort(s)
		median := g[len(g)/2]
		if _, ok := first[k.mode]; !ok {
			first[k.mode] = median
		}
		round := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%.2f\n", k.mode, k.system, len(g), round(median), round(g[0]), round(g[len(g)-1]),
			round(s[len(s)/2]), round(s[len(s)-1]), float64(median)/float64(first[k.mode]))
	}
	return w.Flush()
}
