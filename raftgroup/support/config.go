package support

import (
	"errors"
	"fmt"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// MaxDrift is the most that a clock's rate may differ from true time, in parts of a thousand. It is part of the protocol:
// nodes with different values would not be safe together.
const MaxDrift = 50

// Config is what both sides go by.
type Config struct {
	Self        base.NodeID
	Incarnation base.Incarnation
	Seed        uint64 // of the jitter
	// Interval is how often a node asks each of its peers; Duration how long it asks for. An answer that comes late, or
	// not, costs nothing while Duration lasts. While things run late, a node asks for IdleDuration.
	Interval, Duration time.Duration
	// IdleInterval and IdleDuration are the same for a node that leads no range which is in use: who asks it nothing does
	// not mind that its loss is noticed later.
	IdleInterval, IdleDuration time.Duration
	// MaxDuration bounds what anybody is promised, and is how long a node is silent after its start. It is one for the
	// whole cluster.
	MaxDuration time.Duration
	// DiskLimit is how long the disk may complete nothing before support is no longer asked for; on an idle node that is
	// IdleDuration, for an idle disk must be written to only to know that.
	DiskLimit time.Duration
}

// EnsureDefaults fills what was left empty.
func (c *Config) EnsureDefaults() {
	if c.Interval == 0 {
		c.Interval = base.SupportInterval
	}
	if c.Duration == 0 {
		c.Duration = base.SupportDuration
	}
	if c.MaxDuration == 0 {
		c.MaxDuration = base.SupportMaxDuration
	}
	if c.IdleDuration == 0 {
		c.IdleDuration = min(max(base.SupportIdleDuration, c.Duration), c.MaxDuration)
	}
	if c.IdleInterval == 0 {
		c.IdleInterval = max(c.Interval, min(base.SupportIdleInterval, c.IdleDuration*4/9))
	}
	if c.DiskLimit == 0 {
		c.DiskLimit = base.SupportDiskLimit
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	if c.Self == 0 || c.Incarnation == 0 {
		errs = append(errs, errors.New("no node id or no incarnation"))
	}
	if c.Interval <= 0 {
		errs = append(errs, fmt.Errorf("support is asked for every %s", c.Interval))
	}
	if c.Duration < 2*c.Interval {
		errs = append(errs, fmt.Errorf("support for %s, asked for every %s: one lost message would end it; at least twice the interval is needed", c.Duration, c.Interval))
	}
	if c.IdleInterval < c.Interval || c.IdleDuration < 2*c.IdleInterval || c.IdleDuration > c.MaxDuration {
		errs = append(errs, fmt.Errorf("idle nodes ask every %s for %s: at least as seldom as others, for at least twice that, and for at most %s", c.IdleInterval, c.IdleDuration, c.MaxDuration))
	}
	if c.DiskLimit <= 0 {
		errs = append(errs, fmt.Errorf("a disk that may complete nothing for %s", c.DiskLimit))
	}
	if c.MaxDuration < c.Duration {
		errs = append(errs, fmt.Errorf("support for %s, and nobody is promised more than %s", c.Duration, c.MaxDuration))
	}
	return errors.Join(errs...)
}

// Token names the support that a node has for another at a time.
type Token struct {
	Incarnation base.Incarnation // of the supporter
	Epoch       uint64
}

// Less orders tokens of one supporter for one requester: later ones are greater.
func (t Token) Less(u Token) bool {
	return t.Incarnation < u.Incarnation || t.Incarnation == u.Incarnation && t.Epoch < u.Epoch
}

// Request asks a node for support.
type Request struct {
	Incarnation base.Incarnation // of the requester
	Seq         uint64
	Duration    time.Duration
}

// Answer gives it: until Duration after the receipt of the request, on the supporter's clock.
type Answer struct {
	Incarnation base.Incarnation // of the requester that is meant
	Seq         uint64
	Token       Token
}
