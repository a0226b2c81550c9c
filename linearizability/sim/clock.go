package sim

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// clock is a node's clock against true time: it runs at a rate that is about right, and faults step it, change its rate,
// or stop it. It may go back; what must not is the product's business.
type clock struct {
	at     time.Duration // true time of the last change
	local  base.Instant  // what it showed then
	drift  int           // parts in a million
	frozen int           // how many faults stop it
}

func newClock(p ClockPlan) clock {
	// Far from zero, so that no offset or step makes it negative.
	return clock{local: base.Instant(time.Hour + p.Offset), drift: p.Drift}
}

// read is what the clock shows at a true time.
func (c *clock) read(now time.Duration) base.Instant {
	if c.frozen > 0 {
		return c.local
	}
	d := now - c.at
	return c.local.Add(d + d/1_000_000*time.Duration(c.drift) + d%1_000_000*time.Duration(c.drift)/1_000_000)
}

// change reads the clock, so that from now on it may run otherwise.
func (c *clock) change(now time.Duration, f func(*clock)) {
	c.local, c.at = c.read(now), now
	f(c)
	c.local = max(c.local, 1)
}
