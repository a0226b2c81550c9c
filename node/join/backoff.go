package join

import (
	"math/rand/v2"
	"time"
)

// backoff is the wait between two rounds: half as long again each time up to a bound, with a quarter of jitter
// either way, so that nodes that were started together do not ask together for ever.
type backoff struct{ wait, max time.Duration }

func newBackoff(first, most time.Duration) *backoff { return &backoff{wait: first, max: most} }

func (b *backoff) next() time.Duration {
	w := b.wait
	b.wait = min(b.wait+b.wait/2, b.max)
	return w*3/4 + rand.N(w/2+1)
}
