package gossip

import (
	"slices"

	"github.com/cairndb/cairn/internal/base"
)

// partners are the nodes with which a node speaks as long as all is well: those at distances 1, 2, 4 … from it, either way, on the
// ring of all ids. nodes are the others, ascending.
func partners(self base.NodeID, nodes []base.NodeID) (out []base.NodeID) {
	at, _ := slices.BinarySearch(nodes, self)
	n := len(nodes) + 1
	place := func(i int) base.NodeID { // on the ring with self at 0
		return nodes[(at+i-1)%len(nodes)]
	}
	for d := 1; d < n; d *= 2 {
		out = append(out, place(d), place(n-d))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// draw takes n of the nodes at random.
func draw(r *base.Rand, nodes []base.NodeID, n int) []base.NodeID {
	nodes = slices.Clone(nodes)
	n = min(n, len(nodes))
	for i := range n {
		j := i + int(r.Int63n(int64(len(nodes)-i)))
		nodes[i], nodes[j] = nodes[j], nodes[i]
	}
	return nodes[:n]
}
