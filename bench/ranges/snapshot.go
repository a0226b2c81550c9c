package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"text/tabwriter"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cairndb/cairn/bench/closed"
	"github.com/cairndb/cairn/bench/load"
)

// One Range of all keys of a keyspace, which lie in 1, 2 or 10 ranges: the same keys, so that what differs is only that several
// ranges make the snapshot. It is read while nothing is written, and under puts on the same keys.
const (
	snapshotKeys    = 1000
	snapshotClients = 4
	snapshotPuts    = 200 // a second, in the read span
)

// snapshotCell is one row: a number of ranges, idle or under writes.
type snapshotCell struct {
	ranges int
	writes bool
}

func (s *Suite) snapshots(ctx context.Context) (err error) {
	c, err := s.cairn(ctx, "snapshot", "--split-bytes", never)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	cs, err := dial(ctx, c.Endpoints)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cs.close()) }()
	var cells []snapshotCell
	for _, n := range []int{1, 2, 10} {
		if err := cs.sharded(ctx, s, rangesName(n), n, snapshotKeys); err != nil {
			return err
		}
		cells = append(cells, snapshotCell{n, false}, snapshotCell{n, true})
	}
	s.random.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
	reports := map[snapshotCell][]closed.Report{}
	for range s.Rounds {
		for _, cell := range cells {
			r, err := s.snapshotBlock(ctx, cs, cell)
			if err != nil {
				return fmt.Errorf("%d ranges, under writes %v: %w", cell.ranges, cell.writes, err)
			}
			s.Say("%d ranges, under writes %v: %.0f/s, p99 %s, %d failed %s", cell.ranges, cell.writes, r.Rate(), r.P99.Round(10*time.Microsecond), r.Errors, r.FirstError)
			reports[cell] = append(reports[cell], r)
		}
		slices.Reverse(cells)
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "snapshot of %d keys, %d clients\t/s\tp50\tp99\trate to 1 range\tfailed\n", snapshotKeys, snapshotClients)
	for _, writes := range []bool{false, true} {
		for _, n := range []int{1, 2, 10} {
			s.snapshotRow(w, snapshotCell{n, writes}, reports)
		}
	}
	return w.Flush()
}

func (s *Suite) snapshotRow(w *tabwriter.Writer, cell snapshotCell, reports map[snapshotCell][]closed.Report) {
	var rate, p50, p99, rates []float64
	failed, done := 0, 0
	for i, r := range reports[cell] {
		rate, p50, p99 = append(rate, r.Rate()), append(p50, ms(r.P50)), append(p99, ms(r.P99))
		rates = append(rates, r.Rate()/reports[snapshotCell{1, cell.writes}][i].Rate())
		failed, done = failed+r.Errors, done+r.Ops
	}
	name := "idle"
	if cell.writes {
		name = fmt.Sprintf("%d puts/s", snapshotPuts)
	}
	fmt.Fprintf(w, "%d ranges, %s\t%.0f\t%.2f ms\t%.2f ms\t%s\t%d of %d\n", cell.ranges, name, median(rate), median(p50), median(p99), spread(rates), failed, failed+done)
}

// snapshotBlock reads for one block. A read that fails is counted, and pauses its client.
func (s *Suite) snapshotBlock(ctx context.Context, cs conns, cell snapshotCell) (report closed.Report, err error) {
	ctx = in(ctx, rangesName(cell.ranges))
	l := &loader{seed: s.Seed, valueBytes: s.ValueBytes}
	stop, ended := make(chan struct{}), make(chan []sample, 1)
	ended <- nil
	if cell.writes {
		<-ended
		go func() {
			ended <- openLoop(ctx, snapshotPuts, stop, func(ctx context.Context, n int) error {
				k := rand.IntN(snapshotKeys)
				_, err := cs.at(n).Put(ctx, load.Key(k), string(l.value(k)))
				return err
			})
		}()
	}
	config := closed.Config{Clients: snapshotClients, Warmup: s.Block / 5, Length: s.Block, Timeout: 10 * time.Second, Seed: s.Seed}
	err = closed.Run(ctx, config, func(ctx context.Context, client, n int, _ *rand.Rand) error {
		resp, err := cs.at(client+n).Get(ctx, load.Key(0), clientv3.WithRange(load.Key(snapshotKeys)))
		if err == nil && len(resp.Kvs) != snapshotKeys {
			err = fmt.Errorf("%d keys and not %d", len(resp.Kvs), snapshotKeys)
		}
		return err
	}, func(e closed.Event) error {
		if e.Report != nil {
			report = *e.Report
		}
		return nil
	})
	if err != nil && ctx.Err() == nil { // no read succeeded in a whole block: that is a figure, and not the end of the run
		report, err = closed.Report{Seconds: s.Block.Seconds(), Errors: 1, FirstError: err.Error()}, nil
	}
	close(stop)
	for _, o := range <-ended {
		if o.err != nil {
			return report, fmt.Errorf("a put: %w", o.err)
		}
	}
	return report, err
}
