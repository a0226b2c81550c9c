package tidy

import (
	"io/fs"
	"os"
	"testing"
)

// rules are all that is held, each by the name under which it fails.
var rules = []struct {
	name  string
	check func(*tree, fs.FS) []finding
}{
	{"floors", textOnly(ruleFloors)},
	{"floor table", textOnly(ruleFloorTable)},
	{"foreign imports", textOnly(ruleForeign)},
	{"packages", textOnly(rulePackages)},
	{"core", textOnly(ruleCore)},
	{"clock", textOnly(ruleClock)},
	{"sleep", textOnly(ruleSleep)},
	{"init", textOnly(ruleInit)},
	{"unfinished", textOnly(ruleUnfinished)},
	{"size", textOnly(ruleSize)},
	{"docs", ruleDocs},
	{"dependencies", textOnly(ruleDependencies)},
	{"generated", textOnly(ruleGenerated)},
	{"limits", textOnly(ruleLimits)},
	{"licence", textOnly(ruleLicence)},
}

// textOnly adapts a rule that needs only what was loaded.
func textOnly(rule func(*tree) []finding) func(*tree, fs.FS) []finding {
	return func(t *tree, _ fs.FS) []finding { return rule(t) }
}

// TestRepository holds every rule against the repository.
func TestRepository(t *testing.T) {
	root := os.DirFS("../..")
	tree, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.source) == 0 || tree.text["go.mod"] == "" {
		t.Fatal("found no Go files or no go.mod: this test must run in internal/tidy of the repository")
	}
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			for _, f := range rule.check(tree, root) {
				t.Error(f)
			}
		})
	}
}

// TestExceptions: an exception for a file that is gone, or that no longer needs it, is taken out of the table.
func TestExceptions(t *testing.T) {
	root := os.DirFS("../..")
	tree, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	for file, reason := range clockAllowed {
		if len(reason) < 20 {
			t.Errorf("%s: an exception needs its reason", file)
		}
		used := false
		for _, s := range tree.source {
			used = used || s.path == file && len(tree.calls(s, "time", clock, "")) > 0
		}
		if !used {
			t.Errorf("%s does not read a clock: take it out of clockAllowed", file)
		}
	}
}
