//go:build mutants

package change_test

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

// TestMutants: each planted mistake is found by a law.
func TestMutants(t *testing.T) {
	for name, law := range map[string]string{
		"decision-without-generation": "TestFollowsWhatWasDecidedOn",
		"follow-for-ever":             "TestFollowsWhatWasDecidedOn",
		"withdrawn-goes-on":           "TestFollowsWhatWasDecidedOn",
		"removal-below-quorum":        "TestKeepsAQuorum",
	} {
		again := exec.Command(os.Args[0], "-test.run=^"+law+"$", "-rapid.nofailfile", "-rapid.checks=2000")
		again.Env = append(os.Environ(), "CAIRN_MUTANT="+name)
		if out, err := again.CombinedOutput(); err == nil {
			t.Errorf("%s survives %s: %s", name, law, out)
		}
	}
}
