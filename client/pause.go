package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// pause waits between two tries, up to half as long again, so that many clients of one lost node do not come back in step. It
// returns early when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
