package watches

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A watcher that is far behind: it begins at the first of many revisions, of 10,000 keys, each written again and again.
const (
	behindPrefix  = "behind/"
	behindKeys    = 10_000
	behindClients = 256
)

func (s *Suite) behind(ctx context.Context, sides *[2]side) error {
	w := s.table()
	fmt.Fprintf(w, "%d revisions behind\tevents/s\tfirst event, ms\tthe servers' largest memory grows by, MB\tratio of rates\n", s.Revisions)
	var rates [2][]float64
	var rows [2]struct{ first, grown float64 }
	for i := range sides {
		if err := s.fill(ctx, &sides[i]); err != nil {
			return fmt.Errorf("%s: %w", sides[i].name, err)
		}
	}
	err := s.pairs(sides, func(i int, x *side) error {
		rate, first, grown, err := s.catchUp(x)
		rates[i] = append(rates[i], rate)
		rows[i].first, rows[i].grown = first, max(rows[i].grown, grown)
		s.Say("%s: %.0f events/s, the first after %.0f ms", x.name, rate, first)
		return err
	})
	if err != nil {
		return err
	}
	for i := range sides {
		ratio := ""
		if i == 0 {
			ratio = figure(ratios(rates[0], rates[1]), 2)
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%s\n", sides[i].name, figure(rates[i], 0), rows[i].first, rows[i].grown, ratio)
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

func (s *Suite) catchUp(x *side) (rate, first, grown float64, err error) {
	before, err := x.cluster.Usage()
	if err != nil {
		return 0, 0, 0, err
	}
	st, err := watch(x.cluster.Endpoints[1])
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	began := time.Now()
	end := []byte(behindPrefix)
	end[len(end)-1]++
	if err := st.create(1, &pb.WatchCreateRequest{Key: []byte(behindPrefix), RangeEnd: end, StartRevision: 1}); err != nil {
		return 0, 0, 0, err
	}
	const most = 5 * time.Minute // of a million
	st.expect(most)
	var r response
	last := int64(0)
	for n := 0; n < s.Revisions; n += r.events {
		if err := st.next(&r); err != nil {
			return 0, 0, 0, err
		}
		if r.canceled {
			return 0, 0, 0, fmt.Errorf("the watch was cancelled: %s", r.reason)
		}
		if n == 0 && r.events > 0 {
			first = ms(time.Since(began))
		}
		if r.events > 0 && r.revision <= last {
			return 0, 0, 0, fmt.Errorf("revision %d came after %d", r.revision, last)
		}
		last = max(last, r.revision)
	}
	took := time.Since(began)
	after, err := x.cluster.Usage()
	const mB = 1e6
	return float64(s.Revisions) / took.Seconds(), first, float64(after.Peak-min(before.RSS, after.Peak)) / mB, err
}
