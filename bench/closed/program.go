package closed

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
	"time"
)

// Nodes is how many nodes a subject runs.
const Nodes = 3

// Program is what a program that measures bare loops is told by its flags.
type Program struct {
	Config
	Folder     string // of the nodes' stores; it must not exist
	Groups     int    // Raft groups, each with a replica on every node; group g is led by node g mod Nodes
	ValueBytes int    // of each entry proposed
}

// Subject is three nodes in this process, ready to work.
type Subject interface {
	// Propose returns once the entry has been committed and applied on the node that leads the group.
	Propose(ctx context.Context, group int, entry []byte) error
	Close() error
}

// Main is the main function of such a program: it reads the flags, starts the subject, lets clients propose to the
// groups in turn, and prints the events as lines of JSON.
func Main(start func(context.Context, Program) (Subject, error)) {
	p := Program{Config: Config{Timeout: 10 * time.Second}}
	flag.StringVar(&p.Folder, "folder", "", "of the nodes' stores; it must not exist")
	flag.IntVar(&p.Groups, "groups", 1, "Raft groups")
	flag.IntVar(&p.Clients, "clients", 512, "proposals under way at once")
	flag.IntVar(&p.ValueBytes, "value-bytes", 128, "length of each entry")
	flag.DurationVar(&p.Warmup, "warmup", time.Second, "under load, before anything is counted")
	flag.DurationVar(&p.Length, "length", 5*time.Second, "how long to count")
	flag.Uint64Var(&p.Seed, "seed", 1, "of the entries")
	profile := flag.String("cpu-profile", "", "write a CPU profile of the whole run to this `file`")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lines := json.NewEncoder(os.Stdout)
	err := profiled(*profile, func() error {
		return p.run(ctx, start, func(e Event) error { return lines.Encode(e) })
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(1)
	}
}

// profiled runs f, with a CPU profile if there is a file for it.
func profiled(path string, f func() error) error {
	if path == "" {
		return f()
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return errors.Join(err, file.Close())
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, file.Close())
}

func (p Program) run(ctx context.Context, start func(context.Context, Program) (Subject, error), emit func(Event) error) (err error) {
	if p.Folder == "" || p.Groups <= 0 || p.ValueBytes <= 0 {
		return errors.New("a folder, and numbers of groups and bytes above 0, are needed")
	}
	if err := os.Mkdir(p.Folder, 0o755); err != nil {
		return err
	}
	subject, err := start(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, subject.Close()) }()
	return Run(ctx, p.Config, func(ctx context.Context, client, n int, random *rand.Rand) error {
		entry := make([]byte, p.ValueBytes)
		for i := range entry {
			entry[i] = byte(random.Uint32())
		}
		return subject.Propose(ctx, (client+n)%p.Groups, entry)
	}, emit)
}
