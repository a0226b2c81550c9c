// Package node is one Cairn node: it opens the store, finds its way into a cluster, and wires loops, transport,
// dispatch and the served APIs together. node.go is the page to read.
package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/retention"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup/support"
)

// Config is what a Node is made of.
type Config struct {
	// StoreDir is the folder of the node's one store; it is made if it does not exist. A process has it for itself.
	StoreDir string
	// Listen is the address that the node serves all its APIs on; Advertise is where others reach it (default: Listen).
	Listen, Advertise string
	// Listener, if set, is what was opened on Listen already: tests have no port that another process may take meanwhile. The node
	// closes it.
	Listener net.Listener
	// Join are addresses of nodes through which this one finds its cluster, HOST:PORT, and names that lead to some, dns:NAME:PORT
	// and srv:NAME. One node is enough; the node itself may be among them.
	Join []string
	// BootstrapExpect: when that many nodes of Join wait without a cluster, they make one by themselves. 0: somebody
	// has to call Init.
	BootstrapExpect int
	// ReplaceLost: the store that was at this address before is lost for good; join as a new node and retire that one.
	ReplaceLost bool
	// Locality says where the node is, the outermost tier first.
	Locality []*metapb.LocalityTier
	// Attributes are what constraints may ask for: ssd, gpu.
	Attributes []string
	// Version of the binary, as a semantic version.
	Version string
	Logger  *slog.Logger
	// Limits of the etcd API; zero values are etcd's defaults.
	MaxRequestBytes, MaxTxnOps int
	// Loops run the node's ranges; 0: one for each core.
	Loops int
	// SplitBytes is how large a range of a sharded keyspace may be before it is cut in two; 0: base's.
	SplitBytes int64
	// SplitQPS is how many requests a second a range of a sharded keyspace may be served before it is cut in two; 0: any number.
	SplitQPS float64
	// ListenKeyspace are further addresses to listen on, by the keyspace that clients mean there who name none.
	ListenKeyspace map[string]string
	// QuotaBytes is how large the node's store may be on disk before the cluster takes no more data; 0: any size.
	QuotaBytes int64
	// Retention is how much history of clients' keyspaces is kept; the zero value keeps all.
	Retention retention.Policy
	// OwnHistory is how long the history of what Cairn keeps about itself is kept; 0: base's.
	OwnHistory time.Duration
	// UnsafeTesting lets whoever reaches the node make its disk and its clock unwell: for tests, with data that is theirs.
	UnsafeTesting bool
	// SupportInterval is how often the node asks others for the support on which its leases rest, SupportDuration how long
	// each promise is for; 0: base's. Failover takes about SupportDuration.
	SupportInterval, SupportDuration time.Duration
	// WatchProgressInterval is how often watches that ask for it are told how far they are, if nothing happens; 0: etcd's default.
	WatchProgressInterval time.Duration
	// StopTimeout bounds a graceful stop: handing leadership over, and letting requests end.
	StopTimeout time.Duration
}

// EnsureDefaults fills what was left empty.
func (c *Config) EnsureDefaults() {
	c.Advertise = cmp.Or(c.Advertise, c.Listen)
	c.MaxRequestBytes = cmp.Or(c.MaxRequestBytes, base.MaxRequestBytes)
	c.MaxTxnOps = cmp.Or(c.MaxTxnOps, base.MaxTxnOps)
	c.SupportInterval = cmp.Or(c.SupportInterval, base.SupportInterval)
	c.SupportDuration = cmp.Or(c.SupportDuration, base.SupportDuration)
	c.WatchProgressInterval = cmp.Or(c.WatchProgressInterval, base.WatchProgressInterval)
	if c.WatchProgressInterval > 0 {
		c.WatchProgressInterval = max(c.WatchProgressInterval, base.WatchProgressLeast)
	}
	c.OwnHistory = cmp.Or(c.OwnHistory, base.OwnHistory)
	c.StopTimeout = cmp.Or(c.StopTimeout, base.StopTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	if c.StoreDir == "" {
		errs = append(errs, errors.New("no store directory: give --store DIR"))
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("the address to listen on, %q, cannot be used (%w): give --listen HOST:PORT", c.Listen, err))
	}
	if err := join.CheckAddress(c.Advertise); err != nil {
		errs = append(errs, fmt.Errorf("the advertised address: %w: give --advertise HOST:PORT as other nodes reach this one", err))
	}
	errs = append(errs, join.CheckSources(c.Join, c.BootstrapExpect)...)
	for name, a := range c.ListenKeyspace {
		if _, _, err := net.SplitHostPort(a); err != nil || name == "" {
			errs = append(errs, fmt.Errorf("--listen-keyspace %s=%s: give NAME=HOST:PORT", name, a))
		}
	}
	for _, a := range c.Attributes {
		if a == "" || strings.ContainsAny(a, "=,:+-~ \t") {
			errs = append(errs, fmt.Errorf("--attribute %q: give a word such as ssd, without = , : + - ~ or blanks", a))
		}
	}
	if c.QuotaBytes < 0 || c.QuotaBytes > 0 && c.QuotaBytes < base.QuotaMin {
		errs = append(errs, fmt.Errorf("--quota-backend-bytes %d: give how large the store may be, at least %d, for its logs alone take about as much; or 0 for any size",
			c.QuotaBytes, base.QuotaMin))
	}
	if c.SplitBytes < 0 {
		errs = append(errs, fmt.Errorf("--split-bytes %d: give how large a range may be", c.SplitBytes))
	}
	if !(c.SplitQPS >= 0) {
		errs = append(errs, fmt.Errorf("--split-qps %v: give how many requests a second a range may be served, or 0 for any number", c.SplitQPS))
	}
	if c.WatchProgressInterval < 0 {
		errs = append(errs, fmt.Errorf("--watch-progress-notify-interval %s: give how often watches are told how far they are", c.WatchProgressInterval))
	}
	if c.OwnHistory < base.RetentionMin {
		errs = append(errs, fmt.Errorf("history of %s: give at least %s", c.OwnHistory, base.RetentionMin))
	}
	if c.MaxRequestBytes < 0 || c.MaxTxnOps < 0 {
		errs = append(errs, errors.New("limits cannot be negative"))
	}
	pace := support.Config{Self: 1, Incarnation: 1, Interval: c.SupportInterval, Duration: c.SupportDuration}
	pace.EnsureDefaults()
	if err := pace.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("--support-interval %s and --support-duration %s: %w", c.SupportInterval, c.SupportDuration, err))
	}
	if err := store.CheckClock(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
