package checkers

// A digraph of operations and what each must come before; which of them stand in a circle, by Tarjan's strongly connected
// components (Depth-First Search and Linear Graph Algorithms, 1972), and a smallest circle through an edge. Both take time that
// grows with nodes and edges.

// dep is why one operation comes before another. Several together are a set.
type dep uint8

const (
	depWW   dep = 1 << iota // it appended right before the other did
	depWR                   // the other read what it appended
	depRW                   // it did not see what the other appended
	depTime                 // it had ended when the other began
)

// edge says that from comes before to. list and place say why: of depWW and depRW the place is to's element, of depWR from's.
type edge struct {
	from, to    int32
	list, place int32
	kind        dep
}

// digraph is edges between nodes. Nodes from ops on are moments, which cost nothing to pass through.
type digraph struct {
	ops, nodes int
	edges      []edge
	first      []int32 // of each node, where its edges begin in out
	out        []int32 // indexes of edges, by where they come from
	work       int     // steps that were taken, so that a test can see how they grow
}

// index makes the edges of a node findable. No more are added.
func (g *digraph) index() {
	g.first = make([]int32, g.nodes+1)
	for i := range g.edges {
		g.first[g.edges[i].from+1]++
	}
	for i := range g.nodes {
		g.first[i+1] += g.first[i]
	}
	g.out = make([]int32, len(g.edges))
	next := append([]int32{}, g.first[:g.nodes]...)
	for i := range g.edges {
		from := g.edges[i].from
		g.out[next[from]] = int32(i)
		next[from]++
	}
	g.work += g.nodes + 2*len(g.edges)
}

func (g *digraph) from(n int32) []int32 { return g.out[g.first[n]:g.first[n+1]] }

// components gives each node the number of its component, and returns the components with more than one node.
func (g *digraph) components() (of []int32, circles [][]int32) {
	of = make([]int32, g.nodes)
	var (
		order = make([]int32, g.nodes) // in which a node was met, from 1; 0: not yet
		low   = make([]int32, g.nodes)
		next  = append([]int32{}, g.first[:g.nodes]...)
		met   int32
		count int32
		stack []int32 // nodes without a component
		path  []int32 // from the root to where the walk is; the recursion's stack
	)
	enter := func(n int32) {
		met++
		order[n], low[n] = met, met
		stack, path = append(stack, n), append(path, n)
	}
	for root := range int32(g.nodes) {
		if order[root] != 0 {
			continue
		}
		for enter(root); len(path) > 0; g.work++ {
			n := path[len(path)-1]
			if next[n] < g.first[n+1] {
				to := g.edges[g.out[next[n]]].to
				next[n]++
				if order[to] == 0 {
					enter(to)
				} else if of[to] == 0 {
					low[n] = min(low[n], order[to])
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				up := path[len(path)-1]
				low[up] = min(low[up], low[n])
			}
			if low[n] != order[n] {
				continue
			}
			count++
			at := len(stack) - 1
			for stack[at] != n {
				at--
			}
			for _, m := range stack[at:] {
				of[m] = count
			}
			if len(stack)-at > 1 {
				circles = append(circles, append([]int32{}, stack[at:]...))
			}
			stack = stack[:at]
		}
	}
	return of, circles
}

// search looks for smallest paths within one component. Its memory is used again for each.
type search struct {
	g    *digraph
	of   []int32
	via  []int32 // of each node, the edge by which it was reached
	seen []int32 // in which round; a node of an earlier round was not reached
	now  int32
}

func newSearch(g *digraph, of []int32) *search {
	return &search{g: g, of: of, via: make([]int32, g.nodes), seen: make([]int32, g.nodes)}
}

// path finds edges of some kinds that lead from one node to another of its component, so that a circle by way of both has
// fewer than most operations; nil if there is none. It walks level by level, an operation more on each; moments are of the level that they are reached on.
func (s *search) path(from, to int32, kinds dep, most int) []int32 {
	s.now++
	s.seen[from] = s.now
	level, next := []int32{from}, []int32(nil)
	for met := 2; len(level) > 0 && met < most; met++ {
		for len(level) > 0 {
			n := level[len(level)-1]
			level = level[:len(level)-1]
			for _, i := range s.g.from(n) {
				s.g.work++
				e := &s.g.edges[i]
				if e.kind&kinds == 0 || s.seen[e.to] == s.now || s.of[e.to] != s.of[from] {
					continue
				}
				s.seen[e.to], s.via[e.to] = s.now, i
				switch {
				case e.to == to:
					return s.back(from, to)
				case int(e.to) >= s.g.ops:
					level = append(level, e.to)
				default:
					next = append(next, e.to)
				}
			}
		}
		level, next = next, level
	}
	return nil
}

// back follows the way back from where a path ends.
func (s *search) back(from, to int32) (path []int32) {
	for n := to; n != from; n = s.g.edges[s.via[n]].from {
		path = append(path, s.via[n])
	}
	for i, j := 0, len(path)-1; i < j; i, j = i+1, j-1 {
		path[i], path[j] = path[j], path[i]
	}
	return path
}

// length is how many operations a circle has.
func (g *digraph) length(circle []int32) (n int) {
	for _, i := range circle {
		if int(g.edges[i].from) < g.ops {
			n++
		}
	}
	return n
}
