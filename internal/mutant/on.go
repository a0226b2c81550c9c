//go:build mutants

package mutant

import (
	"fmt"
	"sync/atomic"
)

// selected is the mistake that the process makes. There is one for the process and none for each node: a plant stands
// where no configuration reaches. It is set between runs.
var selected atomic.Uint32

// Is says whether the process makes this mistake.
func Is(m ID) bool { return m != None && ID(selected.Load()) == m }

// Select has the process make the mistake of that name, and no other; none if the name is empty.
func Select(name string) error {
	if name == "" {
		selected.Store(uint32(None))
		return nil
	}
	m, ok := Named(name)
	if !ok {
		return fmt.Errorf("there is no mutant %q", name)
	}
	selected.Store(uint32(m.ID))
	return nil
}
