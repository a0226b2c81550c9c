package checkers

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// Revisions holds the revisions of a workload's keys, all in one range, against real time, in time that grows with n·log n: every write has a
// revision of its own; an operation that begins after another was answered has a revision that is not lower, and a
// higher one if it writes. It is the strongest of the quick checks: a read from a replica that lags, or by a leader that
// was deposed, shows here whatever it reads. Serializable reads may be old and are left out.
func Revisions(prefix string) linearizability.Checker {
	return linearizability.Checker{Name: "revisions", Check: func(h *linearizability.History) []linearizability.Violation {
		mine := &linearizability.History{}
		for _, op := range h.Ops {
			if strings.HasPrefix(firstKey(op.Request), prefix) {
				mine.Ops = append(mine.Ops, op)
			}
		}
		return revisions(mine)
	}}
}

// RevisionsApart is Revisions for operations on one key each, or one group, in a keyspace of many ranges, whose revisions have an
// order only within each of these.
func RevisionsApart(prefix string, perKey bool) linearizability.Checker {
	return linearizability.Checker{Name: "revisions", Check: func(h *linearizability.History) (found []linearizability.Violation) {
		byKey := map[string]*linearizability.History{}
		for _, op := range h.Ops {
			key := firstKey(op.Request)
			if key == "" || !strings.HasPrefix(key, prefix) {
				continue // one without a key is of no range in particular
			}
			if i := strings.LastIndexByte(key, '/'); !perKey && i >= 0 {
				key = key[:i]
			}
			if byKey[key] == nil {
				byKey[key] = &linearizability.History{}
			}
			byKey[key].Ops = append(byKey[key].Ops, op)
		}
		for _, key := range slices.Sorted(maps.Keys(byKey)) {
			found = append(found, revisions(byKey[key])...)
		}
		return found
	}}
}

func revisions(h *linearizability.History) (found []linearizability.Violation) {
	var ops []*linearizability.Op
	for _, op := range h.Ops {
		if r, ok := op.Request.(*pb.RangeRequest); op.Outcome == linearizability.OK && (!ok || !r.Serializable) && revisionOf(op) > 0 {
			ops = append(ops, op)
		}
	}
	add := func(what string, a, b *linearizability.Op) {
		found = append(found, linearizability.Violation{Checker: "revisions", What: what, Ops: []*linearizability.Op{a, b}})
	}
	writers := map[int64]*linearizability.Op{}
	for _, op := range ops {
		if !changed(op) {
			continue
		}
		rev := revisionOf(op)
		if other, ok := writers[rev]; ok {
			add(fmt.Sprintf("two writes have revision %d", rev), other, op)
		}
		writers[rev] = op
	}
	returned := slices.Clone(ops)
	slices.SortFunc(returned, func(a, b *linearizability.Op) int { return cmp.Compare(a.Returned, b.Returned) })
	slices.SortFunc(ops, func(a, b *linearizability.Op) int { return cmp.Compare(a.Invoked, b.Invoked) })
	var newest *linearizability.Op // of those that had returned, the one with the highest revision
	i := 0
	for _, op := range ops {
		for ; i < len(returned) && returned[i].Returned < op.Invoked; i++ {
			if newest == nil || revisionOf(returned[i]) > revisionOf(newest) {
				newest = returned[i]
			}
		}
		if newest == nil {
			continue
		}
		switch was, is := revisionOf(newest), revisionOf(op); {
		case is < was:
			add(fmt.Sprintf("an answer of revision %d, and one of revision %d had been given before it was asked for", is, was), newest, op)
		case is == was && changed(op):
			add(fmt.Sprintf("a write at revision %d, and an answer of that revision had been given before it was asked for", is), newest, op)
		}
	}
	return found
}
