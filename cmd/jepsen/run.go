package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/jepsen"
	"github.com/cairndb/cairn/linearizability/workloads"
)

// Bounds of what one machine can bear: each node has the loops of every core, each client a connection.
const (
	minNodes, maxNodes = 3, 9
	maxClients         = 1000
	maxLength          = 24 * time.Hour
)

// runFlags are the flags of run as they were given.
type runFlags struct {
	nodes, clients      int
	length              time.Duration
	workloads, nemeses  []string
	mix, loopback       bool
	seed                uint64
	report, output      string
	rate, quiet         float64
	recovery            time.Duration
	logger              *slog.Logger
	reportRoot, started string
}

func newRun(out, errOut io.Writer) *cobra.Command {
	f := &runFlags{reportRoot: filepath.Join("out", "jepsen")}
	limits := jepsen.DefaultLimits()
	c := &cobra.Command{
		Use:   "run",
		Short: "Run a cluster under faults, check its history, write a report",
		Long: `Start a cluster of real processes, each node in a network namespace of its own, and run clients on it: first
without faults, then under each nemesis in turn. Every stage's history is checked. What this machine cannot do is named
and counted as skipped.`,
		Example: `  jepsen run --for 10m --nemesis all
  jepsen run --for 5m --nemesis F01,F03 --mix --workload append,bank
  jepsen run --for 1m --loopback --nemesis kill-leader`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f.logger = slog.New(slog.NewTextHandler(errOut, nil))
			f.started = time.Now().UTC().Format("20060102-150405")
			if !c.Flags().Changed("seed") {
				f.seed = uint64(time.Now().UnixNano()) // printed, and in the report
			}
			return f.run(c.Context(), out)
		},
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.IntVar(&f.nodes, "nodes", 5, "number of nodes")
	fs.IntVar(&f.clients, "clients", 30, "number of clients, shared out among the workloads")
	fs.DurationVar(&f.length, "for", 10*time.Minute, "`LENGTH` of the run, without the checks and slow recoveries")
	fs.StringSliceVar(&f.workloads, "workload", []string{"all"}, "`NAMES` of workloads that run at once, or all")
	fs.StringSliceVar(&f.nemeses, "nemesis", []string{"all"}, "`NAMES` or classes (F01) of nemeses, all, or none")
	fs.BoolVar(&f.mix, "mix", false, "pairs of nemeses at once, instead of one after the other")
	fs.Uint64Var(&f.seed, "seed", 0, "`SEED` of what is drawn: order, lengths, victims, requests (default: the time)")
	fs.StringVar(&f.report, "report", "", "`DIR` of the report (default: out/jepsen/ and the time)")
	fs.BoolVar(&f.loopback, "loopback", false, "nodes on the loopback interface, without namespaces: needs no root, and skips what needs them")
	fs.Float64Var(&f.rate, "min-rate", limits.Rate, "least operations a second without faults")
	fs.Float64Var(&f.quiet, "min-quiet-rate", limits.QuietRate, "least operations a second in the quiet phases between faults")
	fs.DurationVar(&f.recovery, "max-recovery", limits.Recovery, "longest time after a fault until all clients succeed")
	fs.StringVarP(&f.output, "output", "o", "text", "text or json")
	return c
}

// kinds finds the workloads that are asked for.
func kinds(asked []string) ([]linearizability.Kind, error) {
	var out []linearizability.Kind
	var all []string
	for _, k := range workloads.Kinds() {
		all = append(all, k.Name)
	}
	seen := make(map[string]bool)
	for _, name := range asked {
		if name == "all" {
			return workloads.Kinds(), nil
		}
		k, ok := workloads.Named(name)
		if !ok {
			return nil, fmt.Errorf("--workload %s is not known: give all, or some of %s", name, strings.Join(all, ", "))
		}
		if !seen[name] {
			out = append(out, k)
		}
		seen[name] = true
	}
	return out, nil
}

// check finds all that is wrong with the flags.
func (f *runFlags) check() ([]linearizability.Kind, error) {
	var problems []error
	if f.nodes < minNodes || f.nodes > maxNodes {
		problems = append(problems, fmt.Errorf("--nodes %d: give %d to %d", f.nodes, minNodes, maxNodes))
	}
	if f.length <= 0 || f.length > maxLength {
		problems = append(problems, fmt.Errorf("--for %s: give a time up to %s", f.length, maxLength))
	}
	if f.rate <= 0 || f.quiet <= 0 || f.recovery <= 0 {
		problems = append(problems, errors.New("--min-rate, --min-quiet-rate and --max-recovery must be above 0: a run that does nothing does not pass"))
	}
	ks, err := kinds(f.workloads)
	if err != nil {
		problems = append(problems, err)
	} else if f.clients < len(ks) || f.clients > maxClients {
		problems = append(problems, fmt.Errorf("--clients %d: give %d (one for each workload) to %d", f.clients, len(ks), maxClients))
	}
	if err := checkOutput(f.output); err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return nil, &usageError{errors.Join(problems...)}
	}
	return ks, nil
}

func (f *runFlags) run(ctx context.Context, out io.Writer) error {
	ks, err := f.check()
	if err != nil {
		return err
	}
	var missing map[jepsen.Capability]string
	if !f.loopback {
		missing = jepsen.Missing()
	} else {
		missing = jepsen.MissingOnLoopback()
	}
	if !slices.ContainsFunc(ks, func(k linearizability.Kind) bool { return k.Cut != nil }) {
		missing[jepsen.Ranges] = "no workload is for a keyspace of many ranges"
	}
	nemeses, skipped, err := jepsen.Select(f.nemeses, missing)
	if err != nil {
		return usagef("--nemesis: %w", err)
	}
	if why, lacks := missing[jepsen.Namespaces]; lacks && !f.loopback {
		fmt.Fprintf(out, "skipped: %s: nothing was run, %d nemeses were skipped; --loopback runs those that need no namespaces\n",
			why, len(nemeses)+len(skipped))
		return nil
	}
	dir := f.report
	if dir == "" {
		dir = filepath.Join(f.reportRoot, f.started)
	}
	rep, err := f.start(ctx, dir, jepsen.Options{
		Name: filepath.Base(dir), Dir: dir, Workloads: ks, Nemeses: nemeses, Skipped: skipped, Mix: f.mix, Clients: f.clients,
		Length: f.length, Seed: f.seed, Logger: f.logger,
		Limits: jepsen.Limits{Rate: f.rate, QuietRate: f.quiet, Recovery: f.recovery},
	})
	if err != nil {
		return err
	}
	if f.output == "json" {
		err = printJSON(out, rep)
	} else {
		err = summary(out, dir, rep)
	}
	if err == nil && !rep.Passed {
		err = errNotPassed
	}
	return err
}

// start runs the cluster for one run. Its stores are deleted unless the run did not pass: they are evidence then.
func (f *runFlags) start(ctx context.Context, dir string, o jepsen.Options) (rep *jepsen.Report, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	stores := filepath.Join(dir, "cluster")
	c, err := jepsen.Start(ctx, jepsen.Config{Nodes: f.nodes, Dir: stores, Loopback: f.loopback, Logger: f.logger})
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, c.Close())
		if err == nil && rep.Passed {
			err = os.RemoveAll(stores)
		}
	}()
	return jepsen.Run(ctx, c, o)
}

// summary is what a person reads at the end of a run; the page has the rest.
func summary(out io.Writer, dir string, r *jepsen.Report) error {
	verdict := "PASSED"
	if !r.Passed {
		verdict = "FAILED"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: seed %d: %d operations (%d ok, %d failed, %d unknown) in %d stages, %d checked in %.0f s, %d nemeses skipped\n",
		verdict, r.Seed, r.Operations.Total(), r.Operations.OK, r.Operations.Failed, r.Operations.Unknown, len(r.Stages),
		r.Checked, r.CheckSeconds, len(r.Skipped))
	if r.Events > 0 {
		fmt.Fprintf(&b, "  %d events of watches held against what was written\n", r.Events)
	}
	if r.Ranges > 0 {
		fmt.Fprintf(&b, "  %d ranges at the end, %d splits, %d merges, %d moves, %d transfers, %d of these refused, %d without an answer\n",
			r.Ranges, r.Changes.Splits, r.Changes.Merges, r.Changes.Moves, r.Changes.Transfers, r.Changes.Refused, r.Changes.Unanswered)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "  skipped %s: %s\n", s.Nemesis, s.Why)
	}
	for _, x := range r.Failures {
		first, _, more := strings.Cut(x.What, "\n")
		if more {
			first += " …"
		}
		fmt.Fprintf(&b, "  stage %d, %s: %s\n", x.Stage, x.Checker, first)
	}
	fmt.Fprintf(&b, "%s\n", filepath.Join(dir, "index.html"))
	_, err := io.WriteString(out, b.String())
	return err
}
