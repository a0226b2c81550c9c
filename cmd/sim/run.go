package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/linearizability/sim"
)

func newRun() *cobra.Command {
	var (
		seed        uint64
		file, trace string
		twice, plan bool
	)
	c := &cobra.Command{
		Use: "run", Short: "Run one seed, or the plan of a file, and write its trace", Args: cobra.NoArgs,
		Example: "  sim run --seed 1046\n  sim run --seed 1046 --trace -\n  sim run --file linearizability/sim/testdata/seeds/removed-by-all.json --twice\n  sim run --seed 7 --plan",
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := sim.Draw(seed, sim.Only{})
			if file != "" {
				f, err := sim.ReadSeedFile(file)
				if err != nil {
					return err
				}
				p = f.Plan
			}
			if plan {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(p)
			}
			return runOne(cmd.OutOrStdout(), p, trace, twice)
		},
	}
	c.Flags().Uint64Var(&seed, "seed", 1, "the seed")
	c.Flags().StringVar(&file, "file", "", "a seed file instead of a seed")
	c.Flags().StringVar(&trace, "trace", "", "where the trace goes: a file, or - for the standard output")
	c.Flags().BoolVar(&twice, "twice", false, "run it twice and compare the hashes")
	c.Flags().BoolVar(&plan, "plan", false, "print the plan and run nothing")
	return c
}

func runOne(out io.Writer, p *sim.Plan, trace string, twice bool) error {
	var to io.Writer
	switch trace {
	case "":
	case "-":
		to = out
	default:
		f, err := os.Create(trace)
		if err != nil {
			return err
		}
		defer f.Close()
		b := bufio.NewWriter(f)
		defer b.Flush()
		to = b
	}
	r := sim.Run(p, to)
	fmt.Fprintf(out, "seed %d, hash %016x: %.1f simulated seconds, %d events, %d operations answered, %d refused, %d unknown\n",
		p.Seed, r.Hash, r.Simulated.Seconds(), r.Events, r.OK, r.Failed, r.Unknown)
	for _, f := range sim.Faults() {
		if n := r.Fired[f.Kind]; n > 0 {
			fmt.Fprintf(out, "  %s %s: %d\n", f.Class, f.Kind, n)
		}
	}
	for _, v := range r.Violations {
		fmt.Fprintf(out, "VIOLATION %s: %s\n", v.Checker, v.What)
	}
	if twice {
		if again := sim.Run(p, nil); again.Hash != r.Hash {
			return fmt.Errorf("the second run has the hash %016x", again.Hash)
		}
		fmt.Fprintln(out, "the second run has the same hash")
	}
	if !r.Passed() {
		return errFailed
	}
	return nil
}
