package compare

import "math/rand/v2"

// Side is one of the two that are compared.
type Side int

// The sides.
const (
	A Side = iota
	B
)

// GetAtLeader is a linearizable get whose clients all call the leader's node.
const GetAtLeader = "get@leader"

// Propose is the operation of the loops: one entry proposed, committed and applied.
const Propose = "propose"

// Cell is one workload: a row of a table.
type Cell struct {
	Op      string `json:"op"`
	Clients int    `json:"clients"`
	Groups  int    `json:"groups,omitempty"` // of the loops
}

// pair is two blocks of one cell, one of each side, one right after the other: their ratio is one figure, and what the
// machine does slowly (warming up, another's work) strikes both.
type pair struct {
	cell  Cell
	order [2]Side
}

// plan orders the pairs of all cells in rounds: each round has one pair of every cell, in a random order, so that no
// cell always comes first, none waits for the end, and a run that is cut short has something of each. Of the pairs of
// one cell, half (and of an odd number one more or less) begin with A: A B B A.
func plan(cells []Cell, pairs int, seed uint64) []pair {
	random := rand.New(rand.NewPCG(seed, 0))
	first := make([]Side, len(cells))
	for i := range first {
		first[i] = Side(random.IntN(2))
	}
	var all []pair
	for n := range pairs {
		for _, i := range random.Perm(len(cells)) {
			side := (first[i] + Side(n)) % 2
			all = append(all, pair{cells[i], [2]Side{side, 1 - side}})
		}
	}
	return all
}
