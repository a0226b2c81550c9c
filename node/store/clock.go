package store

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cairndb/cairn/internal/base"
)

// Now is the node's monotonic clock: CLOCK_BOOTTIME, which also counts the time that the machine was suspended
// (Go's own monotonic clock does not). The only thing assumed of it is its rate.
func Now() base.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("this machine has no CLOCK_BOOTTIME: " + err.Error())
	}
	return base.Instant(ts.Nano())
}

// CheckClock says whether the machine has that clock. A node without it would not know when its leases end.
func CheckClock() error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return fmt.Errorf("this machine has no CLOCK_BOOTTIME (%w), which leases rest on: run the node on Linux 2.6.39 or later", err)
	}
	return nil
}

// steady makes of a clock one that never goes back: after a step back it goes on from where it was. A loop that waited for
// such a clock to catch up would hold no election meanwhile. Safe for concurrent use: who has read the clock before another and comes after
// it has seen no step back, and must not make it run faster.
type steady struct {
	read func() base.Instant

	mu    sync.Mutex
	last  base.Instant
	shift base.Instant
}

func (c *steady) now() base.Instant {
	raw := c.read()
	c.mu.Lock()
	defer c.mu.Unlock()
	if raw+c.shift < c.last {
		if raw = c.read(); raw+c.shift < c.last {
			c.shift = c.last - raw
		}
	}
	c.last = raw + c.shift
	return c.last
}

// Now is the store's clock: what deadlines of its requests are on.
func (s *Store) Now() base.Instant { return s.clock.now() }
