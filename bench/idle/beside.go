package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/bench/closed"
)

// Beside is what a load on one range of a cluster gets with that many idle ranges beside it, as ratios to what it gets on a
// cluster with none, in pairs that follow each other on two clusters that both stand all the time.
type Beside struct {
	Ranges    int
	Rate, P99 []float64 // a pair each
}

// Beside measures.
func (s *Suite) Beside(ctx context.Context, load string, count, clients, pairs int, length time.Duration) (b Beside, err error) {
	b.Ranges = count
	var clusters [2]*cluster
	for i, n := range []int{0, count} {
		c, _, err := s.settled(ctx, firstPort+100*i, n)
		defer func() { err = errors.Join(err, c.stop()) }()
		if err != nil {
			return b, fmt.Errorf("%d ranges: %w", n, err)
		}
		clusters[i] = c
	}
	if err := wait(ctx, 30*time.Second); err != nil { // until all are cold
		return b, err
	}
	for pair := range pairs {
		var got [2]*closed.Report
		for at := range 2 {
			i := (at + pair) % 2 // either begins in turn
			if got[i], err = clusters[i].load(ctx, load, clients, length); err != nil {
				return b, err
			}
		}
		b.Rate = append(b.Rate, got[1].Rate()/got[0].Rate())
		b.P99 = append(b.P99, float64(got[1].P99)/float64(got[0].P99))
		s.Say("pair %d: %.0f and %.0f puts a second, p99 %s and %s", pair+1, got[0].Rate(), got[1].Rate(), got[0].P99, got[1].P99)
	}
	return b, nil
}

// load runs the closed loop of the other benchmarks against the cluster.
func (c *cluster) load(ctx context.Context, program string, clients int, length time.Duration) (*closed.Report, error) {
	out, err := exec.CommandContext(ctx, program, "-endpoints", strings.Join(c.addr[:], ","), "-clients", fmt.Sprint(clients), "-length", length.String()).Output()
	if err != nil {
		return nil, fmt.Errorf("the load: %w", err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var e closed.Event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return nil, errors.New("the load told nothing")
		} else if err != nil {
			return nil, err
		}
		if e.Report != nil {
			return e.Report, nil
		}
	}
}

// String says the medians, and how far the pairs are apart.
func (b Beside) String() string {
	mid := func(v []float64) string {
		v = slices.Sorted(slices.Values(v))
		return fmt.Sprintf("%.3f [%.2f-%.2f]", v[len(v)/2], v[0], v[len(v)-1])
	}
	return fmt.Sprintf("beside %d idle ranges, %d pairs: rate %s, p99 %s of what it is beside none", b.Ranges, len(b.Rate), mid(b.Rate), mid(b.P99))
}
