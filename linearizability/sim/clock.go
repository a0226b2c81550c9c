package sim

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/raftgroup/support"
)

// maxDrift bounds the rates of the clocks that leases rest on, in parts in a million: what the product assumes
// (support.MaxDrift), and all that it assumes. A plan may go beyond it to show that the checks see what comes of it.
const maxDrift = support.MaxDrift * 1000

// clock is one of a node's clocks against true time. The one that leases rest on counts since the machine was switched on:
// nobody sets it, and faults change its rate within maxDrift. The wall clock is stepped, stopped, and goes back.
type clock struct {
	at     time.Duration // true time of the last change
	local  base.Instant  // what it showed then
	drift  int           // parts in a million
	bound  int           // of drift; 0: none
	frozen int           // how many faults stop it
}

func newClock(p ClockPlan) clock {
	// Far from zero, so that no offset or step makes it negative.
	return clock{local: base.Instant(time.Hour + p.Offset), drift: p.Drift, bound: maxDrift}
}

// read is what the clock shows at a true time.
func (c *clock) read(now time.Duration) base.Instant {
	if c.frozen > 0 {
		return c.local
	}
	d, drift := now-c.at, time.Duration(c.drift)
	if c.bound > 0 {
		drift = max(min(drift, time.Duration(c.bound)), -time.Duration(c.bound))
	}
	return c.local.Add(d + d/1_000_000*drift + d%1_000_000*drift/1_000_000)
}

// change reads the clock, so that from now on it may run otherwise.
func (c *clock) change(now time.Duration, f func(*clock)) {
	c.local, c.at = c.read(now), now
	f(c)
	c.local = max(c.local, 1)
}
