//go:build !mutants

package mutant

// Is says whether the process makes this mistake: never, and the compiler knows it.
func Is(ID) bool { return false }
