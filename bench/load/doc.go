// Package load puts load on any server that speaks etcd's v3 API. It uses nothing but etcd's public Go client, so
// that it cannot favour one server, and runs in a process of its own (cmd/load), so that its CPU is not taken for a
// server's.
//
// Clients take their connections in turn, operation by operation, so that each endpoint gets the same share of the
// load whichever of them happens to be the leader.
package load

import (
	"errors"
	"fmt"

	"github.com/cairndb/cairn/bench/closed"
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
	closed.Config
	Endpoints  []string // host:port
	Op         string   // one of the operations
	Conns      int      // connections, spread evenly over the endpoints; a multiple of their number
	Keys       int      // the keys are 0 … Keys-1, drawn evenly
	ValueBytes int      // of each value; the bytes are random, so that no server gains by compressing them
	// Keyspace, if not empty, is named in the metadata of each call. A server that has no keyspaces does not look at it.
	Keyspace string
}

// KeyspaceHeader is the metadata by which Cairn's clients name a keyspace.
const KeyspaceHeader = "cairn-keyspace"

// Validate returns every problem at once.
func (c *Config) Validate() error {
	errs := []error{c.Config.Validate()}
	if len(c.Endpoints) == 0 {
		errs = append(errs, errors.New("no endpoints"))
	} else if c.Conns <= 0 || c.Conns%len(c.Endpoints) != 0 {
		errs = append(errs, fmt.Errorf("%d connections cannot be spread evenly over %d endpoints", c.Conns, len(c.Endpoints)))
	}
	if c.Op != Put && c.Op != Get && c.Op != Preload {
		errs = append(errs, fmt.Errorf("unknown operation %q: it is %s, %s or %s", c.Op, Put, Get, Preload))
	}
	if c.Keys <= 0 || c.ValueBytes <= 0 {
		errs = append(errs, fmt.Errorf("%d keys with values of %d bytes: both must be above 0", c.Keys, c.ValueBytes))
	}
	return errors.Join(errs...)
}
