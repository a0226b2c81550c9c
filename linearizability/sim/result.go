package sim

import (
	"time"

	"github.com/cairndb/cairn/linearizability"
)

// Result is what a run came to.
type Result struct {
	Plan *Plan
	// Hash is of everything that happened, in order: two runs of one plan have the same.
	Hash      uint64
	Simulated time.Duration
	Events    int64 // steps of the simulation
	// Operations of the clients, by their outcome.
	OK, Failed, Unknown int
	// Fired counts, by kind, the faults that befell something: a cut of a node that was down befell nothing.
	Fired map[FaultKind]int
	// Seen counts what the run is to reach at times: elections, snapshots, restarts, truncations, crash images checked.
	Seen map[string]int
	// Violations of the run and of its history, the first ones; empty: it passed.
	Violations []linearizability.Violation
}

// Passed says whether nothing was wrong.
func (r *Result) Passed() bool { return len(r.Violations) == 0 }
