// Command cairn is the whole of Cairn in one binary: the node, and the tools to look at a cluster. One file per
// verb; what a verb does is in the packages, here are flags and printing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// What the process answers its caller with.
const (
	exitOK     = 0
	exitFailed = 1 // it was understood, and did not succeed
	exitUsage  = 2 // it was not understood: nothing was done
)

func main() {
	// The first signal asks for a graceful end; after it the signals are the system's again, and a second one kills.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := run(ctx, env{out: os.Stdout, err: os.Stderr, getenv: os.Getenv}, os.Args[1:])
	stop()
	os.Exit(code)
}

// env is the world of a command.
type env struct {
	out, err io.Writer
	getenv   func(string) string
}

// run carries out one command line and returns the process's exit code.
func run(ctx context.Context, e env, args []string) int {
	understood := false
	root := newRoot(e, &understood)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(e.err, "cairn: %v\n", err)
	var usage *usageError
	var coded *exitError
	if errors.As(err, &coded) {
		return coded.code
	}
	if understood && !errors.As(err, &usage) {
		return exitFailed
	}
	return exitUsage
}

// usageError: the command line cannot be carried out as it is. All that is wrong with it is in one message.
type usageError struct{ problems []error }

func (e *usageError) Error() string {
	if len(e.problems) == 1 {
		return e.problems[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d things are wrong with the command line:", len(e.problems))
	for _, p := range e.problems {
		b.WriteString("\n  - " + p.Error())
	}
	return b.String()
}

// exitError ends a verb with an exit code of its own: it was carried out, and says more than that it succeeded or not.
type exitError struct {
	code    int
	message string
}

func (e *exitError) Error() string { return e.message }

// newRoot is the command and its verbs. *understood becomes true when a verb is about to run.
func newRoot(e env, understood *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "cairn",
		Short: "The cluster manager that lives inside a database's own nodes",
		Long: `Cairn gives a distributed database its cluster manager: membership, leadership, placement and
configuration, kept by the database's own nodes. Clients of etcd v3 can use it as it is.`,
		Example: `  cairn demo
  cairn start --store /var/lib/cairn --listen 10.0.0.1:7400 --join 10.0.0.2:7400,10.0.0.3:7400
  cairn init --host 10.0.0.1:7400
  cairn status --ranges`,
		SilenceErrors: true,
		SilenceUsage:  true,
		// Nothing is done without a verb; cobra shows the help.
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			// Cobra looks at these after this hook; what they find is wrong with the command line.
			if err := errors.Join(c.ValidateRequiredFlags(), c.ValidateFlagGroups()); err != nil {
				return &usageError{[]error{fmt.Errorf("%w: see %s --help", err, c.CommandPath())}}
			}
			*understood = true
			return nil
		},
	}
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{[]error{fmt.Errorf("%w: see %s --help", err, c.CommandPath())}}
	})
	root.AddCommand(newStart(e), newInit(e), newStatus(e), newKeyspace(e), newNode(e), newRange(e), newOp(e), newPolicy(e), newSnapshot(e), newSim(e), newDebug(e), newDemo(e), newVersion(e))
	return root
}
