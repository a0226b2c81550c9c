package sim

import (
	"testing"

	"go.uber.org/goleak"
)

// The steps with a lease that are under way end with their process, and with the run: nothing is left that could go on.
func TestStepsWithLeasesEndWithTheirProcess(t *testing.T) {
	ignored := goleak.IgnoreCurrent()
	for seed := uint64(1); seed <= 40; seed++ {
		r := Run(Draw(seed, Only{}), nil)
		goleak.VerifyNone(t, ignored)
		if n := r.Seen["steps with leases that a crash broke off"]; n > 0 {
			t.Logf("seed %d: %d were broken off", seed, n)
			return
		}
	}
	t.Error("no process died between two steps")
}
