package raftgroup

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// Config is what a Loop is made of.
type Config struct {
	Node        base.NodeID
	Incarnation base.Incarnation
	Store       LogStore
	Seed        uint64 // of the election timers

	// Supports, if not nil, is what support this node has: ranges are led under leases then. SupportDuration is how long
	// each promise lasts, by which elections are paced. SilentFor is how long after its making the loop neither votes nor
	// campaigns, because of what its node's earlier process may have promised.
	Supports                   Supports
	SupportDuration, SilentFor time.Duration
	// ColdAfter is how long nothing may happen to a replica before its group is dropped; 0: it never is.
	ColdAfter time.Duration

	// TickInterval is how often a leader is ticked, which is how often it sends heartbeats where it needs any.
	TickInterval time.Duration
	// ElectionTicks is the time-out of an election in ticks: a follower that heard nothing for one to two times that
	// campaigns, and a leader that heard no majority for that long steps down.
	ElectionTicks int

	MaxMessageBytes, MaxApplyBytes, MaxUncommittedBytes, MaxInflightBytes uint64
	MaxInflightMessages                                                   int
	LogKeepEntries, LogKeepBytes                                          uint64
}

// EnsureDefaults fills what was left empty.
func (c *Config) EnsureDefaults() {
	c.TickInterval = cmp.Or(c.TickInterval, base.TickInterval)
	c.ElectionTicks = cmp.Or(c.ElectionTicks, base.ElectionTicks)
	c.MaxMessageBytes = cmp.Or(c.MaxMessageBytes, base.MaxMessageBytes)
	c.MaxApplyBytes = cmp.Or(c.MaxApplyBytes, base.MaxApplyBytes)
	c.MaxUncommittedBytes = cmp.Or(c.MaxUncommittedBytes, base.MaxUncommittedBytes)
	c.MaxInflightBytes = cmp.Or(c.MaxInflightBytes, base.MaxInflightBytes)
	c.MaxInflightMessages = cmp.Or(c.MaxInflightMessages, base.MaxInflightMessages)
	c.LogKeepEntries = cmp.Or(c.LogKeepEntries, base.LogKeepEntries)
	c.LogKeepBytes = cmp.Or(c.LogKeepBytes, base.LogKeepBytes)
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	if c.Node == 0 {
		errs = append(errs, errors.New("no node id"))
	}
	if c.Store == nil {
		errs = append(errs, errors.New("no log store"))
	}
	if c.TickInterval <= 0 {
		errs = append(errs, fmt.Errorf("a tick of %s", c.TickInterval))
	}
	if c.ElectionTicks < 2 {
		errs = append(errs, fmt.Errorf("an election after %d ticks: a heartbeat takes one, so at least 2", c.ElectionTicks))
	}
	if c.MaxInflightMessages < 1 || c.MaxMessageBytes == 0 || c.MaxInflightBytes < c.MaxMessageBytes {
		errs = append(errs, errors.New("the bounds of messages under way do not let one through"))
	}
	return errors.Join(errs...)
}

// successionStep is how long each of a lost leader's possible successors leaves the one before it alone.
func (c *Config) successionStep() time.Duration { return c.SupportDuration / 4 }

// retry bounds the pause before a candidate that was not elected campaigns again, from the first time on.
func (c *Config) retry(tries int) time.Duration {
	if c.Supports == nil || c.SupportDuration == 0 {
		return c.electionTimeout()
	}
	return min(c.SupportDuration/2<<min(tries-1, 8), 2*c.electionTimeout())
}

// electionTimeout is the shortest time without a leader after which a replica campaigns.
func (c *Config) electionTimeout() time.Duration {
	return time.Duration(c.ElectionTicks) * c.TickInterval
}
