package checkers

import (
	"fmt"
	"strings"

	"github.com/cairndb/cairn/linearizability"
)

// Lists holds values that are lists against each other: of two values of a key, one begins with the other; an element is in
// a list once; and no element of a transaction that failed for certain is in any.
func Lists(prefix string) linearizability.Checker {
	return linearizability.Checker{Name: "lists", Check: func(h *linearizability.History) (found []linearizability.Violation) {
		f := gather(h, prefix)
		add := func(what string, ops ...*linearizability.Op) {
			found = append(found, linearizability.Violation{Checker: "lists", What: what, Ops: ops})
		}
		longest := map[string]sight{}
		value := map[string]string{}
		for _, s := range f.seen {
			for _, kv := range s.kvs {
				key, v := string(kv.Key), string(kv.Value)
				if len(v) > len(value[key]) {
					value[key], longest[key] = v, s
				}
			}
		}
		for _, s := range f.seen {
			for _, kv := range s.kvs {
				key := string(kv.Key)
				if !beginsWith(value[key], string(kv.Value)) {
					add(fmt.Sprintf("%q is read as %q and as %q: neither came from the other", key, kv.Value, value[key]), s.op, longest[key].op)
				}
			}
		}
		for _, key := range sortedNames(value) {
			seen := map[string]bool{}
			for _, e := range strings.Fields(value[key]) {
				if seen[e] {
					add(fmt.Sprintf("%q is in the list %q twice: %q", e, key, value[key]), longest[key].op)
				}
				seen[e] = true
			}
		}
		return found
	}}
}
