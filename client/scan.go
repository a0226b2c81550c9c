package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
)

// Scan walks over the keys of a span as they were at one revision, in the order of their keys, whatever number of ranges it lies
// in and whatever happens to those meanwhile. Each range is read as a stream, from the node that leads it; what is on its way is
// about 1 MiB. If a stream breaks, it goes on behind the last key.
//
//	for kv, err := range c.Scan(ctx, client.ScanOptions{Span: client.Prefix("shards/")}) {
//		if err != nil {
//			return err
//		}
//		…
//	}
//
// An error is the last that comes. A scan that lasts until its revision is compacted ends with ErrCompacted.
func (k KV) Scan(ctx context.Context, o ScanOptions) iter.Seq2[KeyValue, error] {
	return func(yield func(KeyValue, error) bool) {
		s := &scan{kv: k, o: o, yield: yield}
		s.next, s.end = o.wire()
		if err := s.run(ctx); err != nil && !errors.Is(err, errEnough) {
			yield(KeyValue{}, err)
		}
	}
}

// ScanOptions say what a Scan walks over.
type ScanOptions struct {
	Span
	Revision int64 // as the keyspace was then; 0: as it is when the scan begins
	KeysOnly bool
}

// errEnough ends a scan whose caller wants no more.
var errEnough = errors.New("the caller wants no more")

type scan struct {
	kv        KV
	o         ScanOptions
	next, end []byte // what is left, as the wire has it
	yield     func(KeyValue, error) bool
}

func (s *scan) run(ctx context.Context) error {
	if s.o.Revision == 0 {
		if err := s.fix(ctx); err != nil {
			return err
		}
	}
	for {
		stop, err := s.bound(ctx)
		if err != nil {
			return err
		}
		if err := s.kv.c.retry(ctx, func(t *tries) error { return s.stream(ctx, stop, t) }); err != nil {
			return err
		}
		if bytes.Equal(stop, s.end) {
			return nil
		}
		s.next = stop
	}
}

// fix chooses the revision to read at. If the span lies in one range it is that range's; a comparison over the span, which the
// first key decides, tells it, and is refused if there are more. Else only a read of them all finds one that all can be read at.
func (s *scan) fix(ctx context.Context) error {
	all := &pb.Compare{Key: s.next, RangeEnd: s.end, Target: pb.Compare_CREATE, Result: pb.Compare_LESS, TargetUnion: &pb.Compare_CreateRevision{}}
	r, err := s.kv.Txn(ctx, Txn{If: []*pb.Compare{all}})
	var several *SeveralRanges
	switch {
	case err == nil:
		s.o.Revision = r.Revision
	case errors.As(err, &several):
		_, s.o.Revision, err = s.kv.Count(ctx, s.o.Span)
	}
	return err
}

// bound is where the next stream is to end: with the range that it begins in, as far as is known. A node would go on by itself,
// but at the cost of passing on what others lead.
func (s *scan) bound(ctx context.Context) ([]byte, error) {
	d := s.kv.c.routes.find(s.kv.keyspace, s.next).Range
	if d == nil { // the answer to a read tells
		if _, err := s.kv.get(ctx, &pb.RangeRequest{Key: s.next, CountOnly: true}); err != nil {
			return nil, err
		}
		d = s.kv.c.routes.find(s.kv.keyspace, s.next).Range
	}
	if d == nil || len(d.End) == 0 || !toTheEnd(s.end) && bytes.Compare(s.end, d.End) <= 0 {
		return s.end, nil
	}
	return d.End, nil
}

func toTheEnd(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// stream hands out the keys up to stop, as far as it comes; s.next stands behind the last.
func (s *scan) stream(ctx context.Context, stop []byte, t *tries) error {
	if !toTheEnd(stop) && bytes.Compare(s.next, stop) >= 0 {
		return nil // all keys had come, and the stream broke behind them
	}
	c := s.kv.c
	p := c.routes.find(s.kv.keyspace, s.next)
	n, err := c.choose(ctx, p, t.last)
	if err != nil {
		return err
	}
	defer c.conns.give(n)
	t.last = n.addr
	ctx, cancel := context.WithCancel(ctx) // ends the stream if the caller wants no more
	defer cancel()
	req := &pb.RangeRequest{Key: s.next, RangeEnd: stop, Revision: s.o.Revision, KeysOnly: s.o.KeysOnly}
	in, err := pb.NewKVClient(n.cc).RangeStream(metadata.AppendToOutgoingContext(ctx, base.KeyspaceHeader, s.kv.keyspace,
		base.RouteHeader, p.hint()), req)
	if err == nil {
		c.stats.sent.Add(1)
		err = s.receive(in)
	}
	if err == nil || errors.Is(err, errEnough) {
		if err == nil {
			if told := c.learn(s.kv.keyspace, p, in.Trailer()); n.addr == p.Addr && (told == nil || told.Leads) {
				c.stats.direct.Add(1)
			}
		}
		return err
	}
	err = outcome(err, true, reads)
	c.heal(s.kv.keyspace, p, n, err)
	return err
}

func (s *scan) receive(in grpc.ServerStreamingClient[pb.RangeStreamResponse]) error {
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, kv := range m.GetRangeResponse().GetKvs() {
			s.next = append(bytes.Clone(kv.Key), 0)
			if !s.yield(keyValue(kv), nil) {
				return errEnough
			}
		}
	}
}
