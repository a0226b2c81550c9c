package compare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cairndb/cairn/bench/peer"
	"github.com/cairndb/cairn/bench/proc"
)

// Suite is everything that one run of the driver needs.
type Suite struct {
	Config Config
	Names  [2]string
	// Systems are the servers of the two sides; Loader is the binary of cmd/load.
	Systems [2]peer.System
	Loader  string
	// Loops are the programs of the two sides that run bare loops, LoopNames what they are called. Empty: left out.
	Loops     [2]string
	LoopNames [2]string
	// Profiles is a folder for CPU profiles of the servers, one set for each row; empty: none are taken.
	Profiles string
	// Folder holds the stores and logs; they are left there.
	Folder string
	// Budget is what the run may take: pairs beyond the first of each row are left out when it is used up, and the
	// memory of stored keys if it would not be done in time.
	Budget time.Duration
	// Say tells a person how far the run is.
	Say func(format string, args ...any)

	deadline time.Time
}

// Result is what a run found.
type Result struct {
	Names     [2]string `json:"names"`
	LoopNames [2]string `json:"loop_names"`
	Config    Config    `json:"config"`
	Machine   Machine   `json:"machine"`
	// Idle is the CPU in cores that each side used with nothing asked of either, and IdleOther the most that it used
	// in a block of the other side.
	Idle      [2]float64 `json:"idle_cores"`
	IdleOther [2]float64 `json:"idle_other_cores"`
	Rows      []Row      `json:"rows"`
	// Memory of the three processes together after all blocks.
	Memory [2]proc.Usage `json:"memory"`
	Stored []Stored      `json:"stored,omitempty"`
	Loops  []Row         `json:"loops,omitempty"`
	// Scaling is the rate with each number of groups over that with the first, of each side.
	Scaling []Scaling `json:"scaling,omitempty"`
	Notes   []string  `json:"notes"`
	Blocks  []Block   `json:"blocks"`
}

// Machine is where a run was made.
type Machine struct {
	Cores  int           `json:"cores"`
	Kernel string        `json:"kernel"`
	Go     string        `json:"go"`
	Load   string        `json:"load_average"` // at the start
	Probe  time.Duration `json:"probe_ns"`     // of the first probe
}

// Stored is a side's memory with many keys in it, freshly started and with nothing else done.
type Stored struct {
	Side   Side       `json:"side"`
	Keys   int        `json:"keys"`
	Rate   float64    `json:"keys_per_second"` // while they were stored
	Memory proc.Usage `json:"memory"`
}

// Scaling holds one number of groups against the first.
type Scaling struct {
	Groups int       `json:"groups"`
	Sides  [2]Spread `json:"sides"`
}

// Run carries the suite out.
func (s *Suite) Run(ctx context.Context) (_ *Result, err error) {
	s.deadline = time.Now().Add(s.Budget)
	if err := os.MkdirAll(s.Folder, 0o755); err != nil {
		return nil, err
	}
	r := &runner{config: s.Config, say: s.Say}
	if r.probe, err = proc.NewProbe(filepath.Join(s.Folder, "probe")); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.probe.Close()) }()
	if r.disk, r.hasDisk, err = proc.DiskOf(s.Folder); err != nil {
		return nil, err
	}
	result := &Result{Names: s.Names, LoopNames: s.LoopNames, Config: s.Config}
	if err := result.Machine.describe(r); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context, *runner, *Result) error{s.runServers, s.runLoops, s.runStored} {
		if err := part(ctx, r, result); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func (m *Machine) describe(r *runner) (err error) {
	m.Cores, m.Go = runtime.NumCPU(), runtime.Version()
	for _, f := range []struct {
		into *string
		path string
	}{{&m.Kernel, "/proc/sys/kernel/osrelease"}, {&m.Load, "/proc/loadavg"}} {
		data, err := os.ReadFile(f.path)
		if err != nil {
			return err
		}
		*f.into = strings.TrimSpace(string(data))
	}
	m.Probe, err = r.probe.Run(r.config.Probe)
	return err
}

// runServers compares the two clusters.
func (s *Suite) runServers(ctx context.Context, r *runner, result *Result) (err error) {
	if len(s.Config.Ops) == 0 {
		return nil
	}
	subject := &servers{config: s.Config, loader: s.Loader, profiles: s.Profiles, profiled: map[profile]bool{}}
	if s.Profiles != "" {
		if err := os.MkdirAll(s.Profiles, 0o755); err != nil {
			return err
		}
		result.Notes = append(result.Notes, "CPU profiles were taken in the first block of each row and side, which cost them something; they are in "+s.Profiles+".")
	}
	for i, system := range s.Systems {
		c, err := peer.Start(ctx, s.Names[i], system, filepath.Join(s.Folder, s.Names[i]))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Stop()) }()
		subject.clusters[i] = c
		if _, err := subject.preload(ctx, c, s.Config.Keys); err != nil {
			return err
		}
		s.Say("%s: three processes are ready, %d keys stored", c.Name, s.Config.Keys)
	}
	const idleFor = time.Second
	if err := r.rest(ctx); err != nil {
		return err
	}
	if result.Idle, err = subject.idle(ctx, idleFor); err != nil {
		return err
	}
	cells := s.Config.cells()
	blocks, err := r.pairs(ctx, subject, plan(cells, s.Config.Pairs, s.Config.Seed), len(cells),
		s.deadline.Add(-s.loopsFor()))
	if err != nil {
		return err
	}
	for i := range result.Memory {
		if result.Memory[i], err = subject.usage(Side(i)); err != nil {
			return err
		}
	}
	for _, b := range blocks {
		other := 1 - b.Side
		result.IdleOther[other] = max(result.IdleOther[other], b.OtherCPU.Seconds()/b.Report.Seconds)
	}
	result.Rows = summarize(cells, blocks)
	result.Blocks = append(result.Blocks, blocks...)
	return nil
}

// loopsFor is about what the loops' part takes.
func (s *Suite) loopsFor() time.Duration {
	if s.Loops == [2]string{} {
		return 0
	}
	const start = time.Second // of three nodes and their groups
	c := s.Config
	return time.Duration(2*c.LoopPairs*len(c.Groups)) * (start + c.Warmup + c.LoopLength + c.Rest + c.Probe)
}

// runLoops compares the bare loops.
func (s *Suite) runLoops(ctx context.Context, r *runner, result *Result) error {
	if s.Loops == [2]string{} {
		return nil
	}
	cells := s.Config.loopCells()
	subject := &loops{config: s.Config, binaries: s.Loops, folder: s.Folder}
	blocks, err := r.pairs(ctx, subject, plan(cells, s.Config.LoopPairs, s.Config.Seed+1), len(cells), s.deadline)
	if err != nil {
		return err
	}
	result.Loops = summarize(cells, blocks)
	result.Blocks = append(result.Blocks, blocks...)
	for _, cell := range cells[1:] {
		result.Scaling = append(result.Scaling, scaling(cells[0], cell, blocks))
	}
	return nil
}

// scaling sets the quiet pairs of two cells against each other in the order in which they were run; if one of the
// cells had no quiet pair, then all.
func scaling(first, other Cell, blocks []Block) Scaling {
	base, more := pairsOf(first, blocks), pairsOf(other, blocks)
	if b, m := quiet(base), quiet(more); len(b) > 0 && len(m) > 0 {
		base, more = b, m
	}
	result := Scaling{Groups: other.Groups}
	for side := range result.Sides {
		var ratios []float64
		for i := range min(len(base), len(more)) {
			ratios = append(ratios, more[i][side].Report.Rate()/base[i][side].Report.Rate())
		}
		result.Sides[side] = spreadOf(ratios)
	}
	return result
}

// storedFor is about what one side's part of runStored takes: if less time is left, it is left out.
const storedFor = 45 * time.Second

// runStored measures each side's memory with many keys stored, one side after the other, each freshly started.
func (s *Suite) runStored(ctx context.Context, _ *runner, result *Result) error {
	if s.Config.Stored == 0 {
		return nil
	}
	for i := range s.Systems {
		if time.Until(s.deadline) < storedFor {
			result.Notes = append(result.Notes, fmt.Sprintf("memory of %s with %d keys: left out, for no time was left", s.Names[i], s.Config.Stored))
			continue
		}
		stored, err := s.store(ctx, Side(i))
		if err != nil {
			return err
		}
		result.Stored = append(result.Stored, stored)
		s.Say("%s: %d keys stored", s.Names[i], s.Config.Stored)
	}
	return nil
}

// store fills one fresh cluster and reads its memory once it has come to rest.
func (s *Suite) store(ctx context.Context, side Side) (stored Stored, err error) {
	const rest = 3 * time.Second // flushes and compactions that the last keys caused
	c, err := peer.Start(ctx, s.Names[side], s.Systems[side], filepath.Join(s.Folder, s.Names[side]))
	if err != nil {
		return stored, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	subject := &servers{config: s.Config, loader: s.Loader}
	report, err := subject.preload(ctx, c, s.Config.Stored)
	if err != nil {
		return stored, err
	}
	if err := wait(ctx, rest); err != nil {
		return stored, err
	}
	memory, err := c.Usage()
	return Stored{Side: side, Keys: s.Config.Stored, Rate: report.Rate(), Memory: memory}, err
}
