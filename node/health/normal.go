package health

import (
	"math"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// normal is what a write takes when nothing moves: what moves are held against, which wait while writes take much longer
// (policy, pause_latency).
//
// It follows what is read slowly, so that a slow minute is none. But it is never more than the slowest of the last readings of
// base.NormalCalm: what writes took while a store was filled, or while the node started, is not what they take when that is over, and
// moves would not wait for anything that is faster.
type normal struct {
	micros float64 // 0: not known yet
	recent [normalReadings]float64
	next   int
	full   bool // recent
}

// normalReadings is how many readings base.NormalCalm has.
const normalReadings = int(base.NormalCalm / base.HeartbeatInterval)

// learn takes in the slowest hundredth of writes of a moment in which nothing moved, in microseconds, and how long that was.
func (n *normal) learn(micros float64, elapsed time.Duration) {
	n.recent[n.next] = micros
	n.next = (n.next + 1) % normalReadings
	n.full = n.full || n.next == 0
	if n.micros == 0 {
		n.micros = micros
		return
	}
	n.micros += (micros - n.micros) * (1 - math.Exp2(-elapsed.Seconds()/base.NormalHalfLife.Seconds()))
	if !n.full {
		return
	}
	most := 0.0
	for _, r := range n.recent {
		most = max(most, r)
	}
	n.micros = min(n.micros, most)
}
