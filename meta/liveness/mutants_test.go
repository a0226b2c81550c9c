//go:build mutants

package liveness

import (
	"testing"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/mutant"
)

// TestMutant: the law of changes finds the planted mistake, and complains of nothing without it.
func TestMutant(t *testing.T) {
	defer func() { _ = mutant.Select("") }() // selecting none cannot fail
	for _, name := range []string{"", "epoch-not-raised"} {
		if err := mutant.Select(name); err != nil {
			t.Fatal(err)
		}
		r := &metapb.NodeRecord{NodeId: 3, State: metapb.NodeState_NODE_STATE_SUSPECT, Generation: 4}
		after, err := Apply(r, Failed, "because", 7)
		if err != nil {
			t.Fatal(err)
		}
		var found complaints
		checkChange(&found, r, after)
		if (found > 0) != (name != "") {
			t.Errorf("mutant %q: %d complaints", name, found)
		}
	}
}

// complaints counts what a law says.
type complaints int

func (c *complaints) Fatal(...any)          { *c++ }
func (c *complaints) Fatalf(string, ...any) { *c++ }
