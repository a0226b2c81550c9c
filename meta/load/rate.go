package load

import (
	"math"

	"github.com/cairndb/cairn/internal/base"
)

// Rate is an average of requests per second that forgets: what came a half-life ago counts half. Requests that are counted
// together are taken to have come evenly since the count before, so that how often somebody counts makes no difference to a
// steady stream.
type Rate struct {
	perSecond float64
	at        base.Instant
	waiting   uint64 // counted when no time had passed
}

// NewRate is 0 at now.
func NewRate(now base.Instant) Rate { return Rate{at: now} }

// Add counts n requests that came since the last Add, and returns the rate of that time alone. A clock that stands still or goes
// back ends no time: then they count with the next ones.
func (r *Rate) Add(now base.Instant, n uint64) (lately float64) {
	r.waiting += n
	dt := now.Sub(r.at).Seconds()
	if dt <= 0 {
		return r.perSecond
	}
	lately = float64(r.waiting) / dt
	kept := math.Exp2(-dt / base.LoadHalfLife.Seconds())
	r.perSecond = r.perSecond*kept + lately*(1-kept)
	r.at, r.waiting = now, 0
	return lately
}

// PerSecond is the rate at the last Add.
func (r *Rate) PerSecond() float64 { return r.perSecond }
