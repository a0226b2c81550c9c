// Package load says how busy a range is, and where to cut it so that two can share the work.
//
// A Meter is given the number of requests that were served, once a second, and the keys of a few of them while the range is hot. It
// is stepped: time and random numbers are handed in, and what it finds is a value (Verdict). A range that is not hot has a
// rate and nothing else.
//
// A key is chosen by what came after it. Of the requests that are looked at, a reservoir keeps some of their keys as candidates
// (Algorithm R: Vitter, Random Sampling with a Reservoir, 1985), each with counts of the later requests that lie left of it,
// right of it, and across it; the best of them is the cut. That is the finder of CockroachDB's load-based splitting
// (pkg/kv/kvserver/split). Keys that only grow, as those of a queue or a log, show themselves: all that follows a candidate lies
// right of it, so that no cut helps, and none is made.
package load

import (
	"github.com/cairndb/cairn/internal/base"
)

// Meter measures one range. Not safe for concurrent use.
type Meter struct {
	rate    Rate
	rnd     *base.Rand
	settled base.Instant // from when on the range can be found hot

	sample  *Sample      // nil: it is not hot
	since   base.Instant // when the sample was begun
	windows int          // samples without a cut since it is hot
}

// NewMeter measures a range from now on.
func NewMeter(now base.Instant, rnd *base.Rand) *Meter {
	return &Meter{rate: NewRate(now), rnd: rnd, settled: now.Add(base.LoadSettle)}
}

// Verdict is what a window of a hot range came to.
type Verdict struct {
	Rate    float64 // requests per second
	Windows int     // how many in a row, this one counted; 0: nothing is decided now
	Best    Cut     // the best place to cut the range at; without a key if nothing was seen of any
	Helps   bool    // the range is to be cut there
}

// Look counts n requests that were served since the last Look, and judges a range whose rate has been at the threshold for a
// window. One with less than half of it lately lives on what it had: a peak is over, whatever its tail. With threshold 0 no range
// is hot.
func (m *Meter) Look(now base.Instant, n uint64, threshold float64) Verdict {
	lately := m.rate.Add(now, n)
	v := Verdict{Rate: m.rate.PerSecond()}
	if threshold <= 0 || v.Rate < threshold || lately < threshold/2 || now < m.settled {
		m.sample, m.windows = nil, 0
		return v
	}
	if m.sample == nil {
		m.begin(now)
	}
	if now.Sub(m.since) < base.LoadWindow || m.sample.Seen() < base.LoadTouches {
		return v
	}
	m.windows++
	v.Windows = m.windows
	v.Best, v.Helps = m.sample.Best()
	m.begin(now) // what was hot a window ago is forgotten
	return v
}

func (m *Meter) begin(now base.Instant) { m.sample, m.since = NewSample(m.rnd), now }

// Rate is the requests per second at the last Look.
func (m *Meter) Rate() float64 { return m.rate.PerSecond() }

// Hot says whether the keys of some requests are wanted.
func (m *Meter) Hot() bool { return m.sample != nil }

// Touch looks at the keys of one request.
func (m *Meter) Touch(s Span) {
	if m.sample != nil {
		m.sample.Touch(s)
	}
}

// Gap is how many requests on the next one is to be looked at, at least 1. It is drawn anew each time: a client that goes round
// a few keys is not always met at the same one.
func (m *Meter) Gap() uint64 {
	mean := max(1, int64(m.rate.PerSecond()/base.LoadTouchesPerSecond))
	return uint64(1 + m.rnd.Int63n(2*mean-1))
}
