package client

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Client is a cluster's: connections, and what was heard of where keys are. It is also the KV of Config.Keyspace.
type Client struct {
	KV

	cfg     Config
	conns   *conns
	routes  *routes
	watches *watches
	turn    atomic.Uint64 // which endpoint a request of which nothing is known begins with
	stats   counters

	keepersMu sync.Mutex
	keepers   map[string]*keeper // by keyspace
}

// New makes a client. It opens no connection: the first request does.
func New(cfg Config) (*Client, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c := &Client{cfg: cfg, routes: newRoutes(cfg.CachedRanges), keepers: make(map[string]*keeper)}
	c.conns = newConns(&c.cfg)
	c.watches = &watches{c: c, shared: make(map[streamKey]*watchStream)}
	c.KV = c.Keyspace(cfg.Keyspace)
	return c, nil
}

// Close ends the connections. What is under way fails; a write among it is Ambiguous.
func (c *Client) Close() error {
	c.conns.close()
	return nil
}

// Keyspace is the KV of a keyspace, which need not exist yet. It asks nobody.
func (c *Client) Keyspace(name string) KV { return KV{c: c, keyspace: name} }

type counters struct{ sent, direct, retried, ambiguous atomic.Uint64 }

// Stats counts what the KVs of a client sent since it was made. Nearly all should be Direct.
type Stats struct {
	Sent      uint64 // requests that left, each try
	Direct    uint64 // of these, answered by the node that leads the range, to which the client sent it because of that
	Retried   uint64 // tries after the first
	Ambiguous uint64 // writes whose outcome is not known
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	return Stats{
		Sent: c.stats.sent.Load(), Direct: c.stats.direct.Load(), Retried: c.stats.retried.Load(), Ambiguous: c.stats.ambiguous.Load(),
	}
}
