package checkers

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// Set holds reads of a whole set against its additions: an element whose addition was answered before a read began is in
// it, and one whose addition failed for certain, or had not begun when the read ended, is not. Serializable reads may be
// old: of them only the second is asked.
func Set(prefix string) linearizability.Checker {
	return linearizability.Checker{Name: "set", Check: func(h *linearizability.History) (found []linearizability.Violation) {
		adds := map[string]*linearizability.Op{}
		for _, op := range h.Ops {
			if p, ok := op.Request.(*pb.PutRequest); ok {
				adds[string(p.Key)] = op
			}
		}
		add := func(what string, ops ...*linearizability.Op) {
			found = append(found, linearizability.Violation{Checker: "set", What: what, Ops: ops})
		}
		f := gather(h, prefix)
		for _, s := range f.seen {
			in := map[string]bool{}
			for _, kv := range s.kvs {
				key := string(kv.Key)
				in[key] = true
				switch a := adds[key]; {
				case a == nil:
					add(fmt.Sprintf("%q is in the set, and nobody added it", key), s.op)
				case a.Outcome == linearizability.Failed:
					add(fmt.Sprintf("%q is in the set, and its addition had failed for certain", key), a, s.op)
				case a.Invoked > s.op.Returned:
					add(fmt.Sprintf("%q is in the set before anybody wanted to add it", key), a, s.op)
				}
			}
			if !s.current || !s.whole {
				continue
			}
			for key, a := range adds {
				if s.holds(key) && a.Outcome == linearizability.OK && a.Returned < s.op.Invoked && !in[key] {
					add(fmt.Sprintf("%q is not in the set, and its addition had been answered", key), a, s.op)
				}
			}
		}
		sortFound(found)
		return found
	}}
}
