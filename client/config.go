package client

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cairndb/cairn/internal/base"
)

// Config says what a Client is made of. Endpoints must be given; the rest has defaults.
type Config struct {
	// Endpoints are addresses (HOST:PORT) of some nodes, to begin with. The others are learned from them.
	Endpoints []string
	// Keyspace is what the Client's own methods work on. Default: `default`.
	Keyspace string
	// DialTimeout bounds the wait for a connection before another node is tried. Default: 3 s.
	DialTimeout time.Duration
	// RequestTimeout bounds a call whose context has no deadline. Default: 7 s, as a node does.
	RequestTimeout time.Duration
	// Credentials secure the connections. Default: none, as nodes have none yet.
	Credentials credentials.TransportCredentials
	// DialOptions are added to the client's own, for interceptors and the like. The client's own win.
	DialOptions []grpc.DialOption
	// CachedRanges bounds the descriptors that are remembered, a few hundred bytes each. Default: 100,000.
	CachedRanges int
}

// EnsureDefaults fills what was left open.
func (c *Config) EnsureDefaults() {
	c.Keyspace = cmp.Or(c.Keyspace, base.KeyspaceDefault.String())
	c.DialTimeout = cmp.Or(c.DialTimeout, base.ConnectTimeout)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, base.RequestTimeout)
	c.CachedRanges = cmp.Or(c.CachedRanges, base.DescriptorCache)
	if c.Credentials == nil {
		c.Credentials = insecure.NewCredentials()
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Endpoints) == 0 {
		errs = append(errs, errors.New("no endpoints: give the address of at least one node"))
	}
	for _, e := range c.Endpoints {
		if _, _, err := net.SplitHostPort(e); err != nil {
			errs = append(errs, fmt.Errorf("endpoint %q is not HOST:PORT: %w", e, err))
		}
	}
	if c.DialTimeout < 0 || c.RequestTimeout < 0 {
		errs = append(errs, errors.New("time-outs cannot be negative"))
	}
	if c.CachedRanges < 0 {
		errs = append(errs, fmt.Errorf("a cache of %d ranges", c.CachedRanges))
	}
	return errors.Join(errs...)
}
