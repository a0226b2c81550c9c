package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/linearizability/sim"
)

func newShrink() *cobra.Command {
	var (
		seed   uint64
		budget int
		dir    string
	)
	c := &cobra.Command{
		Use: "shrink", Short: "Make a failing seed smaller and write it to a file", Args: cobra.NoArgs,
		Example: "  sim shrink --seed 1046 --to linearizability/sim/testdata/seeds",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := keepSmaller(sim.Draw(seed, sim.Only{}), budget, dir)
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return err
		},
	}
	c.Flags().Uint64Var(&seed, "seed", 1, "the seed")
	c.Flags().IntVar(&budget, "runs", 500, "how many runs may be made")
	c.Flags().StringVar(&dir, "to", "out/sim", "the folder that the file goes to")
	return c
}

func newList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the faults", Args: cobra.NoArgs, Example: "  sim list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, f := range sim.Faults() {
				fmt.Fprintf(cmd.OutOrStdout(), "%-4s %-18s %s\n", f.Class, f.Kind, f.About)
			}
			return nil
		},
	}
}
