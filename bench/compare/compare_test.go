package compare

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/bench/proc"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		figures []float64
		want    Spread
	}{
		{nil, Spread{}},
		{[]float64{2}, Spread{2, 2, 2, 1}},
		{[]float64{3, 1, 2}, Spread{2, 1, 3, 3}},
		{[]float64{4, 1, 2, 9}, Spread{3, 1, 9, 4}},
	} {
		before := slices.Clone(c.figures)
		if got := spreadOf(c.figures); got != c.want {
			t.Errorf("the spread of %v is %+v, not %+v", c.figures, got, c.want)
		}
		if !slices.Equal(before, c.figures) {
			t.Errorf("%v was put in order", before)
		}
	}
}

func TestPlan(t *testing.T) {
	cells := Full(0).cells()
	const pairs = 5
	planned := plan(cells, pairs, 7)
	if len(planned) != len(cells)*pairs {
		t.Fatalf("%d pairs for %d cells", len(planned), len(cells))
	}
	for _, cell := range cells {
		n, firstA := 0, 0
		for _, p := range planned {
			if p.cell != cell {
				continue
			}
			n++
			if p.order[0] == A {
				firstA++
			}
			if p.order[0] == p.order[1] {
				t.Errorf("%s: a pair has one side twice", cell)
			}
		}
		if n != pairs || firstA < pairs/2 || firstA > pairs/2+1 {
			t.Errorf("%s: %d pairs, of which %d begin with A", cell, n, firstA)
		}
	}
	if !slices.Equal(planned, plan(cells, pairs, 7)) {
		t.Error("one seed gives two orders")
	}
	if slices.Equal(planned, plan(cells, pairs, 8)) {
		t.Error("two seeds give one order")
	}
}

// blockOf makes a block of one second; probes before and after it in µs.
func blockOf(pair int, side Side, ops int, before, after int) Block {
	return Block{
		Cell: Cell{Op: "put", Clients: 1}, Pair: pair, Side: side, CPU: time.Second, WriteBytes: 4096,
		Report:      closed.Report{Ops: ops, Seconds: 1, P50: time.Millisecond, Max: time.Duration(ops)},
		ProbeBefore: time.Duration(before) * time.Microsecond, ProbeAfter: time.Duration(after) * time.Microsecond,
	}
}

func TestNoisyPairsAreLeftOut(t *testing.T) {
	blocks := []Block{
		blockOf(0, A, 200, 100, 100), blockOf(0, B, 100, 100, 120), // at the bound
		blockOf(1, B, 100, 100, 79), blockOf(1, A, 900, 100, 100), // beyond it
		blockOf(2, B, 100, 100, 95), blockOf(2, A, 400, 95, 100),
	}
	blocks[2].Report.Errors, blocks[2].Report.FirstError = 3, "refused"
	row := summarize([]Cell{blocks[0].Cell}, blocks)[0]
	if row.Pairs != 3 || row.LeftOut != 1 || row.Noisy {
		t.Errorf("%d pairs, %d left out, noisy: %v", row.Pairs, row.LeftOut, row.Noisy)
	}
	if want := (Spread{3, 2, 4, 2}); row.Ratio != want {
		t.Errorf("the ratio is %+v, not %+v", row.Ratio, want)
	}
	if want := (Spread{0.375, 0.25, 0.5, 2}); row.CPURatio != want {
		t.Errorf("the ratio of CPU is %+v, not %+v", row.CPURatio, want)
	}
	a, b := row.Sides[A], row.Sides[B]
	if a.Rate.Median != 300 || a.Max != 400 || b.Errors != 3 || b.FirstError != "refused" || a.Syncs != nil || a.Flushes != nil {
		t.Errorf("the figures are %+v and %+v", a, b)
	}
}

func TestAllNoisy(t *testing.T) {
	blocks := []Block{blockOf(4, A, 200, 100, 200), blockOf(4, B, 100, 200, 200)}
	row := summarize([]Cell{blocks[0].Cell}, blocks)[0]
	if row.Pairs != 1 || row.LeftOut != 1 || !row.Noisy || row.Ratio.Median != 2 {
		t.Errorf("the row is %+v", row)
	}
}

func TestScaling(t *testing.T) {
	one, many := Cell{Op: Propose, Groups: 1}, Cell{Op: Propose, Groups: 48}
	var blocks []Block
	for pair, ops := range []int{100, 200, 60, 100} {
		for _, side := range []Side{A, B} {
			b := blockOf(pair, side, ops*(1+int(side)*pair/2), 100, 100)
			b.Cell = []Cell{one, many}[pair/2]
			blocks = append(blocks, b)
		}
	}
	got := scaling(one, many, blocks)
	if got.Groups != 48 || got.Sides[A] != (Spread{0.55, 0.5, 0.6, 2}) || got.Sides[B] != (Spread{1.1, 1, 1.2, 2}) {
		t.Errorf("the scaling is %+v", got)
	}
}

func TestFollow(t *testing.T) {
	const good = `{"event":"begin"}{"event":"end"}{"event":"done","report":{"ops":3}}`
	var seen []string
	note := func(s string) func() error { return func() error { seen = append(seen, s); return nil } }
	report, err := follow(strings.NewReader(good), note("begin"), note("end"))
	if err != nil || report.Ops != 3 || !slices.Equal(seen, []string{"begin", "end"}) {
		t.Errorf("report %+v, events %v, error %v", report, seen, err)
	}
	failing := func() error { return errors.New("no counters") }
	for name, c := range map[string]struct {
		lines string
		begin func() error
	}{
		"no report":       {`{"event":"begin"}`, note("")},
		"an empty report": {`{"event":"done"}`, note("")},
		"another event":   {`{"event":"pause"}`, note("")},
		"no counters":     {good, failing},
	} {
		if _, err := follow(strings.NewReader(c.lines), c.begin, note("")); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPrint(t *testing.T) {
	blocks := []Block{
		blockOf(0, A, 200, 100, 100), blockOf(0, B, 100, 100, 100),
		blockOf(1, A, 200, 100, 200), blockOf(1, B, 100, 200, 200),
	}
	blocks[2].Cell.Clients, blocks[3].Cell.Clients = 64, 64
	blocks[3].Report.Errors, blocks[3].Report.FirstError = 1, "refused"
	r := &Result{
		Names: [2]string{"cairn", "etcd"}, LoopNames: [2]string{"loops", "dragonboat"}, Config: Quick(42),
		Rows:    summarize([]Cell{blocks[0].Cell, blocks[2].Cell}, blocks),
		Scaling: []Scaling{{Groups: 48}}, Notes: []string{"a note"},
	}
	r.Loops = r.Rows[:1]
	r.Machine.Cores, r.Blocks = 2, blocks
	r.Blocks[1].Foreign = 1500 * time.Millisecond
	r.Stored = []Stored{{Side: B, Keys: 1000, Memory: proc.Usage{RSS: 123e6}}}
	var text bytes.Buffer
	if err := r.Print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"seed 42", "put × 1 ", "2.00 [2.00–2.00]", "1/1", "0/1 noisy", "put, 64 clients: etcd: 1 operations failed, the first: refused",
		"1 of 3 pairs were noisy", "In 1 rows", "the rate with 48 groups is", "In 1 of 4 blocks other programs used more than 10 % of the CPU, 1.50 cores", "a note", "cairn after all blocks", "etcd, fresh, 1000 keys          123",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, text.String())
		}
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(data, &back); err != nil || back.Rows[0].Ratio != r.Rows[0].Ratio {
		t.Errorf("as JSON it comes back as %+v, error %v", back.Rows, err)
	}
}
