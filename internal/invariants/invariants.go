// Package invariants holds what must be true. Cheap invariants are always checked with Check; costly ones
// stand behind `if invariants.Enabled`, a constant that the build tag "invariants" turns on.
package invariants

import "fmt"

// Check panics with the message unless ok. A broken invariant means that going on could damage what is stored.
func Check(ok bool, format string, args ...any) {
	if !ok {
		panic("invariant broken: " + fmt.Sprintf(format, args...))
	}
}
