//go:build mutants

package watch

import (
	"os"
	"os/exec"
	"testing"

	"github.com/cairndb/cairn/internal/mutant"
)

// TestMain makes the mistake that the environment names: TestMutants runs this binary again for each.
func TestMain(m *testing.M) {
	if err := mutant.Select(os.Getenv("CAIRN_MUTANT")); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// TestMutants: the law finds each planted mistake.
func TestMutants(t *testing.T) {
	for _, name := range []string{"watch-gap-at-split", "watch-double-at-resume", "watch-early-progress", "watch-lost-at-compaction"} {
		again := exec.Command(os.Args[0], "-test.run=^TestWatches$", "-rapid.nofailfile", "-rapid.checks=20000", "-rapid.shrinktime=1ms")
		again.Env = append(os.Environ(), "CAIRN_MUTANT="+name)
		if out, err := again.CombinedOutput(); err == nil {
			t.Errorf("%s survives the law: %s", name, out)
		}
	}
}
