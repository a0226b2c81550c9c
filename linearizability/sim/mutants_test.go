//go:build mutants

package sim

import (
	"strings"
	"testing"
)

// drawAny draws of all faults.
func drawAny(seed uint64) *Plan { return Draw(seed, Only{}) }

// TestHunt: a name that is none runs nothing; a mistake that every run makes is found by the first, and made no more after.
func TestHunt(t *testing.T) {
	if seeds, violation := Hunt("no such mistake", 1, 1, drawAny); seeds != 0 || violation != "" {
		t.Errorf("a mistake that does not exist: %d seeds, %q", seeds, violation)
	}
	seeds, violation := Hunt("append-before-sync", 1, 3, drawAny)
	if seeds != 1 || !strings.HasPrefix(violation, "seed 1: ") {
		t.Errorf("acknowledged before the sync: %d seeds, %q", seeds, violation)
	}
	if seeds, violation := Hunt("", 1, 1, drawAny); seeds != 0 || violation != "" {
		t.Errorf("no mistake: %d seeds, %q", seeds, violation)
	}
	if r := Run(drawAny(1), nil); !r.Passed() {
		t.Errorf("seed 1 fails without a mistake: %v", r.Violations[0])
	}
}

// TestAimedMutants: what a fault aims at is where a mistake shows: it is found within a few runs with nothing but that fault.
func TestAimedMutants(t *testing.T) {
	for _, a := range aimed {
		t.Run(a.mutant, func(t *testing.T) {
			seeds, violation := Hunt(a.mutant, 1, 12, func(seed uint64) *Plan { return aimedPlan(a.kind, seed) })
			if t.Logf("%d seeds: %s", seeds, violation); violation == "" {
				t.Errorf("survives 12 runs with %s", a.kind)
			}
		})
	}
}

// TestPanicked: the place of a panic is found in its stack.
func TestPanicked(t *testing.T) {
	if got := panicked("no stack of a panic"); got != "an unknown place" {
		t.Errorf("no stack: %s", got)
	}
	stack := "goroutine 1 [running]:\npanic({0x1, 0x2})\n\t/x/panic.go:1 +0x1\n" +
		"github.com/cairndb/cairn/internal/invariants.Check(0x0)\n\t/x/y.go:1 +0x2\n" +
		"github.com/cairndb/cairn/raftgroup.(*logView).append(0xc000, {0x1})\n\t/x/log.go:2 +0x3\n"
	if got := panicked(stack); got != "raftgroup.(*logView).append" {
		t.Errorf("found %s", got)
	}
}
