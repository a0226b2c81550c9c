package sim

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// Many is a run of many seeds, in worker processes.
type Many struct {
	First, Seeds uint64
	For          time.Duration // 0: until all seeds are run; else no seed is begun after that
	Workers      int
	Only         Only
	// Command starts a worker: a process that reads a seed a line and answers each with an Outcome, see Work.
	Command func() *exec.Cmd
	// Limit is how long a seed may take before its worker is killed and it is counted as failed.
	Limit time.Duration
	// Progress, if not nil, is told after each seed.
	Progress func(*Summary)
}

// Outcome is what a worker says of one seed.
type Outcome struct {
	Seed                uint64
	Simulated           time.Duration
	Events              int64
	OK, Failed, Unknown int
	Fired               map[FaultKind]int
	Seen                map[string]int
	Checker, What       string // of the first violation; empty: passed
}

// Summary is what many seeds came to. Summaries of parts can be merged.
type Summary struct {
	From, To            uint64 // seeds, both included; of merged ones the lowest and the highest
	Seeds               int
	Wall, Busy          time.Duration // by the clock; by the workers together
	Simulated           time.Duration
	Events              int64
	OK, Failed, Unknown int
	Fired               map[FaultKind]int
	Seen                map[string]int
	Bad                 []Outcome
}

// Work is a worker: it answers each seed that it reads.
func Work(in io.Reader, out io.Writer, only Only) error {
	lines := bufio.NewScanner(in)
	enc := json.NewEncoder(out)
	for lines.Scan() {
		var seed uint64
		if _, err := fmt.Sscan(lines.Text(), &seed); err != nil {
			return fmt.Errorf("not a seed: %q", lines.Text())
		}
		if err := enc.Encode(outcomeOfSeed(seed, only)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func outcomeOfSeed(seed uint64, only Only) Outcome {
	r := RunSafely(Draw(seed, only))
	o := Outcome{Seed: seed, Simulated: r.Simulated, Events: r.Events, OK: r.OK, Failed: r.Failed, Unknown: r.Unknown, Fired: r.Fired, Seen: r.Seen}
	if !r.Passed() {
		o.Checker, o.What = r.Violations[0].Checker, r.Violations[0].What
	}
	return o
}

// Run runs the seeds. Seeds that fail are in the summary; the error is of what kept seeds from being run.
func (m *Many) Run(ctx context.Context) (*Summary, error) {
	began := time.Now()
	seeds := make(chan uint64)
	sum := &Summary{From: m.First, Fired: map[FaultKind]int{}, Seen: map[string]int{}}
	var mu sync.Mutex
	var firstErr error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range max(m.Workers, 1) {
		wg.Go(func() {
			w := &worker{m: m}
			defer w.end()
			for seed := range seeds {
				start := time.Now()
				o, err := w.ask(ctx, seed)
				mu.Lock()
				if err != nil {
					if firstErr == nil && ctx.Err() == nil {
						firstErr = err
					}
					mu.Unlock()
					cancel()
					continue
				}
				sum.add(&o)
				sum.Busy += time.Since(start)
				sum.Wall = time.Since(began)
				if m.Progress != nil {
					m.Progress(sum)
				}
				mu.Unlock()
			}
		})
	}
	for seed := m.First; seed-m.First < m.Seeds && ctx.Err() == nil && (m.For == 0 || time.Since(began) < m.For); seed++ {
		select {
		case seeds <- seed:
		case <-ctx.Done():
		}
	}
	close(seeds)
	wg.Wait()
	sum.Wall = time.Since(began)
	slices.SortFunc(sum.Bad, func(a, b Outcome) int { return int(int64(a.Seed) - int64(b.Seed)) })
	return sum, firstErr
}

// worker is one process.
type worker struct {
	m   *Many
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// ask has the process run a seed. One that dies or does not answer in time is replaced, and the seed has failed.
func (w *worker) ask(ctx context.Context, seed uint64) (Outcome, error) {
	if w.cmd == nil {
		if err := w.start(); err != nil {
			return Outcome{}, fmt.Errorf("a worker does not start: %w", err)
		}
	}
	type answer struct {
		o   Outcome
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		var a answer
		if _, a.err = fmt.Fprintln(w.in, seed); a.err == nil {
			a.err = w.out.Decode(&a.o)
		}
		ch <- a
	}()
	limit := time.NewTimer(w.m.Limit)
	defer limit.Stop()
	failed := Outcome{Seed: seed, Checker: "ends"}
	select {
	case a := <-ch:
		if a.err == nil {
			return a.o, nil
		}
		failed.What = fmt.Sprintf("the worker died: %v", a.err)
	case <-limit.C:
		failed.What = fmt.Sprintf("not done within %s of the clock", w.m.Limit)
		w.end()
		<-ch
	case <-ctx.Done():
		w.end()
		<-ch
		return Outcome{}, ctx.Err()
	}
	w.end()
	return failed, nil
}

func (w *worker) start() error {
	cmd := w.m.Command()
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w.cmd, w.in, w.out = cmd, in, json.NewDecoder(out)
	return nil
}

func (w *worker) end() {
	if w.cmd == nil {
		return
	}
	_ = w.in.Close()
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait() // killed: its exit says nothing
	w.cmd = nil
}

func (s *Summary) add(o *Outcome) {
	s.Seeds++
	s.From, s.To = min(s.From, o.Seed), max(s.To, o.Seed)
	s.Simulated += o.Simulated
	s.Events += o.Events
	s.OK, s.Failed, s.Unknown = s.OK+o.OK, s.Failed+o.Failed, s.Unknown+o.Unknown
	for k, n := range o.Fired {
		s.Fired[k] += n
	}
	for k, n := range o.Seen {
		s.Seen[k] += n
	}
	if o.Checker != "" {
		s.Bad = append(s.Bad, *o)
	}
}

// Merge adds the figures of another part.
func (s *Summary) Merge(o *Summary) {
	s.From, s.To = min(s.From, o.From), max(s.To, o.To)
	s.Seeds, s.Wall, s.Busy, s.Simulated, s.Events = s.Seeds+o.Seeds, s.Wall+o.Wall, s.Busy+o.Busy, s.Simulated+o.Simulated, s.Events+o.Events
	s.OK, s.Failed, s.Unknown = s.OK+o.OK, s.Failed+o.Failed, s.Unknown+o.Unknown
	for k, n := range o.Fired {
		s.Fired[k] += n
	}
	for k, n := range o.Seen {
		s.Seen[k] += n
	}
	s.Bad = append(s.Bad, o.Bad...)
}

// wanted is what watches and leases are to have met in any large run.
var wanted = [...]string{
	"watch events", "watches from a revision on", "watches over several ranges", "watches on a shared stream", "watches whose history was gone",
	"watches whose stream broke", "notifications of progress", "pulls of watches", "pulls in several pieces", "closings of quiet ranges",
	"leases granted", "leases that became guests", "leases that ended by themselves", "leases ended in several ranges by their home",
}

// Unseen lists what watches and leases were to meet and never did.
func (s *Summary) Unseen() (out []string) {
	for _, what := range wanted {
		if s.Seen[what] == 0 {
			out = append(out, what)
		}
	}
	return out
}

// Missing lists the kinds of faults that never befell anything.
func (s *Summary) Missing(only Only) (out []FaultKind) {
	for i := range kinds {
		if only.allows(kinds[i].Class) && s.Fired[kinds[i].Kind] == 0 {
			out = append(out, kinds[i].Kind)
		}
	}
	return out
}

// String is the table for people.
func (s *Summary) String() string {
	rate := 0.0
	if s.Busy > 0 {
		rate = s.Simulated.Seconds() / s.Busy.Seconds()
	}
	out := fmt.Sprintf("%d seeds (%d to %d), %.1f simulated hours in %s, %.0f simulated seconds a second and worker\n",
		s.Seeds, s.From, s.To, s.Simulated.Hours(), s.Wall.Round(time.Second), rate)
	out += fmt.Sprintf("%d operations: %d answered, %d refused, %d of unknown outcome\n\nfaults that befell something\n", s.OK+s.Failed+s.Unknown, s.OK, s.Failed, s.Unknown)
	for i := range kinds {
		out += fmt.Sprintf("  %-4s %-18s %9d  %s\n", kinds[i].Class, kinds[i].Kind, s.Fired[kinds[i].Kind], kinds[i].About)
	}
	out += "\nseen\n"
	for _, k := range sortedKeys(s.Seen) {
		out += fmt.Sprintf("  %-34s %9d\n", k, s.Seen[k])
	}
	for _, b := range s.Bad {
		out += fmt.Sprintf("\nFAILED seed %d: %s: %s\n", b.Seed, b.Checker, b.What)
	}
	return out
}
