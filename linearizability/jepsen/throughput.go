package jepsen

import (
	"math"
	"sync"
	"time"

	"github.com/cairndb/cairn/linearizability"
)

// meter counts what clients got, by the time at which they got it. It is safe for concurrent use. Its memory grows by
// some hundred bytes for each half second of the run.
type meter struct {
	start time.Time

	mu      sync.Mutex
	buckets []bucket
}

// bucketWidth is the finest that the timeline shows.
const bucketWidth = 500 * time.Millisecond

// bucket is what ended within one bucketWidth.
type bucket struct {
	counts  Counts
	latency [latencySteps]uint32 // of what succeeded
}

// Latencies are counted in steps of a factor of the fourth root of two, from the least on: a figure read from them is at
// most 19 % too high.
const (
	latencySteps  = 88
	latencyLeast  = 20 * time.Microsecond // the last step begins at a minute and more
	latencyFactor = 4                     // steps to double
)

// Counts are operations by outcome.
type Counts struct {
	OK      int `json:"ok"`
	Failed  int `json:"failed"`
	Unknown int `json:"unknown"`
}

// Total is all of them.
func (c Counts) Total() int { return c.OK + c.Failed + c.Unknown }

func (c *Counts) add(o Counts) {
	c.OK += o.OK
	c.Failed += o.Failed
	c.Unknown += o.Unknown
}

func (c *Counts) count(o linearizability.Outcome) {
	switch o {
	case linearizability.OK:
		c.OK++
	case linearizability.Failed:
		c.Failed++
	default:
		c.Unknown++
	}
}

func newMeter(start time.Time) *meter { return &meter{start: start} }

// note counts one operation that ended at a time after the start.
func (m *meter) note(at time.Time, took time.Duration, o linearizability.Outcome) {
	i := int(at.Sub(m.start) / bucketWidth)
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.buckets) <= i {
		m.buckets = append(m.buckets, bucket{})
	}
	b := &m.buckets[i]
	b.counts.count(o)
	if o == linearizability.OK {
		b.latency[latencyStep(took)]++
	}
}

func latencyStep(d time.Duration) int {
	if d <= latencyLeast {
		return 0
	}
	return min(latencySteps-1, int(math.Ceil(latencyFactor*math.Log2(float64(d)/float64(latencyLeast)))))
}

// latencyOf is the upper end of a step.
func latencyOf(step int) time.Duration {
	return time.Duration(float64(latencyLeast) * math.Exp2(float64(step)/latencyFactor))
}

// between counts what ended in [from, to), times after the start. Buckets count with the share of them that lies inside,
// so that a phase that begins within one is not given its neighbour's operations.
func (m *meter) between(from, to time.Duration) (rate float64) {
	if to <= from {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var ok float64
	for i := range m.buckets {
		low := time.Duration(i) * bucketWidth
		inside := min(to, low+bucketWidth) - max(from, low)
		if inside > 0 {
			ok += float64(m.buckets[i].counts.OK) * float64(inside) / float64(bucketWidth)
		}
	}
	return ok / (to - from).Seconds()
}

// Point is one step of the timeline's lines.
type Point struct {
	At   float64 `json:"at"` // seconds since the run's start, the middle of the step
	Rate float64 `json:"rate"`
	// P99 is of what succeeded in the step, milliseconds; 0 if nothing did.
	P99 float64 `json:"p99_ms"`
}

// points returns the lines of the timeline, in at most that many steps.
func (m *meter) points(most int) []Point {
	m.mu.Lock()
	defer m.mu.Unlock()
	per := (len(m.buckets) + most - 1) / most
	var out []Point
	for i := 0; i < len(m.buckets); i += per {
		var sum bucket
		n := min(per, len(m.buckets)-i)
		for _, b := range m.buckets[i : i+n] {
			sum.counts.add(b.counts)
			for s, c := range b.latency {
				sum.latency[s] += c
			}
		}
		width := float64(n) * bucketWidth.Seconds()
		out = append(out, Point{
			At:   float64(i)*bucketWidth.Seconds() + width/2,
			Rate: float64(sum.counts.OK) / width,
			P99:  float64(sum.percentile(0.99)) / float64(time.Millisecond),
		})
	}
	return out
}

// percentile is the latency that the given share of what succeeded did not exceed.
func (b *bucket) percentile(share float64) time.Duration {
	if b.counts.OK == 0 {
		return 0
	}
	need := uint32(math.Ceil(share * float64(b.counts.OK)))
	var seen uint32
	for s, c := range b.latency {
		if seen += c; seen >= need {
			return latencyOf(s)
		}
	}
	return latencyOf(latencySteps - 1)
}
