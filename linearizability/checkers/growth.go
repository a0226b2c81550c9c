package checkers

import (
	"cmp"
	"slices"

	"github.com/cairndb/cairn/linearizability"
)

// Numbers that only grow (generations, epochs, incarnations), held against the real time of those who read them: whoever begins to
// read after somebody else was answered sees no less.

// growth is one such number: the answers that showed more than every answer before, in the order in which they came.
type growth[T any] struct {
	seen []grown[T]
}

type grown[T any] struct {
	number uint64
	of     T
	op     *linearizability.Op
}

// saw notes an answer. Answers are noted in the order of their returns.
func (g *growth[T]) saw(number uint64, of T, op *linearizability.Op) {
	if n := len(g.seen); n == 0 || g.seen[n-1].number < number {
		g.seen = append(g.seen, grown[T]{number, of, op})
	}
}

// before is the most that had been answered before a moment.
func (g *growth[T]) before(moment int64) (most grown[T], ok bool) {
	if g == nil {
		return most, false
	}
	i, _ := slices.BinarySearchFunc(g.seen, moment, func(s grown[T], m int64) int { return cmp.Compare(s.op.Returned, m) })
	if i == 0 {
		return most, false
	}
	return g.seen[i-1], true
}

// at finds the growth of a key, or begins it.
func at[K comparable, T any](all map[K]*growth[T], key K) *growth[T] {
	if all[key] == nil {
		all[key] = &growth[T]{}
	}
	return all[key]
}

// answered are the operations that were answered, in the order of their returns.
func answered(h *linearizability.History) (out []*linearizability.Op) {
	for _, op := range h.Ops {
		if op.Outcome == linearizability.OK {
			out = append(out, op)
		}
	}
	slices.SortFunc(out, func(a, b *linearizability.Op) int { return cmp.Compare(a.Returned, b.Returned) })
	return out
}

// complaints are a checker's findings, each said once.
type complaints struct {
	checker string
	said    map[string]bool
	found   []linearizability.Violation
}

func (c *complaints) add(what string, ops ...*linearizability.Op) {
	if c.said == nil {
		c.said = make(map[string]bool)
	}
	if !c.said[what] {
		c.said[what] = true
		c.found = append(c.found, linearizability.Violation{Checker: c.checker, What: what, Ops: ops})
	}
}
