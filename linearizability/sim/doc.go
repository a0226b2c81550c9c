// Package sim runs a whole cluster from one seed in one goroutine: the stores of the product (loops, log, state machine,
// snapshots) on nodes whose clocks, disks, network and processes are simulated, under faults that the seed draws, with
// clients whose history is checked. A run is a function of its Plan: same plan, same trace.
package sim
