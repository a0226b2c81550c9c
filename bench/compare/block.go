package compare

import (
	"context"
	"fmt"
	"time"

	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/bench/proc"
)

// Block is what was measured while one load was on one side.
type Block struct {
	Cell   Cell          `json:"cell"`
	Pair   int           `json:"pair"` // its place in the plan
	Side   Side          `json:"side"`
	Report closed.Report `json:"report"`
	// Of the side's processes together, while operations were counted.
	CPU        time.Duration `json:"cpu_ns"`
	WriteBytes uint64        `json:"write_bytes"`
	Syncs      float64       `json:"syncs"` // by the servers' own counters
	SyncsKnown bool          `json:"syncs_known"`
	// Of the disk, whoever asked.
	Flushes      uint64 `json:"flushes"`
	FlushesKnown bool   `json:"flushes_known"`
	// OtherCPU is what the other side used meanwhile, though it had nothing to do.
	OtherCPU time.Duration `json:"other_cpu_ns"`
	// Foreign is what everything else on the machine used meanwhile, the host's share included: neither side, nor the
	// load. Some of it is the kernel's work for them.
	Foreign time.Duration `json:"foreign_cpu_ns"`
	// The median of one sync before and after.
	ProbeBefore time.Duration `json:"probe_before_ns"`
	ProbeAfter  time.Duration `json:"probe_after_ns"`
}

// maxProbeMove is the share by which the probe may move during a block.
const maxProbeMove = 0.20

// Noisy says whether the disk changed so much that the block says more about it than about the servers.
func (b Block) Noisy() bool {
	moved := (b.ProbeAfter - b.ProbeBefore).Abs()
	return float64(moved) > maxProbeMove*float64(b.ProbeBefore)
}

// perOp divides by the operations of the block.
func (b Block) perOp(n float64) float64 { return n / float64(b.Report.Ops) }

// subject is the two things that are compared.
type subject interface {
	// load puts a load on one side. begin and end are called as the counted time begins and ends, and usage and syncs
	// may be called in them.
	load(ctx context.Context, cell Cell, side Side, begin, end func() error) (closed.Report, error)
	usage(Side) (proc.Usage, error)
	loadUsage() (proc.Usage, error) // the process that makes the load, where that is not one of a side's
	syncs(context.Context, Side) (n float64, ok bool, err error)
}

// runner measures blocks.
type runner struct {
	config  Config
	probe   *proc.Probe
	disk    proc.Disk
	hasDisk bool
	probed  time.Duration // what the last probe found
	say     func(format string, args ...any)
}

// pairs runs the planned pairs of blocks of a subject. A pair that would begin after the deadline is left out; of a
// plan's first round, which has one pair of each cell, none is.
func (r *runner) pairs(ctx context.Context, s subject, planned []pair, round int, deadline time.Time) ([]Block, error) {
	if err := r.rest(ctx); err != nil {
		return nil, err
	}
	var blocks []Block
	for n, p := range planned {
		if n >= round && time.Now().After(deadline) {
			r.say("%d pairs are left out: no time is left", len(planned)-n)
			break
		}
		for _, side := range p.order {
			b, err := r.block(ctx, s, n, p.cell, side)
			if err != nil {
				return nil, err
			}
			blocks = append(blocks, b)
		}
		r.say("pair %d of %d: %s", n+1, len(planned), p.cell)
	}
	return blocks, nil
}

// block runs one block. The probe before it is the one after the block before.
func (r *runner) block(ctx context.Context, s subject, n int, cell Cell, side Side) (Block, error) {
	var before, after counters
	report, err := s.load(ctx, cell, side,
		func() (err error) { before, err = r.read(ctx, s, side); return err },
		func() (err error) { after, err = r.read(ctx, s, side); return err })
	if err != nil {
		return Block{}, err
	}
	if report.Ops == 0 {
		return Block{}, fmt.Errorf("%s: nothing was done", cell)
	}
	b := Block{
		Cell: cell, Pair: n, Side: side, Report: report,
		CPU:        after.usage[side].CPU - before.usage[side].CPU,
		WriteBytes: after.usage[side].WriteBytes - before.usage[side].WriteBytes,
		Syncs:      after.syncs - before.syncs, SyncsKnown: after.syncsKnown && before.syncsKnown,
		Flushes: after.flushes - before.flushes, FlushesKnown: r.hasDisk,
		OtherCPU:    after.usage[1-side].CPU - before.usage[1-side].CPU,
		Foreign:     max(0, (after.busy-before.busy)-(after.ours-before.ours)),
		ProbeBefore: r.probed,
	}
	if err := r.rest(ctx); err != nil {
		return Block{}, err
	}
	b.ProbeAfter = r.probed
	return b, nil
}

// counters is what everything stood at at one instant.
type counters struct {
	usage      [2]proc.Usage
	ours, busy time.Duration // CPU of both sides and the load; of the whole machine
	flushes    uint64
	syncs      float64
	syncsKnown bool
}

// read takes all counters. The servers' own come last, for they take their time to answer; what the answer costs them
// is counted: three pages of metrics in a block of seconds.
func (r *runner) read(ctx context.Context, s subject, side Side) (c counters, err error) {
	for i := range c.usage {
		if c.usage[i], err = s.usage(Side(i)); err != nil {
			return c, err
		}
		c.ours += c.usage[i].CPU
	}
	load, err := s.loadUsage()
	if err != nil {
		return c, err
	}
	c.ours += load.CPU
	if c.busy, err = proc.Busy(); err != nil {
		return c, err
	}
	if r.hasDisk {
		if c.flushes, err = r.disk.Flushes(); err != nil {
			return c, err
		}
	}
	c.syncs, c.syncsKnown, err = s.syncs(ctx, side)
	return c, err
}

// rest lets what a load left behind come to its end, and probes the disk.
func (r *runner) rest(ctx context.Context) (err error) {
	if err := wait(ctx, r.config.Rest); err != nil {
		return err
	}
	r.probed, err = r.probe.Run(r.config.Probe)
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
