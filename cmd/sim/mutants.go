//go:build mutants

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/linearizability/sim"
)

func newMutants() *cobra.Command {
	var (
		names      []string
		most       uint64
		hunts      int
		start      uint64
		showOneMax = 160
	)
	c := &cobra.Command{
		Use: "mutants", Short: "Plant known mistakes and see that they are found", Args: cobra.NoArgs, Example: "  sim mutants\n  sim mutants --name blind-retry --hunts 5",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(names) == 0 {
				names = sim.MutantNames()
			}
			survived := 0
			for _, name := range names {
				var took []int
				last := ""
				for h := range hunts {
					n, what := sim.Hunt(name, start+uint64(h)*most, most, func(seed uint64) *sim.Plan { return sim.Draw(seed, sim.Only{}) })
					if n == 0 {
						return fmt.Errorf("there is no mistake %q", name)
					}
					if what != "" {
						took, last = append(took, n), what
					}
				}
				if len(took) == 0 {
					survived++
					fmt.Fprintf(cmd.OutOrStdout(), "%-26s SURVIVED %d seeds\n", name, most*uint64(hunts))
					continue
				}
				slices.Sort(took)
				last, _, _ = strings.Cut(last, "\n")
				fmt.Fprintf(cmd.OutOrStdout(), "%-26s found in %d of %d hunts, median %d seeds: %.*s\n", name, len(took), hunts, took[len(took)/2], showOneMax, last)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d of %d found\n", len(names)-survived, len(names))
			if survived > 0 {
				return errFailed
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&names, "name", nil, "only these")
	c.Flags().Uint64Var(&most, "seeds", 400, "how many seeds a hunt may take")
	c.Flags().IntVar(&hunts, "hunts", 3, "how many hunts for each, from different seeds")
	c.Flags().Uint64Var(&start, "first", 1, "the first seed")
	return c
}
