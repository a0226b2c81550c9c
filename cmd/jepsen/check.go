package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/linearizability/jepsen"
)

func newCheck(out io.Writer) *cobra.Command {
	c := &cobra.Command{
		Use:   "check HISTORY…",
		Short: "Check history files of earlier runs again",
		Long: `Check history files again, each by itself, with the checkers of the workloads that its keys name.

A history that is cut short, because its run was killed, is checked as far as it goes, and the exit code says that this
is not all of it.`,
		Example: `  jepsen check out/jepsen/mine/history-003
  jepsen check -o json out/jepsen/mine/history-* | jq '.[].violations'`,
		Args: cobra.MinimumNArgs(1),
	}
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, files []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		var all []jepsen.Checked
		var result error
		for _, name := range files {
			got, err := checkFile(name)
			if err != nil {
				return err
			}
			switch {
			case len(got.Violations) > 0:
				result = errNotPassed // more than any damage of a file
			case got.Damage != "" && result == nil:
				result = fmt.Errorf("%s: %s: what follows was not checked", name, got.Damage)
			}
			all = append(all, *got)
			if *output == "text" {
				printChecked(out, got)
			}
		}
		if *output == "json" {
			if err := printJSON(out, all); err != nil {
				return err
			}
		}
		return result
	}
	return c
}

func checkFile(name string) (*jepsen.Checked, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, &usageError{err}
	}
	defer func() { _ = f.Close() }() // it was only read
	got, err := jepsen.Check(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	got.File = name
	return got, nil
}

func printChecked(out io.Writer, c *jepsen.Checked) {
	verdict := "passed"
	if len(c.Violations) > 0 {
		verdict = "FAILED"
	}
	fmt.Fprintf(out, "%s: %s: %d operations (%d ok, %d failed, %d unknown) of %v, checked in %.1f s\n", c.File, verdict,
		c.Operations.Total(), c.Operations.OK, c.Operations.Failed, c.Operations.Unknown, c.Workloads, c.Seconds)
	if c.Damage != "" {
		fmt.Fprintf(out, "  %s\n", c.Damage)
	}
	for _, v := range c.Violations {
		fmt.Fprintf(out, "  %s: %s\n", v.Checker, v.What)
	}
}
