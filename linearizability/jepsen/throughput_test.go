package jepsen

import (
	"math"
	"testing"
	"time"

	"github.com/cairndb/cairn/linearizability"
)

func TestMeter(t *testing.T) {
	start := time.Unix(1000, 0)
	m := newMeter(start)
	for i := range 1000 { // for two seconds, 500 a second, one in a hundred slow
		took := time.Millisecond
		if i%50 == 0 {
			took = 80 * time.Millisecond
		}
		m.note(start.Add(time.Duration(i)*2*time.Millisecond), took, linearizability.OK)
	}
	m.note(start.Add(time.Second), time.Second, linearizability.Failed)
	m.note(start.Add(time.Second), time.Second, linearizability.Unknown)

	for _, c := range []struct {
		from, to time.Duration
		want     float64
	}{
		{0, 2 * time.Second, 500},
		{100 * time.Millisecond, 1200 * time.Millisecond, 500}, // within buckets
		{1500 * time.Millisecond, 2500 * time.Millisecond, 250},
		{3 * time.Second, 4 * time.Second, 0},
		{time.Second, time.Second, 0},
	} {
		if got := m.between(c.from, c.to); math.Abs(got-c.want) > 1 {
			t.Errorf("between %s and %s: %.1f a second, want %.1f", c.from, c.to, got, c.want)
		}
	}
	points := m.points(100)
	if len(points) != 4 || points[1].At != 0.75 || points[1].Rate != 500 {
		t.Errorf("points: %+v", points)
	}
	for _, p := range points {
		if p.P99 < 80 || p.P99 > 80*1.19 {
			t.Errorf("p99 at %.2f: %.1f ms, want 80 or at most 19 %% above", p.At, p.P99)
		}
	}
	if coarse := m.points(2); len(coarse) != 2 || coarse[0].Rate != 500 || coarse[0].At != 0.5 {
		t.Errorf("coarse points: %+v", coarse)
	}
	if none := newMeter(start).points(10); len(none) != 0 {
		t.Errorf("points of nothing: %v", none)
	}
}

func TestLatencySteps(t *testing.T) {
	for d := time.Microsecond; d < time.Minute; d = d*5/4 + 1 {
		s := latencyStep(d)
		if up := latencyOf(s); up < d || d > latencyLeast && float64(up) > 1.2*float64(d) {
			t.Errorf("%s is counted as %s", d, up)
		}
	}
	if latencyStep(time.Hour) != latencySteps-1 {
		t.Error("an hour does not fall into the last step")
	}
}
