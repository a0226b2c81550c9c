package checkers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cairndb/cairn/linearizability"
)

// Cycles holds operations on lists against strict serializability, in time that grows as the history does (but for the sorting of
// its events): which came before which by what they appended and saw, and by real time, must have no circle. A circle is named
// as Adya does: G0 of writes alone, G1c of writes and reads of them, G-single with one read that did not see a write, G2 with
// several; -realtime if only real time closes it. Besides it finds reads of what had failed (G1a), or of a part of what an
// operation appended (G1b), and lost updates.
//
// Of an operation without an answer that was seen nobody knows when it ended. Reads that may be old have no place in real time.
// Lists is to be used as well: a read that does not fit the others says nothing here.
func Cycles(prefix string) linearizability.Checker {
	return linearizability.Checker{Name: cyclesName, Check: func(h *linearizability.History) []linearizability.Violation {
		found, _ := cycles(h, prefix)
		return found
	}}
}

const (
	cyclesName = "cycles"
	// circlesShown is how many circles are told: each is of other operations, and a broken store makes thousands.
	circlesShown = 10
)

// cycles also returns how many steps it took.
func cycles(h *linearizability.History, prefix string) (found []linearizability.Violation, work int) {
	a := takeApart(h, prefix)
	if a.deletes != nil {
		return []linearizability.Violation{{Checker: cyclesName, What: "a deletion: in which order lists were appended to is not known", Ops: []*linearizability.Op{a.deletes}}}, 0
	}
	found = a.dirty()
	g := a.graph()
	of, circles := g.components()
	slices.SortFunc(circles, func(x, y []int32) int { return cmp.Compare(slices.Min(x), slices.Min(y)) })
	s := newSearch(g, of)
	for i, c := range circles {
		if i == circlesShown {
			found = append(found, linearizability.Violation{Checker: cyclesName, What: fmt.Sprintf("and %d more circles of other operations", len(circles)-i)})
			break
		}
		found = append(found, a.tell(g, s.smallest(c)))
	}
	return found, a.work + g.work
}

// dirty finds what needs no circle to be wrong.
func (a *appendage) dirty() (found []linearizability.Violation) {
	add := func(what string, ops ...*linearizability.Op) {
		found = append(found, linearizability.Violation{Checker: cyclesName, What: what, Ops: ops})
	}
	for _, d := range a.doubled {
		add(fmt.Sprintf("%q is appended to %q by two operations: whose is it?", d.element, a.lists[d.list].name), d.ops[0], d.ops[1])
	}
	for _, l := range a.lists {
		for _, e := range l.order {
			if who, ok := l.owner[e]; ok && a.txns[who].op.Outcome == linearizability.Failed {
				add(fmt.Sprintf("G1a: %q is in the list %q, and its append had failed for certain", e, l.name), a.txns[who].op, a.txns[l.shown].op)
			}
		}
	}
	for i := range a.txns {
		t := &a.txns[i]
		if !t.happened {
			continue
		}
		for _, v := range t.looks {
			l := a.lists[v.list]
			_, e := cutLast(v.value)
			if who, ok := l.owner[string(e)]; ok && int(who) != i && a.txns[who].op.Outcome != linearizability.Failed && !a.txns[who].endsWith(v.list, e) {
				add(fmt.Sprintf("G1b: %q is read up to %q, and who appended that appended more with it", l.name, e), a.txns[who].op, t.op)
			}
		}
		for _, p := range t.puts {
			if l := a.lists[p.list]; t.op.Outcome == linearizability.OK && !beginsWith(l.longest, p.value) {
				add(fmt.Sprintf("lost update: %q was written as %q, and is read or written as %q, which did not come from it", l.name, p.value, l.longest),
					t.op, a.txns[l.shown].op)
			}
		}
	}
	return found
}

// endsWith says whether a put of the operation ends with an element.
func (t *txn) endsWith(list int32, e []byte) bool {
	return slices.ContainsFunc(t.puts, func(p appending) bool {
		_, last := cutLast(p.value)
		return p.list == list && string(last) == string(e)
	})
}

// graph makes the edges between operations that happened.
func (a *appendage) graph() *digraph {
	g := &digraph{ops: len(a.txns), nodes: len(a.txns)}
	add := func(kind dep, from, to, list, place int32) {
		if from >= 0 && to >= 0 && from != to {
			g.edges = append(g.edges, edge{from: from, to: to, list: list, place: place, kind: kind})
		}
	}
	for i, l := range a.lists {
		for p, who := range l.by {
			if next := l.after[p]; who >= 0 && next > 0 {
				add(depWW, who, l.by[next], int32(i), next)
			}
		}
	}
	for i := range a.txns {
		t := &a.txns[i]
		if !t.happened {
			continue
		}
		for _, v := range t.looks {
			l := a.lists[v.list]
			p := l.placeOf(v)
			if p < 0 {
				continue
			}
			add(depWR, l.by[p], int32(i), v.list, p)
			if next := l.after[p]; next > 0 {
				add(depRW, int32(i), l.by[next], v.list, next)
			}
		}
	}
	a.realTime(g)
	g.index()
	return g
}

// realTime adds that what had ended comes before what began then, by way of moments: a chain of nodes, one for each end that a
// beginning follows. Who ended before a moment leads to it, and it to who began after it, so that there are about as many edges as
// operations, and not as pairs of them.
func (a *appendage) realTime(g *digraph) {
	type event struct {
		at, txn int64
		begins  bool
	}
	var events []event
	for i := range a.txns {
		t := &a.txns[i]
		if !t.happened || !t.current {
			continue
		}
		events = append(events, event{t.op.Invoked, int64(i), true})
		if t.op.Returned != 0 {
			events = append(events, event{t.op.Returned, int64(i), false})
		}
	}
	slices.SortFunc(events, func(x, y event) int { return cmp.Compare(x.at, y.at) })
	moment := int32(-1) // the last one
	var ended []int64   // since then
	add := func(from, to int32) { g.edges = append(g.edges, edge{from: from, to: to, list: -1, kind: depTime}) }
	for _, e := range events {
		if !e.begins {
			ended = append(ended, e.txn)
			continue
		}
		if len(ended) > 0 {
			last := moment
			moment = int32(g.nodes)
			g.nodes++
			if last >= 0 {
				add(last, moment)
			}
			for _, t := range ended {
				add(int32(t), moment)
			}
			ended = ended[:0]
		}
		if moment >= 0 {
			add(moment, int32(e.txn))
		}
	}
}

// circleKinds are what a circle can be, the worst first: it has an edge of one kind, and leads back by edges of some.
var circleKinds = []struct {
	name     string
	has, via dep
}{
	{"G0", depWW, depWW},
	{"G1c", depWR, depWW | depWR},
	{"G-single", depRW, depWW | depWR},
	{"G2", depRW, depWW | depWR | depRW},
	{"G0-realtime", depWW, depWW | depTime},
	{"G1c-realtime", depWR, depWW | depWR | depTime},
	{"G-single-realtime", depRW, depWW | depWR | depTime},
	{"G2-realtime", depRW, depWW | depWR | depRW | depTime},
}

// circle is one, by its edges.
type circle struct {
	name  string
	edges []int32
}

// searchFactor is how often all edges of a component may be walked in search of one kind of circle. Of small components that finds
// the smallest; of large ones a small one, in time that still grows with the history and no more.
const searchFactor = 64

// smallest finds a smallest circle of the worst kind among the nodes of a component.
func (s *search) smallest(component []int32) (best circle) {
	size := 0
	for _, n := range component {
		size += len(s.g.from(n))
	}
	for _, k := range circleKinds {
		most, until := len(component)+1, s.g.work+searchFactor*size
		for _, n := range component {
			for _, i := range s.g.from(n) {
				e := &s.g.edges[i]
				if e.kind != k.has || s.of[e.to] != s.of[n] || s.g.work > until {
					continue
				}
				if back := s.path(e.to, e.from, k.via, most); back != nil {
					best = circle{k.name, append([]int32{i}, back...)}
					most = s.g.length(best.edges)
				}
			}
		}
		if best.edges != nil {
			return best
		}
	}
	return best
}

// tell puts a circle into words, beginning with its first operation.
func (a *appendage) tell(g *digraph, c circle) linearizability.Violation {
	first := 0
	for i, e := range c.edges {
		if g.edges[e].from < g.edges[c.edges[first]].from {
			first = i
		}
	}
	edges := slices.Concat(c.edges[first:], c.edges[:first])
	v := linearizability.Violation{Checker: cyclesName}
	number := make(map[int32]int)
	for _, i := range edges {
		if from := g.edges[i].from; int(from) < g.ops {
			v.Ops = append(v.Ops, a.txns[from].op)
			number[from] = len(v.Ops)
		}
	}
	var why []string
	for at := 0; at < len(edges); at++ {
		e := g.edges[edges[at]]
		from := number[e.from]
		for int(e.to) >= g.ops { // by way of moments
			at++
			e.to = g.edges[edges[at]].to
		}
		why = append(why, a.why(e, from, number[e.to]))
	}
	v.What = fmt.Sprintf("%s, %d operations of which each comes before the next, and the last before the first: %s", c.name, len(v.Ops), strings.Join(why, "; "))
	return v
}

// why says why one operation comes before another.
func (a *appendage) why(e edge, from, to int) string {
	if e.kind == depTime {
		return fmt.Sprintf("#%d had ended when #%d began", from, to)
	}
	l := a.lists[e.list]
	element := l.order[e.place-1]
	switch e.kind {
	case depWW:
		return fmt.Sprintf("#%d appended to %q before #%d appended %q", from, l.name, to, element)
	case depWR:
		return fmt.Sprintf("#%d appended %q to %q, which #%d saw", from, element, l.name, to)
	default:
		return fmt.Sprintf("#%d saw %q without %q, which #%d appended", from, l.name, element, to)
	}
}
