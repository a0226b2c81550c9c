// Command allocator measures the planner at scale: how long a full pass over a million ranges takes and how much memory, how long
// passes after a change take, and what the loss of a node, of a zone, and the addition of many nodes move, beside the least that any
// planner could have moved. What is measured is the product's planner; what carries its decisions out is the simulator.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
)

// Suite is what is measured, of which size.
type Suite struct {
	Out                  io.Writer
	Nodes, Ranges, Zones int
	Added                int // nodes, at once
	Deciders             []int
	Changes              int // passes after a change
	Seed                 uint64
	Imbalance            float64
}

func main() {
	s := &Suite{Out: os.Stdout}
	parts := flag.String("parts", "passes,events", "what to measure, separated by commas")
	deciders := flag.String("deciders", "1,4", "that share the ranges, in turn")
	profile := flag.String("profile", "", "write a CPU profile into this `file`")
	quick := flag.Bool("quick", false, "a tenth of everything")
	flag.IntVar(&s.Nodes, "nodes", 1000, "of the cluster")
	flag.IntVar(&s.Ranges, "ranges", 1_000_000, "of three replicas each")
	flag.IntVar(&s.Zones, "zones", 10, "that the nodes are in")
	flag.IntVar(&s.Added, "added", 100, "nodes, in the event of that name")
	flag.IntVar(&s.Changes, "changes", 1000, "passes after one change each")
	flag.Uint64Var(&s.Seed, "seed", 1, "of all that is drawn")
	flag.Float64Var(&s.Imbalance, "imbalance", 0.01, "that the policy allows")
	flag.Parse()
	if *quick {
		s.Nodes, s.Ranges, s.Added, s.Changes = s.Nodes/10, s.Ranges/10, s.Added/10, s.Changes/10
	}
	if err := run(s, *parts, *deciders, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "allocator:", err)
		os.Exit(1)
	}
}

func run(s *Suite, parts, deciders, profile string) error {
	for _, w := range strings.Split(deciders, ",") {
		n := 0
		if _, err := fmt.Sscanf(w, "%d", &n); err != nil || n < 1 {
			return fmt.Errorf("-deciders: %q is no number of deciders", w)
		}
		s.Deciders = append(s.Deciders, n)
	}
	wanted := strings.Split(parts, ",")
	for _, w := range wanted {
		if w != "passes" && w != "events" {
			return fmt.Errorf("-parts: there is no part %q", w)
		}
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Fprintf(s.Out, "%d nodes in %d zones, %d ranges of 3 replicas, seed %d\n", s.Nodes, s.Zones, s.Ranges, s.Seed)
	if slices.Contains(wanted, "passes") { // first: the memory is the process's largest so far
		if err := s.passes(); err != nil {
			return err
		}
	}
	if slices.Contains(wanted, "events") {
		return s.events()
	}
	return nil
}
