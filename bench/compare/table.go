package compare

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cairndb/cairn/bench/load"
	"github.com/cairndb/cairn/bench/proc"
)

// Print writes a result for people.
func (r *Result) Print(w io.Writer) error {
	p := &printer{tabs: tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)}
	p.head(r)
	if len(r.Rows) > 0 {
		p.line("")
		p.line(fmt.Sprintf("%s against %s: three processes each on loopback, %d B keys, %d B values, %d connections",
			r.Names[A], r.Names[B], load.KeyBytes, r.Config.ValueBytes, r.Config.Conns))
		p.rows(r.Names, r.Rows, func(c Cell) string { return fmt.Sprintf("%s × %d", c.Op, c.Clients) })
	}
	p.memory(r)
	if len(r.Loops) > 0 {
		p.line("")
		p.line(fmt.Sprintf("%s against %s: three nodes and %d clients in one process, %d B entries",
			r.LoopNames[A], r.LoopNames[B], r.Config.LoopClient, r.Config.ValueBytes))
		p.rows(r.LoopNames, r.Loops, func(c Cell) string { return groups(c.Groups) })
		for _, s := range r.Scaling {
			for side, spread := range s.Sides {
				p.line(fmt.Sprintf("%s: the rate with %s is %s of that with %s",
					r.LoopNames[side], groups(s.Groups), ratio(spread), groups(r.Config.Groups[0])))
			}
		}
	}
	p.line("")
	p.notes(r)
	return p.err
}

// printer remembers the first error, so that the lines need not.
type printer struct {
	tabs *tabwriter.Writer
	err  error
}

// line is text that stands alone. Lines go through the table's writer, too, which must not take them for rows.
func (p *printer) line(text string) {
	p.flush()
	p.write(text + "\n")
	p.flush()
}

// flush ends a table.
func (p *printer) flush() {
	if p.err == nil {
		p.err = p.tabs.Flush()
	}
}

// cells is one row of a table.
func (p *printer) cells(cells ...string) { p.write(strings.Join(cells, "\t") + "\t\n") }

func (p *printer) write(text string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.tabs, text)
	}
}

func (p *printer) head(r *Result) {
	c, m := r.Config, r.Machine
	p.line(fmt.Sprintf("seed %d; %d pairs of blocks of %v a row, in random order; %d cores, Linux %s, %s",
		c.Seed, c.Pairs, c.Length, m.Cores, m.Kernel, m.Go))
	p.line(fmt.Sprintf("at the start: load average %s; one write and fdatasync of 4 KiB takes %s", m.Load, short(m.Probe)))
}

// rows prints one table. Figures of the two sides stand as "A / B".
func (p *printer) rows(names [2]string, rows []Row, title func(Cell) string) {
	p.line("")
	p.cells("", names[A]+" op/s", names[B]+" op/s", "ratio [range]", "pairs", "p50 ms", "p99 ms", "max ms",
		"CPU µs/op", "CPU ratio", "syncs/op", "flushes/op", "bytes/op", "errors")
	for _, row := range rows {
		a, b := row.Sides[A], row.Sides[B]
		pairs := fmt.Sprintf("%d/%d", row.Pairs-row.LeftOut, row.Pairs)
		if row.Noisy {
			pairs = fmt.Sprintf("0/%d noisy", row.Pairs)
		}
		p.cells(title(row.Cell), count(a.Rate.Median), count(b.Rate.Median), ratio(row.Ratio), pairs,
			both(ms(a.P50), ms(b.P50)), both(ms(a.P99), ms(b.P99)), both(ms(a.Max), ms(b.Max)),
			both(count(a.CPU.Median), count(b.CPU.Median)), ratio(row.CPURatio),
			both(optional(a.Syncs), optional(b.Syncs)), both(optional(a.Flushes), optional(b.Flushes)),
			both(count(a.WriteBytes.Median), count(b.WriteBytes.Median)),
			both(fmt.Sprint(a.Errors), fmt.Sprint(b.Errors)))
	}
	p.flush()
}

func (p *printer) memory(r *Result) {
	if len(r.Rows)+len(r.Stored) == 0 {
		return
	}
	p.line("")
	p.cells("", "resident MB", "not file-backed", "peak", "idle cores", "… in the other's blocks")
	memory := func(title string, m proc.Usage, more ...string) {
		p.cells(append([]string{title, mb(m.RSS), mb(m.Anon), mb(m.Peak)}, more...)...)
	}
	if len(r.Rows) > 0 {
		for side, m := range r.Memory {
			memory(r.Names[side]+" after all blocks", m, fmt.Sprintf("%.3f", r.Idle[side]), fmt.Sprintf("≤ %.3f", r.IdleOther[side]))
		}
	}
	for _, s := range r.Stored {
		memory(fmt.Sprintf("%s, fresh, %d keys", r.Names[s.Side], s.Keys), s.Memory, "", "")
	}
	p.flush()
}

// notes says what a reader must know before resting anything on the tables.
func (p *printer) notes(r *Result) {
	leftOut, noisy, total := 0, 0, 0
	for _, row := range slices.Concat(r.Rows, r.Loops) {
		total += row.Pairs
		leftOut += row.LeftOut
		if row.Noisy {
			noisy++
		}
		for side, f := range row.Sides {
			if f.Errors > 0 {
				name := r.Names[side]
				if row.Cell.Groups > 0 {
					name = r.LoopNames[side]
				}
				p.line(fmt.Sprintf("%s: %s: %d operations failed, the first: %s", row.Cell, name, f.Errors, f.FirstError))
			}
		}
	}
	if total > 0 {
		p.line(fmt.Sprintf("%d of %d pairs were noisy: the disk's sync time moved by more than %.0f %% during a block.", leftOut, total, maxProbeMove*100))
	}
	if most, above := foreign(r.Blocks, r.Machine.Cores); above > 0 {
		p.line(fmt.Sprintf("In %d of %d blocks other programs used more than %.0f %% of the CPU, %.2f cores at the most: with a quiet machine the figures would be others.",
			above, len(r.Blocks), maxForeign*100, most))
	}
	if noisy > 0 {
		p.line(fmt.Sprintf("In %d rows every pair was; their figures count all pairs and are marked noisy: do not rest anything on them.", noisy))
	}
	for _, n := range r.Notes {
		p.line(n)
	}
}

// maxForeign is the share of the machine's CPU above which other programs are spoken of. The kernel's work for the
// servers (loopback, the disk) is a few hundredths.
const maxForeign = 0.10

// foreign says how many cores others used in the worst block, and in how many blocks they used too much.
func foreign(blocks []Block, cores int) (most float64, above int) {
	for _, b := range blocks {
		used := b.Foreign.Seconds() / b.Report.Seconds
		most = max(most, used)
		if used > maxForeign*float64(cores) {
			above++
		}
	}
	return most, above
}

func groups(n int) string {
	if n == 1 {
		return "1 group"
	}
	return fmt.Sprintf("%d groups", n)
}

func both(a, b string) string { return a + " / " + b }

func ratio(s Spread) string {
	if s.N == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f [%.2f–%.2f]", s.Median, s.Min, s.Max)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }
func mb(n uint64) string        { return fmt.Sprintf("%.0f", float64(n)/1e6) }
func count(f float64) string    { return fmt.Sprintf("%.0f", f) }
func short(d time.Duration) string {
	return d.Round(time.Microsecond).String()
}

func optional(s *Spread) string {
	if s == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f", s.Median)
}
