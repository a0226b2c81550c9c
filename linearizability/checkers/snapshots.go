package checkers

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// Snapshots holds reads of many keys, and writes of one each that delete nothing, against all that they promise together:
//
//   - there is one order of all of them, with real time, in which each read shows what was written before it, in all of its keys
//     (strictly serializable). The revisions give the order of the writes of each key, so that what must come before what is known,
//     and there is an order if there is no circle;
//   - what is read at a revision is the same each time, and belongs to the read that was answered with that revision: pages are
//     of one moment;
//   - no key's revision goes back, and a comparison that held, held against the write before.
//
// It takes time that grows with n·log n, and with the keys of each read.
func Snapshots(prefix string) linearizability.Checker {
	return linearizability.Checker{Name: "snapshots", Check: func(h *linearizability.History) []linearizability.Violation {
		s := &snapshots{f: gather(h, prefix), graph: newGraph(), versions: map[string][]write{}}
		s.order()
		s.compared()
		s.reads()
		s.known(h)
		s.found = append(s.found, byKeys(h, prefix)...)
		if circle := s.graph.circle(); circle != nil {
			s.add(circle.String(), circle.ops...)
		}
		return s.found
	}}
}

type snapshots struct {
	f        *facts
	graph    *graph
	versions map[string][]write // of each key, in order: answered writes, and those without an answer that somebody saw
	found    []linearizability.Violation
}

func (s *snapshots) add(what string, ops ...*linearizability.Op) {
	s.found = append(s.found, linearizability.Violation{Checker: "snapshots", What: what, Ops: ops})
}

// order finds the writes of each key in the order of their revisions.
func (s *snapshots) order() {
	known := map[revisionKey]bool{}
	for key, ws := range s.f.byKey {
		s.versions[key] = slices.Clone(ws)
		for _, w := range ws {
			known[revisionKey{w.rev, key}] = true
		}
	}
	for i := range s.f.seen {
		for _, kv := range s.f.seen[i].kvs {
			key := string(kv.Key)
			if at := (revisionKey{kv.ModRevision, key}); known[at] {
				continue
			} else {
				known[at] = true
			}
			for _, w := range s.f.maybe[key] {
				if w.value == string(kv.Value) {
					w.rev = kv.ModRevision
					s.versions[key] = append(s.versions[key], w)
					break
				}
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.versions)) {
		ws := s.versions[key]
		slices.SortStableFunc(ws, func(a, b write) int { return cmp.Compare(a.rev, b.rev) })
		for i := 1; i < len(ws); i++ {
			s.graph.edge(ws[i-1].op, ws[i].op, fmt.Sprintf("which overwrites its %q", key))
		}
	}
}

// compared: a comparison with a key's revision that held, held against the write before.
func (s *snapshots) compared() {
	for _, key := range slices.Sorted(maps.Keys(s.versions)) {
		before := write{}
		for _, w := range s.versions[key] {
			if t, ok := w.op.Request.(*pb.TxnRequest); ok && len(t.Compare) == 1 && t.Compare[0].Target == pb.Compare_MOD && t.Compare[0].GetModRevision() != before.rev {
				ops := []*linearizability.Op{w.op}
				if before.op != nil {
					ops = []*linearizability.Op{before.op, w.op}
				}
				s.add(fmt.Sprintf("%q was written at revision %d as if it had been of revision %d, and it was of %d", key, w.rev, t.Compare[0].GetModRevision(), before.rev), ops...)
			}
			before = w
		}
	}
}

// shown is what was read of a key at a revision.
type shown struct {
	mod int64
	op  *linearizability.Op
}

type revisionKey struct {
	rev int64
	key string
}

// reads puts each read behind what it shows and before what it does not, and holds those at one revision against each other.
func (s *snapshots) reads() {
	at := map[revisionKey]shown{}
	bases := map[int64][]*sight{}
	for i := range s.f.seen {
		x := &s.f.seen[i]
		of := x.op
		switch {
		case x.current:
			bases[x.rev] = append(bases[x.rev], x)
			s.graph.node(x.op)
		default:
			of = nil
			for _, b := range bases[x.rev] {
				if b.holds(x.key) && (x.end == "" || b.end == x.end || b.holds(x.end) || b.end == "\x00") {
					of = b.op
					break
				}
			}
		}
		if r, ok := x.op.Request.(*pb.RangeRequest); ok && !x.whole && int64(len(x.kvs)) != r.Limit {
			s.add(fmt.Sprintf("a page of %d keys has %d, and there are more", r.Limit, len(x.kvs)), x.op)
		}
		covered := s.covered(x)
		for _, key := range sortedNames(covered) {
			mod := covered[key]
			was, again := at[revisionKey{x.rev, key}]
			if again && was.mod != mod {
				s.add(fmt.Sprintf("at revision %d %q is read as of revision %d, and as of %d", x.rev, key, was.mod, mod), was.op, x.op)
			}
			if at[revisionKey{x.rev, key}] = (shown{mod, x.op}); of != nil {
				s.place(of, key, mod)
			}
		}
	}
}

// covered gives, of each key that was ever written and that a read answers for, what it shows: 0 if the key is not there.
func (s *snapshots) covered(x *sight) map[string]int64 {
	out := map[string]int64{}
	for key := range s.versions {
		if x.holds(key) && (x.whole || len(x.kvs) > 0 && key <= string(x.kvs[len(x.kvs)-1].Key)) {
			out[key] = 0
		}
	}
	for _, kv := range x.kvs {
		out[string(kv.Key)] = kv.ModRevision
	}
	return out
}

// place puts a read behind the write that it shows of a key, and before the next.
func (s *snapshots) place(op *linearizability.Op, key string, mod int64) {
	ws := s.versions[key]
	i := sort.Search(len(ws), func(i int) bool { return ws[i].rev > mod })
	if mod > 0 {
		if i == 0 || ws[i-1].rev != mod {
			return // nobody wrote that: PhantomWrites says so
		}
		s.graph.edge(ws[i-1].op, op, fmt.Sprintf("which shows its %q", key))
	}
	if i < len(ws) {
		s.graph.edge(op, ws[i].op, fmt.Sprintf("whose %q it does not show", key))
	}
}

// known: a revision that was answered is known wherever it is read.
func (s *snapshots) known(h *linearizability.History) {
	for _, op := range h.Ops {
		if r, ok := op.Request.(*pb.RangeRequest); ok && r.Revision > 0 && op.Outcome == linearizability.Failed && strings.Contains(op.Err, "future revision") {
			s.add(fmt.Sprintf("revision %d was answered, and is said to be in the future", r.Revision), op)
		}
	}
}

// byKeys holds the revisions of each key's operations against real time: those of its range never go back, and a read of
// several ranges leaves all of them at its own. What was read at an older revision is left out.
func byKeys(h *linearizability.History, prefix string) (found []linearizability.Violation) {
	of := map[string]*linearizability.History{}
	for _, op := range h.Ops {
		if key := firstKey(op.Request); strings.HasPrefix(key, prefix) {
			of[key] = &linearizability.History{}
		}
	}
	for _, op := range h.Ops {
		x := sight{key: firstKey(op.Request)}
		if r, ok := op.Request.(*pb.RangeRequest); ok {
			if x.end = string(r.RangeEnd); r.Revision > 0 {
				continue
			}
		}
		for key, mine := range of {
			if x.holds(key) {
				mine.Ops = append(mine.Ops, op)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(of)) {
		found = append(found, revisions(of[key])...)
	}
	return found
}
