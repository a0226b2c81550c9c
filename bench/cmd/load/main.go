// Command load puts one load on a server that speaks etcd's v3 API and prints what it saw, as lines of JSON (see
// package load). The driver, cmd/bench, starts it once for each block; it can be run by hand as well.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/bench/load"
)

func main() {
	var c load.Config
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "`host:port` of each server, separated by commas")
	flag.StringVar(&c.Op, "op", load.Put, "put, get (linearizable) or preload (every key once)")
	flag.IntVar(&c.Clients, "clients", 64, "operations under way at once")
	flag.IntVar(&c.Conns, "conns", 6, "connections, spread evenly over the endpoints")
	flag.IntVar(&c.Keys, "keys", 10_000, "how many keys")
	flag.IntVar(&c.ValueBytes, "value-bytes", 128, "length of each value")
	flag.DurationVar(&c.Warmup, "warmup", time.Second, "under load, before anything is counted")
	flag.DurationVar(&c.Length, "length", 5*time.Second, "how long to count")
	flag.DurationVar(&c.Timeout, "timeout", 10*time.Second, "an operation that takes longer is an error")
	flag.Uint64Var(&c.Seed, "seed", 1, "of the keys and values drawn")
	flag.StringVar(&c.Keyspace, "keyspace", "", "name this keyspace in the metadata of each call")
	flag.Parse()
	c.Endpoints = strings.Split(*endpoints, ",")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lines := json.NewEncoder(os.Stdout)
	if err := load.Run(ctx, c, func(e closed.Event) error { return lines.Encode(e) }); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}
