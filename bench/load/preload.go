package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/cairndb/cairn/bench/closed"
)

// preload writes every key once. Unlike the other operations it fails with the first error: what is measured after
// it rests on every key being there.
func (r *run) preload(ctx context.Context, emit func(closed.Event) error) error {
	if err := emit(closed.Event{Event: closed.Begin}); err != nil {
		return err
	}
	began := time.Now()
	var next atomic.Int64 // the first key that nobody has taken
	group, groupCtx := errgroup.WithContext(ctx)
	for i := range r.Clients {
		group.Go(func() error {
			random := rand.New(rand.NewPCG(r.Seed, uint64(i)))
			for {
				first := int(next.Add(PreloadBatch)) - PreloadBatch
				if first >= r.Keys {
					return nil
				}
				if err := r.putAll(groupCtx, i, first, min(first+PreloadBatch, r.Keys), random); err != nil {
					return fmt.Errorf("storing keys from %d on: %w", first, err)
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	report := closed.Report{Ops: r.Keys, Seconds: time.Since(began).Seconds()}
	if err := emit(closed.Event{Event: closed.End}); err != nil {
		return err
	}
	return emit(closed.Event{Event: closed.Done, Report: &report})
}

// putAll writes keys [from, to) in one transaction.
func (r *run) putAll(ctx context.Context, client, from, to int, random *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	puts := make([]clientv3.Op, 0, to-from)
	for n := from; n < to; n++ {
		puts = append(puts, clientv3.OpPut(Key(n), r.value(random)))
	}
	resp, err := r.conns[client%len(r.conns)].Txn(ctx).Then(puts...).Commit()
	if err != nil {
		return err
	}
	if len(resp.Responses) != len(puts) {
		return fmt.Errorf("%d puts were answered with %d responses", len(puts), len(resp.Responses))
	}
	return nil
}
