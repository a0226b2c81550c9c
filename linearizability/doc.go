// Package linearizability says what Cairn's clients may rely on, and finds out whether they can: the history of a run,
// and what a workload and a checker are. Two drivers use it without its knowing which: linearizability/sim runs a whole
// cluster from a seed in one goroutine, linearizability/jepsen runs real processes under faults.
//
// Below it: workloads make requests, models say for porcupine what a right answer is, checkers hold a finished history
// against one property each. docs/TESTING.md tells how to add one.
package linearizability
