package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/linearizability/sim"
)

func newMany() *cobra.Command {
	m := &sim.Many{}
	var (
		keep, summary, output string
		shrink                int
		requireAll            bool
	)
	c := &cobra.Command{
		Use: "many", Short: "Run many seeds in parallel processes", Args: cobra.NoArgs,
		Example: "  sim many --seeds 10000\n  sim many --first 10001 --for 10m --summary part2.json\n  sim many --seeds 500 --class F01,F02",
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			m.Command = func() *exec.Cmd {
				args := []string{"worker"}
				for _, class := range m.Only.Classes {
					args = append(args, "--class", class)
				}
				w := exec.Command(self, args...)
				w.Stderr = os.Stderr
				w.Env = append(os.Environ(), "GOGC=400") // a seed's memory is small, and gone with it
				return w
			}
			m.Progress = progress(cmd.ErrOrStderr())
			sum, err := m.Run(cmd.Context())
			if err != nil {
				return err
			}
			return report(cmd, m, sum, keep, summary, output, shrink, requireAll)
		},
	}
	f := c.Flags()
	f.Uint64Var(&m.First, "first", 1, "the first seed")
	f.Uint64Var(&m.Seeds, "seeds", 300, "how many seeds")
	f.DurationVar(&m.For, "for", 0, "begin no seed after that long")
	f.IntVar(&m.Workers, "workers", runtime.NumCPU(), "how many processes")
	f.DurationVar(&m.Limit, "limit", 5*time.Minute, "how long a seed may take")
	f.StringSliceVar(&m.Only.Classes, "class", nil, "only faults of these classes, as F01,F09")
	f.StringVar(&keep, "keep", "out/sim", "where failing seeds are written, made smaller")
	f.IntVar(&shrink, "shrink", 300, "how many runs may be spent on making a failing seed smaller; 0: it is kept as it is")
	f.StringVar(&summary, "summary", "", "write the figures to this file, for sim merge")
	f.BoolVar(&requireAll, "require-all", false, "fail if a kind of fault never befell anything, or watches and leases never met what they are to meet")
	f.StringVarP(&output, "output", "o", "table", "table or json")
	return c
}

// progress prints a line now and then.
func progress(to io.Writer) func(*sim.Summary) {
	last, told := time.Now(), 0
	return func(s *sim.Summary) {
		for ; told < len(s.Bad); told++ {
			fmt.Fprintf(to, "seed %d failed: %s: %.300s\n", s.Bad[told].Seed, s.Bad[told].Checker, s.Bad[told].What)
		}
		if time.Since(last) < 5*time.Second {
			return
		}
		last = time.Now()
		fmt.Fprintf(to, "%s: %d seeds, %.1f simulated hours, %d operations, %d failed\n", s.Wall.Round(time.Second), s.Seeds, s.Simulated.Hours(), s.OK+s.Failed+s.Unknown, len(s.Bad))
	}
}

func report(cmd *cobra.Command, m *sim.Many, sum *sim.Summary, keep, summary, output string, shrink int, requireAll bool) error {
	out := cmd.OutOrStdout()
	if output == "json" {
		if err := json.NewEncoder(out).Encode(sum); err != nil {
			return err
		}
	} else {
		fmt.Fprint(out, sum)
	}
	if summary != "" {
		raw, err := json.Marshal(sum)
		if err == nil {
			err = os.WriteFile(summary, raw, 0o644)
		}
		if err != nil {
			return err
		}
	}
	for i, b := range sum.Bad {
		if i == 5 {
			fmt.Fprintf(cmd.ErrOrStderr(), "%d more failed; they are not made smaller\n", len(sum.Bad)-i)
			break
		}
		path, err := keepSmaller(sim.Draw(b.Seed, m.Only), shrink, keep)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "seed %d: written to %s\n", b.Seed, path)
	}
	missing := sum.Missing(m.Only)
	if len(missing) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "never befell anything: %v\n", missing)
	}
	var unseen []string
	if requireAll {
		unseen = sum.Unseen()
	}
	if len(unseen) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "never met: %v\n", unseen)
	}
	if len(sum.Bad) > 0 || requireAll && len(missing)+len(unseen) > 0 {
		return errFailed
	}
	return nil
}

// keepSmaller shrinks a failing plan and writes it to a file.
func keepSmaller(p *sim.Plan, budget int, dir string) (string, error) {
	small, r := sim.Shrink(p, budget, sim.RunSafely, nil)
	if r.Passed() {
		return "", fmt.Errorf("seed %d passes when it is run again: the run is not a function of its plan", p.Seed)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("seed-%d.json", p.Seed))
	v := r.Violations[0]
	return path, (&sim.SeedFile{Found: v.What, Checker: v.Checker, Plan: small}).Write(path)
}

func newWorker() *cobra.Command {
	var only sim.Only
	c := &cobra.Command{
		Use: "worker", Short: "Run the seeds that come over the standard input (what many starts)", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return sim.Work(cmd.InOrStdin(), cmd.OutOrStdout(), only) },
	}
	c.Flags().StringSliceVar(&only.Classes, "class", nil, "only faults of these classes")
	return c
}

func newMerge() *cobra.Command {
	return &cobra.Command{
		Use: "merge FILE...", Short: "Add up the summaries of parts", Args: cobra.MinimumNArgs(1),
		Example: "  sim merge part1.json part2.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			var total *sim.Summary
			for _, path := range args {
				raw, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				s := &sim.Summary{}
				if err := json.Unmarshal(raw, s); err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				if total == nil {
					total = s
				} else {
					total.Merge(s)
				}
			}
			fmt.Fprint(cmd.OutOrStdout(), total)
			return nil
		},
	}
}
