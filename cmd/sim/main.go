// Command sim runs the simulator of a whole cluster: one seed with a trace, many seeds in parallel, a failing one made
// smaller, and the planted mistakes. What it does is in linearizability/sim; here are flags and printing.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
)

// What the process answers its caller with.
const (
	exitFailed = 1 // a seed failed, or a mistake survived
	exitUsage  = 2 // the command line was not understood
)

// errFailed has been told in full already.
var errFailed = errors.New("failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	root := &cobra.Command{
		Use: "sim", Short: "Run a whole simulated cluster from a seed", SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	understood := false
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	root.AddCommand(newRun(), newMany(), newShrink(), newList(), newMerge(), newWorker(), newMutants())
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
	case errors.Is(err, errFailed):
		os.Exit(exitFailed)
	default:
		fmt.Fprintf(os.Stderr, "sim: %v\n", err)
		if !understood {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailed)
	}
}
