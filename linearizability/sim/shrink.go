package sim

import (
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/cairndb/cairn/linearizability"
)

// RunSafely is Run; a panic of the product is a violation, with its stack.
func RunSafely(p *Plan) (r *Result) {
	defer func() {
		if v := recover(); v != nil {
			what := fmt.Sprintf("%v\n%s", v, debug.Stack())
			r = &Result{Plan: p, Violations: []linearizability.Violation{{Checker: "no panic", What: what}}}
		}
	}()
	return Run(p, nil)
}

// Shrink takes away from a failing plan what it fails without: faults first, by halves and then one by one (delta
// debugging, Zeller and Hildebrandt 2002), then operations, clients, ranges and length, as long as the same checker
// complains. At most budget runs are made. run is RunSafely; progress, if not nil, is told of each plan that is smaller.
func Shrink(p *Plan, budget int, run func(*Plan) *Result, progress func(*Plan)) (*Plan, *Result) {
	s := &shrinker{run: run, left: budget, progress: progress}
	first := run(p)
	if first.Passed() {
		return p, first
	}
	s.best, s.result, s.checker = p, first, first.Violations[0].Checker
	for before := -1; before != len(s.best.Faults) && s.left > 0; {
		before = len(s.best.Faults)
		s.faults()
	}
	s.sizes()
	return s.best, s.result
}

type shrinker struct {
	run      func(*Plan) *Result
	left     int
	progress func(*Plan)
	best     *Plan
	result   *Result
	checker  string
}

// try keeps a smaller plan if the same checker complains of it.
func (s *shrinker) try(change func(*Plan)) bool {
	if s.left <= 0 {
		return false
	}
	s.left--
	p := clonePlan(s.best)
	change(p)
	r := s.run(p)
	if r.Passed() || r.Violations[0].Checker != s.checker {
		return false
	}
	s.best, s.result = p, r
	if s.progress != nil {
		s.progress(p)
	}
	return true
}

func clonePlan(p *Plan) *Plan {
	raw, err := json.Marshal(p)
	c := &Plan{}
	if err == nil {
		err = json.Unmarshal(raw, c)
	}
	if err != nil {
		panic(err) // a plan is plain data
	}
	return c
}

// faults leaves out ever smaller pieces of the schedule.
func (s *shrinker) faults() {
	for size := (len(s.best.Faults) + 1) / 2; size >= 1 && s.left > 0; size /= 2 {
		for at := 0; at < len(s.best.Faults); {
			if !s.try(func(p *Plan) { p.Faults = slices.Delete(p.Faults, at, min(at+size, len(p.Faults))) }) {
				at += size
			}
		}
	}
}

// sizes makes the rest of the plan plainer and smaller.
func (s *shrinker) sizes() {
	s.try(func(p *Plan) { p.Network = NetworkPlan{Delay: p.Network.Delay} })
	s.try(func(p *Plan) { p.Disk.Jitter, p.Disk.Apply = 0, 0 })
	s.try(func(p *Plan) { p.Clock = nil })
	s.try(func(p *Plan) { p.Pebble = false })
	for s.best.Ranges > 1 && s.try(func(p *Plan) { p.Ranges--; p.Workload = p.Workload[:p.Ranges] }) {
	}
	for s.best.Ops > 10 && s.try(func(p *Plan) { p.Ops /= 2 }) {
	}
	for s.best.Clients > 1 && s.try(func(p *Plan) { p.Clients-- }) {
	}
	for s.best.Length > 2*time.Second && s.try(func(p *Plan) { p.Length = p.Length * 3 / 4 }) {
	}
	for s.best.Nodes > 3 && s.try(func(p *Plan) { p.Nodes--; p.Spare = max(0, p.Spare-1); p.Clock = p.Clock[:min(len(p.Clock), p.Nodes)] }) {
	}
}
