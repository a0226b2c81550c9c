package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/bench/load"
)

// conns are connections of etcd's public client to every node of a cluster.
type conns []*clientv3.Client

// each is how many connections go to each node.
const each = 2

func dial(ctx context.Context, endpoints []string) (cs conns, err error) {
	for i := range each * len(endpoints) {
		c, err := clientv3.New(clientv3.Config{Endpoints: endpoints[i%len(endpoints) : i%len(endpoints)+1], Context: ctx, Logger: zap.NewNop()})
		if err != nil {
			return nil, errors.Join(err, cs.close())
		}
		cs = append(cs, c)
	}
	return cs, nil
}

func (cs conns) close() error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// at is the i-th connection, in turn.
func (cs conns) at(i int) *clientv3.Client { return cs[i%len(cs)] }

// admin is Cairn's own service.
func (cs conns) admin() clusterpb.ClusterClient {
	return clusterpb.NewClusterClient(cs[0].ActiveConnection())
}

// in names the keyspace of all calls under ctx; none for etcd.
func in(ctx context.Context, keyspace string) context.Context {
	if keyspace == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, load.KeyspaceHeader, keyspace)
}

// splitAt cuts a keyspace into n ranges at keys that divide the keys 0 … keys-1 evenly: first in halves, so that several are cut at
// once.
func (cs conns) splitAt(ctx context.Context, keyspace string, n, keys int) error {
	const atOnce = 4
	group, ctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, atOnce)
	var cut func(lo, hi int) error // the ranges lo … hi-1 are one
	cut = func(lo, hi int) error {
		if hi-lo < 2 {
			return nil
		}
		mid := (lo + hi) / 2
		slots <- struct{}{}
		_, err := cs.admin().SplitRange(ctx, &clusterpb.SplitRangeRequest{Keyspace: keyspace, Key: []byte(load.Key(mid * keys / n))})
		<-slots
		if err != nil {
			return fmt.Errorf("splitting %s at key %d: %w", keyspace, mid*keys/n, err)
		}
		group.Go(func() error { return cut(lo, mid) })
		group.Go(func() error { return cut(mid, hi) })
		return nil
	}
	group.Go(func() error { return cut(0, n) })
	return group.Wait()
}

// sharded makes a sharded keyspace with all keys in it, of n ranges.
func (cs conns) sharded(ctx context.Context, s *Suite, keyspace string, n, keys int) error {
	if _, err := cs.admin().CreateKeyspace(ctx, &clusterpb.CreateKeyspaceRequest{Name: keyspace}); err != nil {
		return err
	}
	l := &loader{conns: cs, keyspace: keyspace, valueBytes: s.ValueBytes, seed: s.Seed}
	if err := l.store(ctx, keys); err != nil {
		return err
	}
	return cs.splitAt(ctx, keyspace, n, keys)
}

// loader stores keys by transactions of as many puts as etcd allows by default. A key's value follows from its number, so that
// whoever reads it can tell whether it is the right one.
type loader struct {
	conns      conns
	keyspace   string
	valueBytes int
	seed       uint64

	mu    sync.Mutex
	tally tally // of what was acknowledged
	tries tally // of what was asked for
}

// tally stands for a set of pairs: how many they are, and a sum that any order of them comes to.
type tally struct {
	count int64
	sum   uint64
}

func (t *tally) add(key string, value []byte) {
	t.count++
	t.sum += uint64(crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, value))
}

func (t tally) plus(o tally) tally { return tally{t.count + o.count, t.sum + o.sum} }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const loadWorkers = 24

// store writes the keys 0 … n-1, in batches of neighbours, the batches in an order that is spread over all keys.
func (l *loader) store(ctx context.Context, n int) error {
	batches := (n + load.PreloadBatch - 1) / load.PreloadBatch
	step := coprime(batches)
	next := make(chan int)
	group, ctx := errgroup.WithContext(in(ctx, l.keyspace))
	group.Go(func() error {
		defer close(next)
		for i := range batches {
			select {
			case next <- i * step % batches:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for w := range loadWorkers {
		group.Go(func() error {
			for b := range next {
				if err := l.put(ctx, w, b*load.PreloadBatch, min((b+1)*load.PreloadBatch, n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// coprime is a step by which all of n numbers are met once, neighbours far from each other: near the golden section of n.
func coprime(n int) int {
	gcd := func(a, b int) int {
		for b != 0 {
			a, b = b, a%b
		}
		return a
	}
	step := max(1, int(float64(n)*0.618))
	for gcd(step, n) != 1 {
		step++
	}
	return step
}

// putTries bounds how often one batch is tried again: while a range has no leader it is refused.
const putTries = 100

// put writes the keys [from, to) in one transaction; where they lie in several ranges, in one for each half.
func (l *loader) put(ctx context.Context, worker, from, to int) error {
	var t tally
	puts := make([]clientv3.Op, 0, to-from)
	for n := from; n < to; n++ {
		key, value := load.Key(n), l.value(n)
		t.add(key, value)
		puts = append(puts, clientv3.OpPut(key, string(value)))
	}
	l.mu.Lock()
	l.tries = l.tries.plus(t)
	l.mu.Unlock()
	err := retried(ctx, func(try int) error {
		_, err := l.conns.at(worker + try).Txn(ctx).Then(puts...).Commit()
		return err
	})
	if severalRanges(err) && to-from > 1 {
		l.mu.Lock()
		l.tries = tally{l.tries.count - t.count, l.tries.sum - t.sum}
		l.mu.Unlock()
		mid := (from + to) / 2
		if err := l.put(ctx, worker, from, mid); err != nil {
			return err
		}
		return l.put(ctx, worker, mid, to)
	}
	if err != nil {
		return fmt.Errorf("storing keys %d to %d: %w", from, to, err)
	}
	l.mu.Lock()
	l.tally = l.tally.plus(t)
	l.mu.Unlock()
	return nil
}

// retried does what may be done twice until it succeeds, or its error says that it never will.
func retried(ctx context.Context, do func(try int) error) error {
	for try := 0; ; try++ {
		err := do(try)
		code := status.Code(err)
		if err == nil || severalRanges(err) || try == putTries || ctx.Err() != nil ||
			code != codes.Unavailable && code != codes.Unknown && code != codes.ResourceExhausted && code != codes.DeadlineExceeded {
			return err
		}
		if err := wait(ctx, retryPause); err != nil {
			return err
		}
	}
}

// severalRanges says whether a transaction was refused because its keys lie in several ranges: another half may lie in one.
func severalRanges(err error) bool { return status.Code(err) == codes.FailedPrecondition }

// value is a key's.
func (l *loader) value(n int) []byte {
	random := rand.NewPCG(l.seed, uint64(n))
	value := make([]byte, 0, l.valueBytes+8)
	for len(value) < l.valueBytes {
		value = binary.LittleEndian.AppendUint64(value, random.Uint64())
	}
	return value[:l.valueBytes]
}

// check says what is wrong with a pair.
func (l *loader) check(key, value []byte) error {
	const prefix = len("key/")
	n, err := strconv.Atoi(string(key[min(prefix, len(key)):]))
	if err != nil || load.Key(n) != string(key) {
		return fmt.Errorf("%q was never written", key)
	}
	if string(value) != string(l.value(n)) {
		return fmt.Errorf("%q has the value of another key, or of none", key)
	}
	return nil
}

// retryPause lets what a request met end: an election, a split.
const retryPause = 20 * time.Millisecond
