// Package checkers holds finished histories against one property a file.
package checkers

import (
	"cmp"
	"slices"

	"github.com/cairndb/cairn/linearizability"
)

// All are the checkers that every workload's history must satisfy.
func All(prefix string) []linearizability.Checker {
	return []linearizability.Checker{Revisions(prefix), PhantomWrites(prefix), LostWrites(prefix)}
}

// Apart are those for a keyspace of many ranges, whose revisions have an order only within each key, or within each group: what is
// the same up to the last slash.
func Apart(prefix string, perKey bool) []linearizability.Checker {
	return []linearizability.Checker{RevisionsApart(prefix, perKey), PhantomWrites(prefix), LostWrites(prefix)}
}

// sortFound puts findings into the order of what they say.
func sortFound(found []linearizability.Violation) {
	slices.SortFunc(found, func(a, b linearizability.Violation) int { return cmp.Compare(a.What, b.What) })
}
