package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/bench/load"
	"github.com/cairndb/cairn/bench/peer"
)

// The life of a large keyspace: it is filled through the public client and splits by itself, is read and scanned all the while, and
// is emptied again, upon which its ranges are to merge. Nothing is told to it but its keys. A timeline says what became of it.
const (
	bigKeyspace = "big"
	bigSettle   = 20 * time.Second // after the load: the last ranges that have grown too large are cut
	bigMerge    = 10 * time.Minute // after the deletions; what has not merged by then, it says
	bigTick     = 5 * time.Second
)

// bigRun is one run.
type bigRun struct {
	s  *Suite
	c  *peer.Cluster
	cs conns
	l  *loader

	reads, scans atomic.Int64 // that were checked
}

func (s *Suite) big(ctx context.Context) (err error) {
	c, err := s.cairn(ctx, "big")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	cs, err := dial(ctx, c.Endpoints)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cs.close()) }()
	if _, err := cs.admin().CreateKeyspace(ctx, &clusterpb.CreateKeyspaceRequest{Name: bigKeyspace}); err != nil {
		return err
	}
	b := &bigRun{s: s, c: c, cs: cs, l: &loader{conns: cs, keyspace: bigKeyspace, valueBytes: s.ValueBytes, seed: s.Seed}}
	for _, step := range []func(context.Context) error{b.fill, b.settle, b.empty, b.merge} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// fill stores all keys while a verifier reads and scans them.
func (b *bigRun) fill(ctx context.Context) error {
	during, stop := context.WithCancel(ctx)
	defer stop()
	verified := make(chan error, 2)
	go func() { verified <- b.readWhile(during) }()
	go func() { verified <- b.scanWhile(during) }()
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- b.l.store(ctx, b.s.ScanKeys) }()
	tick := time.NewTicker(bigTick)
	defer tick.Stop()
	for stored := false; !stored; {
		select {
		case err := <-verified:
			return fmt.Errorf("while it is filled: %w", err)
		case err := <-done:
			if err != nil {
				return err
			}
			stored = true
		case <-tick.C:
			if err := b.line(ctx, "filling"); err != nil {
				return err
			}
		}
	}
	took := time.Since(began)
	stop()
	if err := errors.Join(<-verified, <-verified); err != nil {
		return fmt.Errorf("while it is filled: %w", err)
	}
	_, err := fmt.Fprintf(b.s.Out, "big: %d keys stored in %s, %.0f/s; meanwhile %d reads and %d whole scans were right\n", b.s.ScanKeys,
		took.Round(time.Millisecond), float64(b.s.ScanKeys)/took.Seconds(), b.reads.Load(), b.scans.Load())
	return err
}

// settle waits until the ranges have come to rest, looks at how evenly they lie, and scans once more.
func (b *bigRun) settle(ctx context.Context) error {
	for end := time.Now().Add(bigSettle); time.Now().Before(end); {
		if err := wait(ctx, bigTick); err != nil {
			return err
		}
		if err := b.line(ctx, "settling"); err != nil {
			return err
		}
	}
	v, took, err := b.scanOnce(ctx)
	if err != nil {
		return err
	}
	if v.found != b.l.tally {
		return fmt.Errorf("%d keys with sum %x were found, and %d with sum %x were stored", v.found.count, v.found.sum, b.l.tally.count, b.l.tally.sum)
	}
	if _, err = fmt.Fprintf(b.s.Out, "big: a scan of all %d keys in %s, %.0f/s, count and sum as stored (%x)\n", v.found.count,
		took.Round(time.Millisecond), float64(v.found.count)/took.Seconds(), v.found.sum); err != nil {
		return err
	}
	return b.balance(ctx)
}

// balance says how evenly keys and leaders lie over the ranges and nodes. Keys are all of one size: they stand for the bytes.
func (b *bigRun) balance(ctx context.Context) error {
	resp, err := b.cs.admin().ListRanges(ctx, &clusterpb.ListRangesRequest{Keyspace: bigKeyspace})
	if err != nil {
		return err
	}
	var counts []int64
	var sum int64
	for _, r := range resp.Ranges {
		key, end := string(r.Descriptor_.Start), string(r.Descriptor_.End)
		if key == "" {
			key = "\x00"
		}
		if end == "" {
			end = "\x00"
		}
		got, err := b.cs.at(0).Get(in(ctx, bigKeyspace), key, clientv3.WithRange(end), clientv3.WithCountOnly())
		if err != nil {
			return err
		}
		counts, sum = append(counts, got.Count), sum+got.Count
	}
	if sum != b.l.tally.count {
		return fmt.Errorf("the ranges' counts add up to %d, and %d keys were stored", sum, b.l.tally.count)
	}
	st, err := b.state(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(b.s.Out, "big: %d ranges of %d to %d keys, largest to smallest %.2f; the nodes lead %v of them\n", len(counts),
		slices.Min(counts), slices.Max(counts), float64(slices.Max(counts))/float64(max(1, slices.Min(counts))), st.leaders)
	return err
}

// empty deletes all keys, a range at a time.
func (b *bigRun) empty(ctx context.Context) error {
	began, gone := time.Now(), int64(0)
	for key := "\x00"; key != ""; {
		resp, err := b.cs.admin().ListRanges(ctx, &clusterpb.ListRangesRequest{Keyspace: bigKeyspace})
		if err != nil {
			return err
		}
		end := "\x00" // to the end of the keyspace
		for _, r := range resp.Ranges {
			d := r.Descriptor_
			if string(d.Start) <= key && (len(d.End) == 0 || key < string(d.End)) && len(d.End) > 0 {
				end = string(d.End)
			}
		}
		n, err := b.delete(ctx, key, end)
		if err != nil {
			return fmt.Errorf("deleting from %q on: %w", key, err)
		}
		if gone += n; end == "\x00" {
			break
		}
		key = end
	}
	left, err := b.cs.at(0).Get(in(ctx, bigKeyspace), "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	if gone != b.l.tally.count || left.Count != 0 {
		return fmt.Errorf("%d keys were deleted and %d are left of %d", gone, left.Count, b.l.tally.count)
	}
	_, err = fmt.Fprintf(b.s.Out, "big: %d keys deleted in %s\n", gone, time.Since(began).Round(time.Millisecond))
	return err
}

// delete deletes a span within one range by as many requests as that takes: one for each deleteKeys keys, for a command's outcome is
// one batch.
func (b *bigRun) delete(ctx context.Context, from, to string) (gone int64, err error) {
	const deleteKeys = 10_000
	ctx = in(ctx, bigKeyspace)
	for {
		var end string
		err := retried(ctx, func(try int) error {
			page, err := b.cs.at(try).Get(ctx, from, clientv3.WithRange(to), clientv3.WithLimit(deleteKeys), clientv3.WithKeysOnly())
			if err != nil {
				return err
			}
			if end = to; page.More {
				end = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
			}
			return nil
		})
		if err != nil {
			return gone, err
		}
		err = retried(ctx, func(try int) error {
			resp, err := b.cs.at(try).Delete(ctx, from, clientv3.WithRange(end))
			if err == nil {
				gone += resp.Deleted
			}
			return err
		})
		if err != nil || end == to {
			return gone, err
		}
		from = end
	}
}

// merge has the deletions compacted, for what is deleted counts until then, and watches how many ranges are left.
func (b *bigRun) merge(ctx context.Context) error {
	err := retried(in(ctx, bigKeyspace), func(try int) error {
		ctx := in(ctx, bigKeyspace)
		last, err := b.cs.at(try).Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
		if err == nil {
			_, err = b.cs.at(try).Compact(ctx, last.Header.Revision)
		}
		return err
	})
	if err != nil {
		return err
	}
	first, err := rangesOf(ctx, b.cs, bigKeyspace)
	if err != nil {
		return err
	}
	began := time.Now()
	for n := first; time.Since(began) < bigMerge && n > 1; {
		if err := wait(ctx, bigTick); err != nil {
			return err
		}
		if err := b.line(ctx, "emptied"); err != nil {
			return err
		}
		if n, err = rangesOf(ctx, b.cs, bigKeyspace); err != nil {
			return err
		}
	}
	left, err := rangesOf(ctx, b.cs, bigKeyspace)
	if err != nil {
		return err
	}
	note := ""
	if left == first && first > 1 {
		note = ": nothing merges; this build may not merge ranges by itself"
	}
	_, err = fmt.Fprintf(b.s.Out, "big: %d ranges were left of %d, %s after the deletions%s\n", left, first, time.Since(began).Round(time.Second), note)
	return err
}

// state is what the cluster says of the keyspace.
type state struct {
	ranges  int
	leaders [peer.Nodes]int
	disk    uint64
}

func (b *bigRun) state(ctx context.Context) (st state, err error) {
	if st.ranges, err = rangesOf(ctx, b.cs, bigKeyspace); err != nil {
		return st, err
	}
	for i := range st.leaders {
		resp, err := clusterpb.NewClusterClient(b.cs.at(i).ActiveConnection()).NodeStatus(ctx, &clusterpb.NodeStatusRequest{Ranges: true})
		if err != nil {
			return st, err
		}
		for _, r := range resp.Replicas {
			if r.Leader && len(resp.Replicas) > 0 && r.Descriptor_.KeyspaceId >= firstFreeKeyspace {
				st.leaders[i]++
			}
		}
		st.disk += resp.GetStore().GetDiskBytes()
	}
	return st, nil
}

// firstFreeKeyspace is the lowest id of a keyspace that somebody made: here, the one.
const firstFreeKeyspace = 100 // base.FirstFreeID

// line tells how far it is.
func (b *bigRun) line(ctx context.Context, doing string) error {
	st, err := b.state(ctx)
	if err != nil {
		return err
	}
	u, err := b.c.Usage()
	if err != nil {
		return err
	}
	b.l.mu.Lock()
	stored := b.l.tally.count
	b.l.mu.Unlock()
	b.s.Say("%s: %d keys, %d ranges, led by node %v, %.1f GB on three disks, %.0f MB resident; %d reads, %d scans checked", doing, stored,
		st.ranges, st.leaders, float64(st.disk)/1e9, float64(u.Anon)/1e6, b.reads.Load(), b.scans.Load())
	return b.c.Check()
}

// readWhile reads random keys until ctx ends: a key is not there yet, or has its value; once seen, it stays.
func (b *bigRun) readWhile(ctx context.Context) error {
	const pause = 2 * time.Millisecond // some hundred reads a second: the load is the writes
	random := rand.New(rand.NewPCG(b.s.Seed, 1))
	seen := map[int]bool{}
	for i := 0; ctx.Err() == nil; i++ {
		n := random.IntN(b.s.ScanKeys)
		if i%4 == 3 { // one of those that were there before
			for n = range seen {
				break
			}
		}
		var resp *clientv3.GetResponse
		err := retried(ctx, func(try int) (err error) {
			resp, err = b.cs.at(i+try).Get(in(ctx, bigKeyspace), load.Key(n))
			return err
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("reading key %d: %w", n, err)
		case len(resp.Kvs) == 0 && seen[n]:
			return fmt.Errorf("key %d was there, and is gone", n)
		case len(resp.Kvs) > 0:
			if err := b.l.check(resp.Kvs[0].Key, resp.Kvs[0].Value); err != nil {
				return err
			}
			if len(seen) < 100_000 {
				seen[n] = true
			}
		}
		b.reads.Add(1)
		if wait(ctx, pause) != nil {
			return nil
		}
	}
	return nil
}

// scanWhile scans all until ctx ends: what was acknowledged before a scan is in it, and nothing that was not asked for by its end.
func (b *bigRun) scanWhile(ctx context.Context) error {
	for ctx.Err() == nil {
		b.l.mu.Lock()
		least := b.l.tally.count
		b.l.mu.Unlock()
		v, _, err := b.scanOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		b.l.mu.Lock()
		most := b.l.tries.count
		b.l.mu.Unlock()
		if v.found.count < least || v.found.count > most {
			return fmt.Errorf("a scan found %d keys; %d were stored before it, and no more than %d were asked for at its end", v.found.count, least, most)
		}
		b.scans.Add(1)
		if wait(ctx, time.Second) != nil {
			return nil
		}
	}
	return nil
}

func (b *bigRun) scanOnce(ctx context.Context) (v *verifier, took time.Duration, err error) {
	err = retried(ctx, func(try int) error {
		v = &verifier{l: b.l, began: time.Now()}
		return v.stream(in(ctx, bigKeyspace), b.cs.at(try))
	})
	return v, time.Since(v.began), err
}
