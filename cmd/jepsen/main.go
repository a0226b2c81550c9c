// Command jepsen runs clusters of real processes under faults and checks what their clients saw. It is a tool of Cairn's
// own tests and is not shipped. One file per verb.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// What the process answers its caller with.
const (
	exitOK     = 0 // it passed; or all of it was skipped, and it said so
	exitFailed = 1 // something was wrong with the cluster or its history
	exitUsage  = 2 // the command line was not understood: nothing was done
	exitBroken = 3 // nothing can be said: the harness failed, or a history is damaged
)

func main() {
	// The first signal ends the run early: faults are healed and the report is written. A second one kills.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Stdout, os.Stderr, os.Args[1:])
	stop()
	os.Exit(code)
}

// errNotPassed: it is all in the report already.
var errNotPassed = errors.New("not passed")

// run carries out one command line and returns the process's exit code.
func run(ctx context.Context, out, errOut io.Writer, args []string) int {
	understood := false
	root := newRoot(out, errOut, &understood)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errNotPassed):
		return exitFailed
	}
	fmt.Fprintf(errOut, "jepsen: %v\n", err)
	if !understood || errors.As(err, &usage) {
		return exitUsage
	}
	return exitBroken
}

// usageError: the command line cannot be carried out as it is.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// newRoot is the command and its verbs. *understood becomes true when a verb is about to run.
func newRoot(out, errOut io.Writer, understood *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "jepsen",
		Short: "Real clusters under faults, and what their clients saw",
		Long: `Run clusters of real processes, each node in a network namespace of its own, under faults, while clients
work on them, and check the clients' history. It needs root.

Exit codes: 0 passed, or skipped in words; 1 did not pass; 2 not understood; 3 nothing can be said.`,
		Example: `  jepsen list
  jepsen run --for 10m --nemesis all --report out/jepsen/mine
  jepsen run --for 3m --nemesis kill-leader,F04 --workload register,bank --seed 7
  jepsen check out/jepsen/mine/history-003`,
		SilenceErrors:    true,
		SilenceUsage:     true,
		PersistentPreRun: func(*cobra.Command, []string) { *understood = true },
	}
	root.SetOut(out)
	root.SetErr(errOut)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w: see %s --help", err, c.CommandPath())
	})
	root.AddCommand(newRun(out, errOut), newList(out), newCheck(out))
	return root
}

// addOutput is the -o of the verbs that print something that scripts may want.
func addOutput(c *cobra.Command) *string {
	return c.Flags().StringP("output", "o", "text", "text or json")
}

func checkOutput(o string) error {
	if o != "text" && o != "json" {
		return usagef("-o %s is not known: give text or json", o)
	}
	return nil
}
