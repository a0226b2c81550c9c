package checkers

import (
	"fmt"

	"github.com/cairndb/cairn/linearizability"
)

// PhantomWrites finds values that were read and that nobody wrote, or only somebody who was told that it had failed; and
// values under another revision than the one at which they were written. Each write has a value of its own.
func PhantomWrites(prefix string) linearizability.Checker {
	return linearizability.Checker{Name: "phantom writes", Check: func(h *linearizability.History) (found []linearizability.Violation) {
		f := gather(h, prefix)
		add := func(what string, ops ...*linearizability.Op) {
			found = append(found, linearizability.Violation{Checker: "phantom writes", What: what, Ops: ops})
		}
		certain := map[[2]string][]write{}
		for _, w := range f.writes {
			if !w.deleted {
				certain[[2]string{w.key, w.value}] = append(certain[[2]string{w.key, w.value}], w)
			}
		}
		for _, s := range f.seen {
			for _, kv := range s.kvs {
				key, value := string(kv.Key), string(kv.Value)
				ws, known := certain[[2]string{key, value}]
				switch {
				case known && !hasRevision(ws, kv.ModRevision) && !wrote(f.maybe[key], value):
					add(fmt.Sprintf("%q of %q was written at revision %d and is read as of %d", value, key, ws[0].rev, kv.ModRevision), ws[0].op, s.op)
				case !known && wrote(f.failed[key], value) && !wrote(f.maybe[key], value):
					add(fmt.Sprintf("%q of %q is read, and its write had failed for certain", value, key), f.failed[key][0].op, s.op)
				case !known && !wrote(f.maybe[key], value):
					add(fmt.Sprintf("%q of %q is read, and nobody wrote it", value, key), s.op)
				case kv.ModRevision > s.rev:
					add(fmt.Sprintf("%q of revision %d is read in the state of revision %d", key, kv.ModRevision, s.rev), s.op)
				}
			}
		}
		return found
	}}
}

func hasRevision(ws []write, rev int64) bool {
	for _, w := range ws {
		if w.rev == rev {
			return true
		}
	}
	return false
}

func wrote(ws []write, value string) bool {
	for _, w := range ws {
		if !w.deleted && w.value == value {
			return true
		}
	}
	return false
}

// LostWrites finds answered writes that a read at their revision or a later one does not show, although nothing that could
// have hidden them was written in between.
func LostWrites(prefix string) linearizability.Checker {
	return linearizability.Checker{Name: "lost writes", Check: func(h *linearizability.History) (found []linearizability.Violation) {
		f := gather(h, prefix)
		for _, s := range f.seen {
			if !s.whole {
				continue
			}
			shown := map[string]int64{}
			for _, kv := range s.kvs {
				shown[string(kv.Key)] = kv.ModRevision
			}
			check := func(key string) {
				w, ok := f.at(key, s.rev)
				if !ok {
					return
				}
				mod, there := shown[key]
				switch {
				case there && mod >= w.rev, !there && w.deleted:
				case !there && (deletes(f.maybe[key], s.op) || f.cleared(key, w.rev, &s)), there && w.deleted && puts(f.maybe[key], s.op):
				default:
					what := fmt.Sprintf("the state of revision %d does not show the write of %q at revision %d", s.rev, key, w.rev)
					if there {
						what += fmt.Sprintf(", but one of revision %d", mod)
					}
					found = append(found, linearizability.Violation{Checker: "lost writes", What: what, Ops: []*linearizability.Op{w.op, s.op}})
				}
			}
			if s.end == "" {
				check(s.key)
				continue
			}
			for key := range f.byKey { // the order does not reach the findings' meaning; each key is one
				if s.holds(key) {
					check(key)
				}
			}
		}
		sortFound(found)
		return found
	}}
}

// deletes says whether an operation of which nothing is known, begun before the read ended, may have deleted the key.
func deletes(ws []write, read *linearizability.Op) bool {
	for _, w := range ws {
		if w.deleted && w.op.Invoked < read.Returned {
			return true
		}
	}
	return false
}

// cleared says whether a span with the key was deleted between a revision and a read, or may have been.
func (f *facts) cleared(key string, after int64, s *sight) bool {
	for _, d := range f.spans {
		if key >= d.key && key < d.end && d.op.Invoked < s.op.Returned && (d.rev == 0 || d.rev > after && d.rev <= s.rev) {
			return true
		}
	}
	return false
}

func puts(ws []write, read *linearizability.Op) bool {
	for _, w := range ws {
		if !w.deleted && w.op.Invoked < read.Returned {
			return true
		}
	}
	return false
}
