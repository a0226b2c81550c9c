package checkers

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cairndb/cairn/linearizability"
)

// Monotonic holds counters that only grow: in the order of revisions no counter goes back (so that no two readers can see
// two counters grow in different orders), and no client sees one go back, whatever the revisions say.
func Monotonic(prefix string) linearizability.Checker {
	return linearizability.Checker{Name: "monotonic", Check: func(h *linearizability.History) (found []linearizability.Violation) {
		type who struct {
			client int
			key    string
		}
		type last struct {
			count int
			op    *linearizability.Op
		}
		add := func(what string, a, b *linearizability.Op) {
			found = append(found, linearizability.Violation{Checker: "monotonic", What: what, Ops: []*linearizability.Op{a, b}})
		}
		seen := gather(h, prefix).seen
		clients := map[who]last{}
		for _, s := range seen {
			for _, kv := range s.kvs {
				n, _ := Balance(kv.Value)
				w := who{s.op.Client, string(kv.Key)}
				if before := clients[w]; s.current && n < before.count {
					add(fmt.Sprintf("client %d reads %q as %d after %d", s.op.Client, kv.Key, n, before.count), before.op, s.op)
				}
				clients[w] = last{n, s.op}
			}
		}
		slices.SortStableFunc(seen, func(a, b sight) int { return cmp.Compare(a.rev, b.rev) })
		keys := map[string]last{}
		for _, s := range seen {
			for _, kv := range s.kvs {
				n, _ := Balance(kv.Value)
				if before := keys[string(kv.Key)]; n < before.count {
					add(fmt.Sprintf("%q is %d at revision %d, and %d at a lower one", kv.Key, n, s.rev, before.count), before.op, s.op)
				}
				keys[string(kv.Key)] = last{n, s.op}
			}
		}
		return found
	}}
}

// sortedNames are a map's keys in order.
func sortedNames[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
