package checkers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// graph says of operations which must come before which: for reasons that are given, and because one was answered before the
// other was asked for. If there is no circle, there is an order; if there is one, its operations have none.
type graph struct {
	ops  []*linearizability.Op
	at   map[*linearizability.Op]int
	next [][]arrow // of each operation, then of each moment of time
}

type arrow struct {
	to  int
	why string
}

func newGraph() *graph { return &graph{at: map[*linearizability.Op]int{}} }

func (g *graph) node(op *linearizability.Op) int {
	i, ok := g.at[op]
	if !ok {
		i = len(g.ops)
		g.at[op], g.ops, g.next = i, append(g.ops, op), append(g.next, nil)
	}
	return i
}

// edge says that one comes before another. why follows the words "before X,".
func (g *graph) edge(before, after *linearizability.Op, why string) {
	if before != after {
		a, b := g.node(before), g.node(after)
		g.next[a] = append(g.next[a], arrow{b, why})
	}
}

// time adds what real time says: each answer is a moment, the moments follow each other, and an operation comes after those that
// lie before its beginning. An operation without an answer may take effect at any later time.
func (g *graph) time() {
	var answered []int
	for i, op := range g.ops {
		if op.Returned > 0 {
			answered = append(answered, i)
		}
	}
	slices.SortFunc(answered, func(a, b int) int { return cmp.Compare(g.ops[a].Returned, g.ops[b].Returned) })
	n := len(g.ops)
	for m, i := range answered {
		g.next = append(g.next, nil)
		g.next[i] = append(g.next[i], arrow{n + m, ""})
		if m > 0 {
			g.next[n+m-1] = append(g.next[n+m-1], arrow{n + m, ""})
		}
	}
	for i, op := range g.ops {
		m, _ := slices.BinarySearchFunc(answered, op.Invoked, func(j int, at int64) int { return cmp.Compare(g.ops[j].Returned, at) })
		if m > 0 {
			g.next[n+m-1] = append(g.next[n+m-1], arrow{i, "which was asked for when it had been answered"})
		}
	}
}

// ring is operations each of which must come before the next, and the last before the first.
type ring struct {
	ops []*linearizability.Op
	why []string // after each: why it comes before the next
}

func (c *ring) String() string {
	var b strings.Builder
	b.WriteString("there is no order of these: ")
	for i, op := range c.ops {
		if i > 0 {
			b.WriteString("; ")
		}
		next := c.ops[(i+1)%len(c.ops)]
		fmt.Fprintf(&b, "%s comes before %s, %s", named(op), named(next), c.why[i])
	}
	return b.String()
}

// named is an operation in a few words.
func named(op *linearizability.Op) string {
	what := ""
	switch r := op.Request.(type) {
	case *pb.PutRequest:
		what = fmt.Sprintf("put %q", r.Key)
	case *pb.TxnRequest:
		what = fmt.Sprintf("txn on %q", firstKey(proto.Message(r)))
	case *pb.RangeRequest:
		what = fmt.Sprintf("read of %q", r.Key)
		if len(r.RangeEnd) > 0 {
			what = fmt.Sprintf("read of [%q, %q)", r.Key, r.RangeEnd)
		}
	}
	if op.Outcome != linearizability.OK {
		return what + " (not answered)"
	}
	return fmt.Sprintf("%s (revision %d)", what, revisionOf(op))
}

// circle finds a short one; nil if there is none.
func (g *graph) circle() *ring {
	g.time()
	left := g.knot()
	if left == nil {
		return nil
	}
	// Whatever is left has somebody left behind it: following that leads into a circle.
	at := slices.Index(left, true)
	for seen := make([]bool, len(g.next)); !seen[at] || at >= len(g.ops); {
		seen[at] = true
		at = g.next[at][slices.IndexFunc(g.next[at], func(a arrow) bool { return left[a.to] })].to
	}
	return g.shortest(at, left)
}

// knot says what is on a circle or between two of them: what remains when, again and again, whatever nothing comes before is
// taken away, and whatever comes before nothing. Nil if nothing remains.
func (g *graph) knot() []bool {
	back := make([][]arrow, len(g.next))
	for i, arrows := range g.next {
		for _, a := range arrows {
			back[a.to] = append(back[a.to], arrow{to: i})
		}
	}
	left, n := make([]bool, len(g.next)), len(g.next)
	for i := range left {
		left[i] = true
	}
	strip := func(from, to [][]arrow) {
		degree, free := make([]int, len(from)), []int{}
		for i := range from {
			for _, a := range from[i] {
				if left[a.to] && left[i] {
					degree[i]++
				}
			}
			if left[i] && degree[i] == 0 {
				free = append(free, i)
			}
		}
		for len(free) > 0 {
			i := free[len(free)-1]
			free = free[:len(free)-1]
			left[i], n = false, n-1
			for _, a := range to[i] {
				if degree[a.to]--; left[a.to] && degree[a.to] == 0 {
					free = append(free, a.to)
				}
			}
		}
	}
	strip(back, g.next)
	strip(g.next, back)
	if n == 0 {
		return nil
	}
	return left
}

// shortest is the shortest circle through a node.
func (g *graph) shortest(start int, left []bool) *ring {
	type step struct {
		from int
		why  string
	}
	came := map[int]step{}
	for queue := []int{start}; len(queue) > 0; queue = queue[1:] {
		for _, a := range g.next[queue[0]] {
			if _, seen := came[a.to]; !seen && left[a.to] {
				came[a.to] = step{queue[0], a.why}
				queue = append(queue, a.to)
			}
		}
	}
	c := &ring{}
	for at, why := start, ""; ; {
		s := came[at]
		if at = s.from; s.why != "" {
			why = s.why
		}
		if at < len(g.ops) {
			c.ops, c.why, why = append(c.ops, g.ops[at]), append(c.why, why), ""
		}
		if at == start {
			break
		}
	}
	slices.Reverse(c.ops)
	slices.Reverse(c.why)
	return c
}
