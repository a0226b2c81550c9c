// Command bench compares Cairn with etcd, and Cairn's bare loops with dragonboat's, on this machine: it builds what it
// compares, runs it, and prints a table. README.md says how the comparison is made and how to read it.
//
// It fails only if something could not be built or run, never because of a figure.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cairndb/cairn/bench/compare"
	"github.com/cairndb/cairn/bench/peer"
)

// What a run may take once everything is built.
const (
	fullBudget  = 9 * time.Minute
	quickBudget = 105 * time.Second
)

// options are the command's flags.
type options struct {
	quick, selfCheck, stored, profile bool
	seed                              uint64
	pairs                             int
	length                            time.Duration
	output, parts, save               string
}

// The parts of a run.
const (
	servers = "servers"
	loops   = "loops"
	memory  = "memory"
)

func main() {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "a rough comparison in below 2 minutes")
	flag.BoolVar(&o.selfCheck, "self-check", false, "compare etcd with etcd: the ratios must come out near 1")
	flag.Uint64Var(&o.seed, "seed", 0, "of the order of blocks and of the data; 0 draws one")
	flag.IntVar(&o.pairs, "pairs", 0, "pairs of blocks for each row; 0: as the kind of run has it")
	flag.DurationVar(&o.length, "length", 0, "of one block; 0: as the kind of run has it")
	flag.StringVar(&o.parts, "parts", strings.Join([]string{servers, loops, memory}, ","), "what to run, separated by commas")
	flag.BoolVar(&o.stored, "million", false, "measure the memory of a million stored keys in a quick run too")
	flag.BoolVar(&o.profile, "profile", false, "take CPU profiles of all servers, one set for each row, into out/profiles")
	flag.StringVar(&o.output, "o", "text", "text or json")
	flag.StringVar(&o.save, "save", "", "also write the result as JSON to this `file`")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.output != "text" && o.output != "json" {
		return fmt.Errorf("-o %s: it is text or json", o.output)
	}
	out, err := filepath.Abs("out")
	if err != nil {
		return err
	}
	release, err := claim(out)
	if err != nil {
		return err
	}
	defer release()
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	suite, err := newSuite(ctx, o, out, say)
	if err != nil {
		return err
	}
	suite.Budget = fullBudget
	if o.quick && !o.stored {
		suite.Budget = quickBudget
	}
	result, err := suite.Run(ctx)
	if err != nil {
		return fmt.Errorf("%w\nthe logs of the servers are below %s", err, suite.Folder)
	}
	if err := os.RemoveAll(suite.Folder); err != nil {
		return err
	}
	return show(o, result)
}

// claim makes the folder and holds it for this run: two at once would overwrite each other's binaries and stores, and
// measure each other.
func claim(out string) (release func(), err error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Create(filepath.Join(out, "lock"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another run holds %s: wait for its end", out), lock.Close())
	}
	return func() { _ = lock.Close() }, nil // closing gives it free, and nothing was written
}

// newSuite builds what is to be compared.
func newSuite(ctx context.Context, o options, out string, say func(string, ...any)) (*compare.Suite, error) {
	parts := strings.Split(o.parts, ",")
	for _, p := range parts {
		if p != servers && p != loops && p != memory {
			return nil, fmt.Errorf("-parts: %q is none of %s, %s, %s", p, servers, loops, memory)
		}
	}
	s := &compare.Suite{Config: o.config(parts), Folder: filepath.Join(out, "run"), Say: say}
	if o.profile {
		s.Profiles = filepath.Join(out, "profiles")
	}
	b := builder{out: out, say: say}
	s.Loader = b.build(ctx, "load", ".", "./cmd/load")
	etcd := peer.Etcd{Path: b.build(ctx, "etcd", "etcd", "go.etcd.io/etcd/server/v3"), Profile: o.profile}
	if o.selfCheck {
		s.Names = [2]string{"etcd-1", "etcd-2"}
		s.Systems = [2]peer.System{etcd, etcd}
		return s, b.err
	}
	s.Names = [2]string{"cairn", "etcd"}
	s.Systems = [2]peer.System{peer.Cairn{Path: b.build(ctx, "cairn", "..", "./cmd/cairn"), Profile: o.profile}, etcd}
	if slices.Contains(parts, loops) {
		s.LoopNames = [2]string{"cairn's loops", "dragonboat"}
		s.Loops = [2]string{b.build(ctx, "loops", "loops", "."), b.build(ctx, "dragonboat", "dragonboat", ".")}
	}
	return s, b.err
}

// config is how much is measured.
func (o options) config(parts []string) compare.Config {
	seed := o.seed
	if seed == 0 {
		seed = rand.Uint64() >> 33 // short enough to be typed
	}
	c := compare.Full(seed)
	if o.quick {
		c = compare.Quick(seed)
	}
	if o.stored {
		c.Stored = compare.Full(seed).Stored
	}
	if o.pairs > 0 {
		c.Pairs = o.pairs
	}
	if o.length > 0 {
		c.Length = o.length
	}
	if !slices.Contains(parts, servers) {
		c.Ops = nil
	}
	if !slices.Contains(parts, memory) {
		c.Stored = 0
	}
	return c
}

func show(o options, result *compare.Result) error {
	data, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if o.save != "" {
		if err := os.WriteFile(o.save, data, 0o644); err != nil {
			return err
		}
	}
	if o.output == "json" {
		_, err := os.Stdout.Write(data)
		return err
	}
	return result.Print(os.Stdout)
}
