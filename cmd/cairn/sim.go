package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/allocator/simulate"
)

// maxScenarioBytes bounds what is read as a scenario: its lines are bounded, and few are longer than this makes them.
const maxScenarioBytes = 4 << 20

// simFlags are those of cairn sim.
type simFlags struct {
	host        *hostFlag
	fromCluster bool
	example     string
	examples    bool
	seed        uint64
	svg, output string
}

func newSim(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "sim [FILE]",
		Short: "Run the allocator over a cluster that does not exist",
		Long: `Run the planner that decides in a live cluster over one that is described in a small text: nodes, keyspaces, what happens when,
and what is expected. Shown are the replicas that each event moved, beside the least that any planner could have moved; how long
that took; how even the nodes are; which ranges were short of replicas, or broke a constraint.

With --from-cluster the cluster at --host is what the scenario begins with, and FILE holds events and policies alone: what if this
zone fails, what if three nodes are added? The live cluster is read, and nothing is done to it. What it does not tell is guessed:
the size of a range is what its nodes hold, by their number of replicas.

FILE may be - for standard input. The exit code is 1 if something was not as the scenario expects. The language is told by
cairn sim --example NAME, which prints a scenario that is built in; --examples lists them.`,
		Example: `  cairn sim --example lose-a-node > what.txt
  cairn sim what.txt --svg what.svg
  cairn sim what.txt --seed 7 -o json | jq .total
  echo 'at 1m fail zone=b' | cairn sim --from-cluster --host 10.0.0.1:7400 -`,
		Args: cobra.MaximumNArgs(1),
	}
	f := simFlags{host: addHost(c, e)}
	c.Flags().BoolVar(&f.fromCluster, "from-cluster", false, "begin with the cluster at --host")
	c.Flags().StringVar(&f.example, "example", "", "print the scenario `NAME`, which is built in")
	c.Flags().BoolVar(&f.examples, "examples", false, "list the scenarios that are built in")
	c.Flags().Uint64Var(&f.seed, "seed", 0, "of what is drawn; 0: the scenario's own")
	c.Flags().StringVar(&f.svg, "svg", "", "draw the run into this `FILE`")
	c.Flags().StringVarP(&f.output, "output", "o", "table", "table or json")
	c.MarkFlagsMutuallyExclusive("example", "examples", "from-cluster")
	c.RunE = func(c *cobra.Command, args []string) error { return f.run(c.Context(), e, c.InOrStdin(), args) }
	return c
}

func (f *simFlags) run(ctx context.Context, e env, stdin io.Reader, args []string) error {
	switch {
	case f.output != "table" && f.output != "json":
		return &usageError{[]error{fmt.Errorf("-o %s is not known: give table or json", f.output)}}
	case f.examples:
		_, err := fmt.Fprintln(e.out, strings.Join(simulate.Examples(), "\n"))
		return err
	case f.example != "":
		text, err := simulate.Example(f.example)
		if err != nil {
			return &usageError{[]error{err}}
		}
		_, err = io.WriteString(e.out, text)
		return err
	case len(args) == 0 && !f.fromCluster:
		return &usageError{[]error{errors.New("which scenario? give a FILE, or - for standard input; cairn sim --examples lists some to begin with")}}
	}
	s, err := f.scenario(stdin, args)
	if err != nil {
		return err
	}
	if f.fromCluster {
		if err := loadCluster(ctx, f.host, s); err != nil {
			return err
		}
	}
	if f.seed != 0 {
		s.Seed = f.seed
	}
	r, err := simulate.Run(s, nil)
	if err != nil {
		return fmt.Errorf("sim: %s: %w", s.Name, err)
	}
	return f.show(e, r)
}

// scenario reads the file. Without one, the cluster is left to itself.
func (f *simFlags) scenario(stdin io.Reader, args []string) (*simulate.Scenario, error) {
	if len(args) == 0 {
		return simulate.Parse("the cluster as it is", "")
	}
	name, in := args[0], stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, &usageError{[]error{err}}
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, maxScenarioBytes+1))
	if err != nil {
		return nil, fmt.Errorf("sim: %s: %w", name, err)
	}
	if len(text) > maxScenarioBytes {
		return nil, &usageError{[]error{fmt.Errorf("%s is longer than %s: it is no scenario", name, simulate.Bytes(maxScenarioBytes))}}
	}
	if name == "-" {
		name = "standard input"
	}
	s, err := simulate.Parse(name, string(text))
	if err != nil {
		return nil, &usageError{[]error{fmt.Errorf("%s cannot be understood:\n%w", name, err)}}
	}
	return s, nil
}

// show prints the result, draws it, and says in the exit code whether it was as expected.
func (f *simFlags) show(e env, r *simulate.Result) error {
	if f.svg != "" {
		picture, err := r.SVG()
		if err != nil {
			return fmt.Errorf("sim: %w", err)
		}
		if err := os.WriteFile(f.svg, picture, 0o644); err != nil {
			return fmt.Errorf("sim: %w", err)
		}
	}
	var err error
	if f.output == "json" {
		err = printer{e.out, true}.encode(r)
	} else {
		err = r.Print(e.out)
	}
	if err != nil {
		return err
	}
	failed := 0
	for _, x := range r.Expected {
		if !x.OK {
			failed++
		}
	}
	if failed > 0 {
		return &exitError{exitFailed, fmt.Sprintf("sim: %d of %d expectations are not met", failed, len(r.Expected))}
	}
	return nil
}
