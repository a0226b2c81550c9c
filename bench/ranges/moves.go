package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/bench/load"
	"github.com/cairndb/cairn/bench/peer"
)

// What replicas that move cost those who write meanwhile. Three nodes hold a keyspace of large ranges; two more join, and the
// cluster balances itself over five at the rate that its policy allows. All the time puts begin on time in another keyspace, at half
// of what the three bore. Normal is what puts take on the same five nodes once nothing moves any more.
const (
	moveRangeBytes = 64 << 20 // base.SplitBytes: as large as ranges become
	moveValueBytes = 4 << 10
	moveFrontKeys  = 20_000
	moveFront      = 8 // ranges that are written to
	movesAtMost    = 3 * time.Minute
	moveCalm       = 15 * time.Second // without a snapshot that came in, which takes seconds itself: nothing moves any more
)

func (s *Suite) moves(ctx context.Context) (err error) {
	c, err := s.cairn(ctx, "moves", "--split-bytes", never)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	cs, err := dial(ctx, c.Endpoints)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cs.close()) }()
	if err := cs.sharded(ctx, s, "front", moveFront, moveFrontKeys); err != nil {
		return err
	}
	if err := s.fillLarge(ctx, cs); err != nil {
		return err
	}
	rate, err := s.halfLoad(ctx, cs)
	if err != nil {
		return err
	}
	s.Say("%d ranges of %d MiB; %d puts a second are half of what three nodes bear", s.MoveRanges, moveRangeBytes>>20, rate)

	stop, got := make(chan struct{}), make(chan []sample, 1)
	l := &loader{seed: s.Seed, valueBytes: s.ValueBytes}
	go func() {
		got <- openLoop(in(ctx, "front"), rate, stop, func(ctx context.Context, n int) error {
			k := rand.New(rand.NewPCG(s.Seed, uint64(n))).IntN(moveFrontKeys)
			_, err := cs.at(n).Put(ctx, load.Key(k), string(l.value(k)))
			return err
		})
	}()
	var ended sync.Once
	end := func() { ended.Do(func() { close(stop) }) }
	defer end()
	moving, err := s.grow(ctx, c)
	if err == nil {
		err = wait(ctx, max(moving.length(), 10*time.Second)) // normal, for as long
	}
	end()
	samples := <-got
	if err != nil {
		return err
	}
	return s.movesTable(samples, moving, rate)
}

// span is when replicas were on the move, and how many came in.
type span struct {
	from, to time.Time
	replicas uint64
}

func (m span) length() time.Duration { return m.to.Sub(m.from) }

// fillLarge makes the ranges that are to move.
func (s *Suite) fillLarge(ctx context.Context, cs conns) error {
	old := s.ValueBytes
	s.ValueBytes = moveValueBytes
	defer func() { s.ValueBytes = old }()
	return cs.sharded(ctx, s, "large", s.MoveRanges, s.MoveRanges*moveRangeBytes/moveValueBytes)
}

// halfLoad is half of the puts a second that the cluster bears now.
func (s *Suite) halfLoad(ctx context.Context, cs conns) (int, error) {
	var report closed.Report
	l := &loader{seed: s.Seed, valueBytes: s.ValueBytes}
	config := closed.Config{Clients: s.Clients, Warmup: s.Block / 5, Length: s.Block, Timeout: 10 * time.Second, Seed: s.Seed}
	err := closed.Run(in(ctx, "front"), config, func(ctx context.Context, client, n int, r *rand.Rand) error {
		k := r.IntN(moveFrontKeys)
		_, err := cs.at(client+n).Put(ctx, load.Key(k), string(l.value(k)))
		return err
	}, func(e closed.Event) error {
		if e.Report != nil {
			report = *e.Report
		}
		return nil
	})
	return int(report.Rate() / 2), err
}

// installed is how many snapshots the nodes have taken in. One that does not answer yet, for it has just been started, has none.
func installed(ctx context.Context, added conns) (n uint64) {
	for _, c := range added {
		resp, err := clusterpb.NewClusterClient(c.ActiveConnection()).NodeStatus(ctx, &clusterpb.NodeStatusRequest{})
		if err == nil {
			n += resp.Store.GetSnapshotsInstalled()
		}
	}
	return n
}

// grow adds two nodes, and returns when no replica has come to them for a while.
func (s *Suite) grow(ctx context.Context, c *peer.Cluster) (m span, err error) {
	var endpoints []string
	for range 2 {
		e, err := c.Add(ctx)
		if err != nil {
			return m, err
		}
		endpoints = append(endpoints, e)
	}
	added, err := dial(ctx, endpoints)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, added.close()) }()
	added = added[:len(endpoints)] // one connection to each is enough
	began := time.Now()
	for time.Since(began) < movesAtMost {
		if err := c.Check(); err != nil {
			return m, err
		}
		if n := installed(ctx, added); n > m.replicas {
			if m.replicas == 0 {
				m.from = time.Now()
			}
			m.replicas, m.to = n, time.Now()
		}
		if m.replicas > 0 && time.Since(m.to) > moveCalm {
			break
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return m, err
		}
	}
	if m.replicas == 0 {
		return m, fmt.Errorf("no replica came to the new nodes within %s", movesAtMost)
	}
	return m, nil
}

func (s *Suite) movesTable(samples []sample, m span, rate int) error {
	var moving, normal []time.Duration
	failed := 0
	for _, o := range samples {
		switch {
		case o.err != nil:
			failed++
		case o.due.Before(m.from):
		case o.due.Before(m.to):
			moving = append(moving, o.took)
		case o.due.After(m.to.Add(moveCalm)):
			normal = append(normal, o.took)
		}
	}
	p99, usual := quantile(moving, 0.99), quantile(normal, 0.99)
	_, err := fmt.Fprintf(s.Out, "moves, %d puts/s on five nodes while %d replicas come to two of them in %.1f s: p50 %.2f ms, p99 %.2f ms, slowest %.1f ms; "+
		"when nothing moves p50 %.2f ms, p99 %.2f ms, slowest %.1f ms; ratio of p99 %.2f; failed %d of %d\n",
		rate, m.replicas, m.length().Seconds(), ms(quantile(moving, 0.5)), ms(p99), ms(quantile(moving, 1)),
		ms(quantile(normal, 0.5)), ms(usual), ms(quantile(normal, 1)), float64(p99)/float64(usual), failed, len(samples))
	return err
}
