package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/bench/load"
	"github.com/cairndb/cairn/bench/peer"
)

// Both sides hold the same keys. Cairn's are in a sharded keyspace that has split by itself, and are read by one RangeStream; etcd's
// are read by one RangeStream too, and, as its users do, in pages: Range with a limit, from behind the last key on, at the revision
// of the first page. What etcd needs for a page grows with the keys behind it, for it counts them all. Every scan checks that keys
// ascend, that each has its value, and that all are there. All reads are linearizable.

// scanned is one scan.
type scanned struct {
	name   string
	whole  bool // else it was broken off
	keys   int64
	took   time.Duration
	cpu    time.Duration // of the three servers
	first  time.Duration // until the first keys were there
	ranges int
}

func (s *Suite) scan(ctx context.Context) error {
	var all []scanned
	sides := []func(context.Context) ([]scanned, error){s.scanCairn, s.scanEtcd}
	if s.random.IntN(2) == 1 {
		sides[0], sides[1] = sides[1], sides[0]
	}
	for _, side := range sides {
		got, err := side(ctx)
		if err != nil {
			return err
		}
		all = append(all, got...)
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "scan of %d keys\tkeys read\tkeys/s\tCPU µs/key\tfirst keys after\tall in\n", s.ScanKeys)
	for _, r := range all {
		in := r.took.Round(time.Millisecond).String()
		if !r.whole {
			in = "broken off after " + in
		}
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.2f\t%s\t%s\n", r.name, r.keys, float64(r.keys)/r.took.Seconds(), r.cpu.Seconds()*1e6/float64(r.keys),
			r.first.Round(10*time.Microsecond), in)
	}
	return w.Flush()
}

const scanKeyspace = "scan"

func (s *Suite) scanCairn(ctx context.Context) (all []scanned, err error) {
	c, err := s.cairn(ctx, "scan-cairn")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	cs, err := dial(ctx, c.Endpoints)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cs.close()) }()
	if _, err := cs.admin().CreateKeyspace(ctx, &clusterpb.CreateKeyspaceRequest{Name: scanKeyspace}); err != nil {
		return nil, err
	}
	l, err := s.fill(ctx, cs, "cairn", scanKeyspace)
	if err != nil {
		return nil, err
	}
	for range 3 {
		n, err := rangesOf(ctx, cs, scanKeyspace)
		if err != nil {
			return nil, err
		}
		r, err := s.measure(c, fmt.Sprintf("cairn, RangeStream over %d ranges", n), func(v *verifier) error {
			return v.stream(in(ctx, scanKeyspace), cs.at(0))
		}, l)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func (s *Suite) scanEtcd(ctx context.Context) (all []scanned, err error) {
	const quota = "17179869184" // its default of 2 GiB does not hold ten million keys
	system := peer.Etcd{Path: s.Etcd, Extra: []string{"--quota-backend-bytes", quota}}
	c, err := peer.Start(ctx, "scan-etcd", system, s.Folder+"/scan-etcd")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	cs, err := dial(ctx, c.Endpoints)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cs.close()) }()
	l, err := s.fill(ctx, cs, "etcd", "")
	if err != nil {
		return nil, err
	}
	r, err := s.measure(c, "etcd, RangeStream", func(v *verifier) error { return v.stream(ctx, cs.at(0)) }, l)
	if err != nil {
		return nil, err
	}
	all = append(all, r)
	for _, page := range []int64{1_000, 10_000, 100_000} {
		r, err := s.measure(c, fmt.Sprintf("etcd, pages of %d", page), func(v *verifier) error {
			return v.pages(ctx, cs.at(0), page, s.EtcdFor)
		}, l)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// fill stores the keys.
func (s *Suite) fill(ctx context.Context, cs conns, who, keyspace string) (*loader, error) {
	l := &loader{conns: cs, keyspace: keyspace, valueBytes: s.ValueBytes, seed: s.Seed}
	began := time.Now()
	if err := l.store(ctx, s.ScanKeys); err != nil {
		return nil, err
	}
	took := time.Since(began)
	s.Say("%s: %d keys stored in %s, %.0f/s", who, s.ScanKeys, took.Round(time.Millisecond), float64(s.ScanKeys)/took.Seconds())
	return l, nil
}

// measure runs one scan, and holds what it found against what was stored.
func (s *Suite) measure(c *peer.Cluster, name string, scan func(*verifier) error, l *loader) (r scanned, err error) {
	before, err := c.Usage()
	if err != nil {
		return r, err
	}
	v := &verifier{l: l, began: time.Now()}
	if err := scan(v); err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	took := time.Since(v.began)
	after, err := c.Usage()
	if err != nil {
		return r, err
	}
	if v.found != l.tally && !v.stopped || v.stopped && v.found.count == 0 {
		return r, fmt.Errorf("%s: %d keys with sum %x were found, and %d with sum %x were stored", name, v.found.count, v.found.sum, l.tally.count, l.tally.sum)
	}
	s.Say("%s: %d keys in %s", name, v.found.count, took.Round(time.Millisecond))
	return scanned{name: name, whole: !v.stopped, keys: v.found.count, took: took, cpu: after.CPU - before.CPU, first: v.first}, c.Check()
}

// verifier looks at what a scan brings.
type verifier struct {
	l       *loader
	began   time.Time
	first   time.Duration
	last    []byte
	found   tally
	stopped bool // before the end
}

func (v *verifier) take(kvs []*mvccpb.KeyValue) error {
	if v.found.count == 0 {
		v.first = time.Since(v.began)
	}
	for _, kv := range kvs {
		if bytes.Compare(kv.Key, v.last) <= 0 {
			return fmt.Errorf("%q follows %q", kv.Key, v.last)
		}
		v.last = kv.Key
		if err := v.l.check(kv.Key, kv.Value); err != nil {
			return err
		}
		v.found.add(string(kv.Key), kv.Value)
	}
	return nil
}

// everything is the span of all keys.
func everything() *pb.RangeRequest { return &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}} }

// stream reads all by one RangeStream.
func (v *verifier) stream(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewKVClient(c.ActiveConnection()).RangeStream(ctx, everything())
	if err != nil {
		return err
	}
	count := int64(-1)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		r := m.GetRangeResponse()
		if r.GetHeader() != nil {
			count = r.Count
		}
		if err := v.take(r.GetKvs()); err != nil {
			return err
		}
	}
	if count != v.found.count {
		return fmt.Errorf("the stream says that it has %d keys, and %d came", count, v.found.count)
	}
	return nil
}

// pages reads all page by page at one revision, but for no longer than limit.
func (v *verifier) pages(ctx context.Context, c *clientv3.Client, size int64, limit time.Duration) error {
	key, opts := load.Key(0), []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithLimit(size)}
	for {
		resp, err := c.Get(ctx, key, opts...)
		if err != nil {
			return err
		}
		if v.found.count == 0 {
			opts = append(opts, clientv3.WithRev(resp.Header.Revision))
		}
		if err := v.take(resp.Kvs); err != nil {
			return err
		}
		if !resp.More {
			return nil
		}
		if time.Since(v.began) > limit {
			v.stopped = true
			return nil
		}
		key = string(v.last) + "\x00"
	}
}

func rangesOf(ctx context.Context, cs conns, keyspace string) (int, error) {
	resp, err := cs.admin().ListRanges(ctx, &clusterpb.ListRangesRequest{Keyspace: keyspace})
	return len(resp.GetRanges()), err
}
