package compare

import (
	"fmt"
	"time"
)

// Figures is what the kept blocks of one cell say of one side.
type Figures struct {
	Rate       Spread        `json:"ops_per_second"`
	P50        time.Duration `json:"p50_ns"` // medians of the blocks' own
	P99        time.Duration `json:"p99_ns"`
	Max        time.Duration `json:"max_ns"` // the highest of all
	CPU        Spread        `json:"cpu_us_per_op"`
	Syncs      *Spread       `json:"syncs_per_op,omitempty"`   // nil: not known
	Flushes    *Spread       `json:"flushes_per_op,omitempty"` // nil: not known
	WriteBytes Spread        `json:"bytes_per_op"`
	Errors     int           `json:"errors"` // of all blocks, kept or not
	FirstError string        `json:"first_error,omitempty"`
}

// Row is one cell of the comparison.
type Row struct {
	Cell  Cell       `json:"cell"`
	Sides [2]Figures `json:"sides"`
	// Ratio is the rate of A over that of B, and CPURatio the CPU of an operation of A over that of B; one figure for
	// each kept pair.
	Ratio    Spread `json:"ratio"`
	CPURatio Spread `json:"cpu_ratio"`
	Pairs    int    `json:"pairs"`
	LeftOut  int    `json:"left_out"` // pairs of which a block was noisy
	// Noisy: every pair was, and the figures are those of all of them.
	Noisy bool `json:"noisy"`
}

func (c Cell) String() string {
	if c.Groups > 0 {
		return fmt.Sprintf("%s, %d clients, %s", c.Op, c.Clients, groups(c.Groups))
	}
	return fmt.Sprintf("%s, %d clients", c.Op, c.Clients)
}

// summarize makes the rows of the cells from the blocks of their pairs.
func summarize(cells []Cell, blocks []Block) []Row {
	rows := make([]Row, 0, len(cells))
	for _, cell := range cells {
		all := pairsOf(cell, blocks)
		counted := quiet(all)
		row := Row{Cell: cell, Pairs: len(all), LeftOut: len(all) - len(counted)}
		if len(counted) == 0 {
			row.Noisy, counted = true, all
		}
		row.fill(counted, all)
		rows = append(rows, row)
	}
	return rows
}

// pairsOf returns a cell's blocks by pair, in the order in which they were run.
func pairsOf(cell Cell, blocks []Block) (pairs [][2]Block) {
	at := map[int]int{} // pair in the plan → index in pairs
	for _, b := range blocks {
		if b.Cell != cell {
			continue
		}
		i, ok := at[b.Pair]
		if !ok {
			i = len(pairs)
			at[b.Pair] = i
			pairs = append(pairs, [2]Block{})
		}
		pairs[i][b.Side] = b
	}
	return pairs
}

// quiet leaves out the pairs of which a block was noisy.
func quiet(all [][2]Block) (kept [][2]Block) {
	for _, p := range all {
		if !p[A].Noisy() && !p[B].Noisy() {
			kept = append(kept, p)
		}
	}
	return kept
}

// fill computes the figures from the pairs that count; errors are those of all.
func (row *Row) fill(counted, all [][2]Block) {
	var ratios, cpuRatios []float64
	for _, p := range counted {
		ratios = append(ratios, p[A].Report.Rate()/p[B].Report.Rate())
		if b := p[B].perOp(float64(p[B].CPU)); b > 0 {
			cpuRatios = append(cpuRatios, p[A].perOp(float64(p[A].CPU))/b)
		}
	}
	row.Ratio, row.CPURatio = spreadOf(ratios), spreadOf(cpuRatios)
	for side := range row.Sides {
		row.Sides[side] = figuresOf(Side(side), counted, all)
	}
}

func figuresOf(side Side, counted, all [][2]Block) (f Figures) {
	each := func(value func(Block) float64) Spread {
		var values []float64
		for _, p := range counted {
			values = append(values, value(p[side]))
		}
		return spreadOf(values)
	}
	known := true
	for _, p := range counted {
		f.Max = max(f.Max, p[side].Report.Max)
		known = known && p[side].SyncsKnown
	}
	for _, p := range all {
		f.Errors += p[side].Report.Errors
		if f.FirstError == "" {
			f.FirstError = p[side].Report.FirstError
		}
	}
	f.Rate = each(func(b Block) float64 { return b.Report.Rate() })
	f.P50 = time.Duration(each(func(b Block) float64 { return float64(b.Report.P50) }).Median)
	f.P99 = time.Duration(each(func(b Block) float64 { return float64(b.Report.P99) }).Median)
	f.CPU = each(func(b Block) float64 { return b.perOp(float64(b.CPU) / float64(time.Microsecond)) })
	f.WriteBytes = each(func(b Block) float64 { return b.perOp(float64(b.WriteBytes)) })
	if known {
		s := each(func(b Block) float64 { return b.perOp(b.Syncs) })
		f.Syncs = &s
	}
	if len(counted) > 0 && counted[0][side].FlushesKnown {
		s := each(func(b Block) float64 { return b.perOp(float64(b.Flushes)) })
		f.Flushes = &s
	}
	return f
}
