// Package load is a closed-loop load generator for any server that speaks etcd's v3 API. It uses nothing but
// etcd's public Go client, so that it cannot favour one server, and runs in a process of its own (cmd/load), so that
// its CPU is not taken for a server's.
//
// Closed loop: each client has one operation under way and begins the next when that one has ended. Clients take
// their connections in turn, operation by operation, so that each endpoint gets the same share of the load whichever
// of them happens to be the leader.
package load

import (
	"errors"
	"fmt"
	"time"
)

// The operations.
const (
	Put     = "put"     // one key, overwritten
	Get     = "get"     // one key, linearizable
	Preload = "preload" // every key once, by transactions of PreloadBatch puts; warm-up and length do not matter
)

// PreloadBatch is how many puts one transaction of Preload holds: the most that etcd allows by default.
const PreloadBatch = 128

// KeyBytes is the length of every key.
const KeyBytes = 16

// Config is one run.
type Config struct {
	Endpoints  []string      // host:port
	Op         string        // one of the operations
	Clients    int           // operations under way at once
	Conns      int           // connections, spread evenly over the endpoints; a multiple of their number
	Keys       int           // the keys are 0 … Keys-1, drawn evenly
	ValueBytes int           // of each value; the bytes are random, so that no server gains by compressing them
	Warmup     time.Duration // under load, before anything is counted
	Length     time.Duration // of what is counted
	OpTimeout  time.Duration // an operation that takes longer is an error
	Seed       uint64
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Endpoints) == 0 {
		errs = append(errs, errors.New("no endpoints"))
	} else if c.Conns <= 0 || c.Conns%len(c.Endpoints) != 0 {
		errs = append(errs, fmt.Errorf("%d connections cannot be spread evenly over %d endpoints", c.Conns, len(c.Endpoints)))
	}
	if c.Op != Put && c.Op != Get && c.Op != Preload {
		errs = append(errs, fmt.Errorf("unknown operation %q: it is %s, %s or %s", c.Op, Put, Get, Preload))
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"clients", c.Clients}, {"keys", c.Keys}, {"value bytes", c.ValueBytes}} {
		if n.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: %d is not above 0", n.name, n.value))
		}
	}
	if c.Op != Preload && c.Length <= 0 {
		errs = append(errs, errors.New("the length is not above 0"))
	}
	if c.OpTimeout <= 0 {
		errs = append(errs, errors.New("the time-out of operations is not above 0"))
	}
	return errors.Join(errs...)
}

// Report is what one run found. Rates count the operations that ended well while it was counting; latencies are of
// the operations that began then, those that ended later included, so that the slowest are not lost.
type Report struct {
	Ops        int           `json:"ops"`
	Seconds    float64       `json:"seconds"`
	P50        time.Duration `json:"p50_ns"`
	P99        time.Duration `json:"p99_ns"`
	Max        time.Duration `json:"max_ns"`
	Errors     int           `json:"errors"`
	FirstError string        `json:"first_error,omitempty"`
}

// Rate is operations per second.
func (r Report) Rate() float64 {
	if r.Seconds == 0 {
		return 0
	}
	return float64(r.Ops) / r.Seconds
}

// Event is one line of cmd/load's output. Begin and End mark the time that is counted, for whoever reads the servers'
// own counters; the last event carries the report.
type Event struct {
	Event  string  `json:"event"`
	Report *Report `json:"report,omitempty"`
}

// The events, in their order.
const (
	Begin = "begin"
	End   = "end"
	Done  = "done"
)
