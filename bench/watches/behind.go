package watches

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A watcher that is far behind: it begins at the first of many revisions, of 10,000 keys, each written again and again. etcd reads all that
// is left of them for each thousand that it sends, every 100 ms at most: its time grows with their square. So a watcher is given up after
// behindMost, what came until then counts, and there are no further rounds after one that took longer than behindAgain.
const (
	behindPrefix  = "behind/"
	behindKeys    = 10_000
	behindClients = 256
	behindMost    = 8 * time.Minute
	behindAgain   = 2 * time.Minute
)

func (s *Suite) behind(ctx context.Context, sides *[2]side) error {
	w := s.table()
	fmt.Fprintf(w, "%d revisions behind\tevents/s\tgot\tfirst event, ms\tthe servers' largest memory grows by, MB\tratio of rates\n", s.Revisions)
	var rates [2][]float64
	var rows [2]caught
	for i := range sides {
		if err := s.fill(ctx, &sides[i]); err != nil {
			return fmt.Errorf("%s: %w", sides[i].name, err)
		}
	}
	for round := range s.Rounds {
		began := time.Now()
		err := pair(round, sides, func(i int, x *side) error {
			c, err := s.catchUp(x)
			rates[i] = append(rates[i], c.rate)
			rows[i] = caught{first: c.first, got: c.got, grown: max(rows[i].grown, c.grown)}
			s.Say("%s: %.0f events/s, %.0f %% of them, the first after %.0f ms", x.name, c.rate, 100*c.got, c.first)
			return err
		})
		if err != nil {
			return err
		}
		if time.Since(began) > behindAgain {
			break
		}
	}
	for i := range sides {
		ratio := ""
		if i == 0 {
			ratio = figure(ratios(rates[0], rates[1]), 2)
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f %%\t%.0f\t%.0f\t%s\n", sides[i].name, figure(rates[i], 0), 100*rows[i].got, rows[i].first, rows[i].grown, ratio)
	}
	return w.Flush()
}

func (s *Suite) fill(ctx context.Context, x *side) error {
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for c := range behindClients {
		group.Go(func() error {
			for n := c; n < s.Revisions; n += behindClients {
				if _, err := x.client.Put(ctx, fmt.Sprintf("%s%06d", behindPrefix, n%behindKeys), stamp(s.Value)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	s.Say("%s: %d revisions written in %s", x.name, s.Revisions, time.Since(began).Round(time.Second))
	return err
}

// caught is how a watcher came up.
type caught struct {
	rate  float64 // events/s
	got   float64 // of all
	first float64 // ms until the first event
	grown float64 // MB
}

func (s *Suite) catchUp(x *side) (c caught, err error) {
	before, err := x.cluster.Usage()
	if err != nil {
		return c, err
	}
	st, err := watch(x.cluster.Endpoints[1])
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	began := time.Now()
	end := []byte(behindPrefix)
	end[len(end)-1]++
	if err := st.create(1, &pb.WatchCreateRequest{Key: []byte(behindPrefix), RangeEnd: end, StartRevision: 1}); err != nil {
		return c, err
	}
	st.expect(behindMost)
	var r response
	n, last := 0, int64(0)
	for ; n < s.Revisions; n += r.events {
		if err := st.next(&r); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} else if err != nil {
			return c, err
		}
		if r.canceled {
			return c, fmt.Errorf("the watch was cancelled: %s", r.reason)
		}
		if n == 0 && r.events > 0 {
			c.first = ms(time.Since(began))
		}
		if r.events > 0 && r.revision <= last {
			return c, fmt.Errorf("revision %d came after %d", r.revision, last)
		}
		last = max(last, r.revision)
	}
	c.rate, c.got = float64(n)/time.Since(began).Seconds(), float64(n)/float64(s.Revisions)
	after, err := x.cluster.Usage()
	const mB = 1e6
	c.grown = float64(after.Peak-min(before.RSS, after.Peak)) / mB
	return c, err
}
