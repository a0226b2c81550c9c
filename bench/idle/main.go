package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	var s Suite
	counts := flag.String("ranges", "0,10,1000,10000,50000", "how many ranges, separated by commas")
	save := flag.String("save", "", "write the rows as JSON to this `file`")
	beside := flag.Int("beside", 0, "compare instead a load beside this many idle ranges with one beside none")
	pairs := flag.Int("pairs", 9, "of such loads")
	flag.DurationVar(&s.Look, "look", 20*time.Second, "how long an idle cluster is watched")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, &s, *counts, *save, *beside, *pairs); err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *Suite, counts, save string, beside, pairs int) error {
	for _, c := range strings.Split(counts, ",") {
		n, err := strconv.Atoi(c)
		if err != nil {
			return fmt.Errorf("-ranges: %w", err)
		}
		s.Counts = append(s.Counts, n)
	}
	out, err := filepath.Abs("../out")
	if err != nil {
		return err
	}
	s.Binary, s.Folder = filepath.Join(out, "cairn"), filepath.Join(out, "idle")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", s.Binary, "./cmd/cairn")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building cairn: %w\n%s", err, output)
	}
	began := time.Now()
	s.Say = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	if beside > 0 {
		load := filepath.Join(out, "load")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", load, "./cmd/load")
		build.Dir = ".."
		if output, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building the load: %w\n%s", err, output)
		}
		b, err := s.Beside(ctx, load, beside, 64, pairs, 8*time.Second)
		if err == nil {
			fmt.Println(b)
		}
		return err
	}
	rows, err := s.Run(ctx)
	if save != "" && len(rows) > 0 {
		raw, merr := json.MarshalIndent(rows, "", "  ")
		if merr == nil {
			merr = os.WriteFile(save, append(raw, '\n'), 0o644)
		}
		if err == nil {
			err = merr
		}
	}
	if perr := Print(os.Stdout, rows); err == nil {
		err = perr
	}
	return err
}
