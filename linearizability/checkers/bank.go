package checkers

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cairndb/cairn/linearizability"
)

// Balance is the number in a value "number#writer".
func Balance(value []byte) (int, error) {
	n, _, _ := strings.Cut(string(value), "#")
	return strconv.Atoi(n)
}

// Bank holds every read of all accounts, at whatever revision, against what was there at the beginning: money is moved, not
// made.
func Bank(prefix string, accounts, total int) linearizability.Checker {
	return linearizability.Checker{Name: "bank", Check: func(h *linearizability.History) (found []linearizability.Violation) {
		for _, s := range gather(h, prefix).seen {
			if s.end == "" || !s.whole || s.rev <= 1 {
				continue
			}
			sum, bad := 0, false
			for _, kv := range s.kvs {
				n, err := Balance(kv.Value)
				bad = bad || err != nil || n < 0
				sum += n
			}
			if bad || sum != total || len(s.kvs) != accounts {
				found = append(found, linearizability.Violation{
					Checker: "bank", What: fmt.Sprintf("%d accounts with %d together; there were %d with %d", len(s.kvs), sum, accounts, total), Ops: []*linearizability.Op{s.op},
				})
			}
		}
		return found
	}}
}
