//go:build mutants

package sim

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/cairndb/cairn/internal/mutant"
)

// MutantNames lists the mistakes that can be planted, in order.
func MutantNames() []string { return mutant.Names() }

// Hunt plants a mistake and runs seed after seed, from first on and at most so many, until a run complains. It returns how
// many seeds that took and the first complaint; an empty one if the mistake survived, or if there is none of that name:
// then no seed was run. A panic of the product is a complaint: its invariants are checks too. The process makes no
// mistake any more when Hunt returns.
func Hunt(name string, first, most uint64, draw func(seed uint64) *Plan) (seeds int, violation string) {
	if name == "" || mutant.Select(name) != nil {
		return 0, ""
	}
	defer func() { _ = mutant.Select("") }() // selecting none cannot fail
	for seed := first; seed-first < most; seed++ {
		seeds++
		if violation = complaint(draw(seed)); violation != "" {
			return seeds, fmt.Sprintf("seed %d: %s", seed, violation)
		}
	}
	return seeds, ""
}

// complaint runs a plan and returns the first thing that was found wrong with it.
func complaint(p *Plan) (what string) {
	defer func() {
		if r := recover(); r != nil {
			what = fmt.Sprintf("panic: %v, at %s", r, panicked(string(debug.Stack())))
		}
	}()
	if res := Run(p, nil); !res.Passed() {
		return res.Violations[0].Checker + ": " + res.Violations[0].What
	}
	return ""
}

// panicked is the function that a stack says panicked: the first frame behind the runtime's, and behind those of whoever
// panics on another's behalf.
func panicked(stack string) string {
	_, stack, found := strings.Cut(stack, "\npanic(")
	if !found {
		return "an unknown place"
	}
	for _, line := range strings.Split(stack, "\n")[2:] {
		if strings.HasPrefix(line, "\t") || !strings.Contains(line, "(") || strings.Contains(line, "/invariants.") || strings.Contains(line, "raftgroup.(*reasons)") {
			continue
		}
		return strings.TrimPrefix(line[:strings.LastIndex(line, "(")], "github.com/cairndb/cairn/")
	}
	return "an unknown place"
}
