package health

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/placement"
)

func (n *normal) after(d time.Duration, put time.Duration) {
	for range int(d / base.HeartbeatInterval) {
		n.learn(float64(put.Microseconds()), base.HeartbeatInterval)
	}
}

// strained says whether moves wait while writes take that long, by the policy that holds unless another is set.
func (n *normal) strained(put time.Duration) bool {
	return placement.Strained(nil, &metapb.NodeLoad{PutMicros: put.Microseconds(), PutNormalMicros: int64(n.micros)}) != ""
}

// Moves wait for writes that are slow, also after a time in which a store was filled and they were far slower.
func TestPauseAfterFill(t *testing.T) {
	var n normal
	n.after(2*time.Minute, 500*time.Millisecond)
	n.after(base.NormalCalm, 15*time.Millisecond)
	if n.strained(29 * time.Millisecond) {
		t.Errorf("moves wait for writes that are less than twice as slow as the %.0f µs that are normal", n.micros)
	}
	if !n.strained(31 * time.Millisecond) {
		t.Errorf("moves do not wait for writes that are more than twice as slow: %.0f µs are held to be normal", n.micros)
	}
}

// A slow while that passes is not normal, and one that stays becomes so.
func TestSlowWhile(t *testing.T) {
	var n normal
	n.after(5*time.Minute, 15*time.Millisecond)
	n.after(time.Minute, 60*time.Millisecond)
	if !n.strained(60 * time.Millisecond) {
		t.Errorf("after a minute %.0f µs are normal", n.micros)
	}
	n.after(time.Hour, 60*time.Millisecond)
	if n.strained(60 * time.Millisecond) {
		t.Errorf("moves still wait after an hour: %.0f µs are held to be normal", n.micros)
	}
}

// What is normal lies between the fastest and the slowest that was read, and not above the slowest of the last minute.
func TestNormalLies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var n normal
		readings := rapid.SliceOfN(rapid.Float64Range(1, 1e6), 1, 4*normalReadings).Draw(t, "readings")
		least, most := readings[0], 0.0
		for i, r := range readings {
			n.learn(r, base.HeartbeatInterval)
			least, most = min(least, r), max(most, r)
			last := 0.0
			for _, r := range readings[max(0, i+1-normalReadings) : i+1] {
				last = max(last, r)
			}
			if n.micros < least-1e-6 || n.micros > most+1e-6 || i+1 >= normalReadings && n.micros > last {
				t.Fatalf("after %d readings from %f to %f, %f of late, %f is normal", i+1, least, most, last, n.micros)
			}
		}
	})
}
