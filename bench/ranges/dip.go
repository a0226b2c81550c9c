package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/bench/load"
)

// A split is watched under puts that begin on time, all on the range that is split: each split is of a keyspace of its own, which
// is one range until then. The puts that were due from the split's beginning until windowFor later are held against those of the
// same keyspace before it and after that.
const (
	windowFor = time.Second
	aroundFor = 2 * time.Second // before, and after the window
	dipRate   = 1000            // puts a second: a fraction of what the cluster bears, so that a queue drains
)

func (s *Suite) dip(ctx context.Context) (err error) {
	c, err := s.cairn(ctx, "dip", "--split-bytes", never)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	cs, err := dial(ctx, c.Endpoints)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cs.close()) }()
	keys := min(s.Keys, 20_000)
	for i := range s.Splits {
		if err := cs.sharded(ctx, s, dipName(i), 1, keys); err != nil {
			return err
		}
	}
	s.Say("%d keyspaces of one range", s.Splits)
	var inside, outside []time.Duration
	var ratios, worst []float64
	failed := 0
	for i := range s.Splits {
		d, err := s.watchSplit(ctx, cs, dipName(i), keys)
		if err != nil {
			return err
		}
		p99in, p99out := quantile(d.inside, 0.99), quantile(d.outside, 0.99)
		s.Say("split %d in %s: p99 %s in the window, %s outside; slowest %s and %s; %d failed", i+1, d.took.Round(100*time.Microsecond),
			p99in.Round(10*time.Microsecond), p99out.Round(10*time.Microsecond), quantile(d.inside, 1).Round(10*time.Microsecond),
			quantile(d.outside, 1).Round(10*time.Microsecond), d.failed)
		inside, outside, failed = append(inside, d.inside...), append(outside, d.outside...), failed+d.failed
		ratios, worst = append(ratios, float64(p99in)/float64(p99out)), append(worst, ms(quantile(d.inside, 1)))
	}
	in99, out99 := quantile(inside, 0.99), quantile(outside, 0.99)
	_, err = fmt.Fprintf(s.Out, "split, %d puts/s on the range that is split, %d splits: p99 %.2f ms within %s of one and %.2f ms without, ratio %.2f; "+
		"ratio of each %s; slowest put of each, ms: %s; failed %d\n",
		dipRate, s.Splits, ms(in99), windowFor, ms(out99), float64(in99)/float64(out99), spread(ratios), spread(worst), failed)
	return err
}

func dipName(i int) string { return fmt.Sprintf("dip-%d", i) }

// split is what was seen around one.
type split struct {
	took            time.Duration
	inside, outside []time.Duration
	failed          int
}

func (s *Suite) watchSplit(ctx context.Context, cs conns, keyspace string, keys int) (d split, err error) {
	l := &loader{seed: s.Seed, valueBytes: s.ValueBytes}
	stop := make(chan struct{})
	got := make(chan []sample)
	seed := s.random.Uint64()
	go func() {
		got <- openLoop(in(ctx, keyspace), dipRate, stop, func(ctx context.Context, n int) error {
			k := rand.New(rand.NewPCG(seed, uint64(n))).IntN(keys)
			_, err := cs.at(n).Put(ctx, load.Key(k), string(l.value(k)))
			return err
		})
	}()
	const warm = time.Second
	began := time.Now()
	err = wait(ctx, warm+aroundFor)
	cut := time.Now()
	if err == nil {
		_, err = cs.admin().SplitRange(ctx, &clusterpb.SplitRangeRequest{Keyspace: keyspace, Key: []byte(load.Key(keys / 2))})
		d.took = time.Since(cut)
	}
	if err == nil {
		err = wait(ctx, windowFor+aroundFor-d.took)
	}
	close(stop)
	for _, o := range <-got {
		switch {
		case o.err != nil:
			d.failed++
		case o.due.Before(began.Add(warm)):
		case o.due.Before(cut) || o.due.After(cut.Add(windowFor)):
			d.outside = append(d.outside, o.took)
		default:
			d.inside = append(d.inside, o.took)
		}
	}
	return d, err
}
