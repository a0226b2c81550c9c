package dispatch

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/spread"
	"github.com/cairndb/cairn/raftgroup"
)

// A read over several ranges: meta/spread decides, and says why the answer is of one moment; here is what it asks for carried out,
// each on a goroutine of its own.

// spread reads keys of several ranges.
func (d *Dispatcher) spread(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	return d.together(ctx, ks, spread.New(ks, req, d.latchID()))
}

// fix finds a revision at which all ranges of a request's span are one snapshot, as new as the request, and stay it.
func (d *Dispatcher) fix(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (int64, error) {
	resp, err := d.together(ctx, ks, spread.Fix(ks, req, d.latchID()))
	return resp.GetHeader().GetRevision(), err
}

func (d *Dispatcher) latchID() raftgroup.LatchID {
	return raftgroup.LatchID{Began: d.cfg.UnixMicros(), Node: d.cfg.Node, Seq: d.nextID.Add(1)}
}

// together drives a read over several ranges to its end.
func (d *Dispatcher) together(ctx context.Context, ks base.KeyspaceID, r *spread.Read) (*pb.RangeResponse, error) {
	find := func(key []byte) *metapb.RangeDescriptor { return d.routes.find(ks, key) }
	type answered struct {
		ask    spread.Ask
		answer spread.Answer
	}
	asking, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	answers := make(chan answered)
	for {
		for _, a := range r.Next(find) {
			if a.Kind == spread.Free {
				d.free(&a)
				continue
			}
			wg.Go(func() {
				x := d.carryOut(asking, ks, &a)
				select {
				case answers <- answered{a, x}:
				case <-asking.Done():
				}
			})
		}
		if resp, err, done := r.Result(); done {
			return resp, err
		}
		select {
		case x := <-answers:
			r.Answer(x.ask, x.answer)
			continue
		case <-ctx.Done():
		case <-d.ctx.Done():
		}
		for _, a := range r.Abandon() {
			d.free(&a)
		}
		if ctx.Err() == nil {
			return nil, base.ErrStopped
		}
		return nil, ctx.Err()
	}
}

// carryOut does one thing that a read over several ranges asks for.
func (d *Dispatcher) carryOut(ctx context.Context, ks base.KeyspaceID, a *spread.Ask) (x spread.Answer) {
	switch a.Kind {
	case spread.Latch:
		x.Grant, x.Err = d.latch(ctx, ks, a)
	case spread.Raise:
		x.Err = d.raiseLatched(ctx, a)
	case spread.Lift:
		x.Err = d.raise(ctx, ks, a.Key, a.Revision)
	case spread.Part:
		x.Response = &pb.RangeResponse{}
		x.Err = d.read(ctx, ks, a.Key, a.Request, x.Response)
	case spread.Pause:
		timer := time.NewTimer(a.For)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return x
}

// raise has all later writes of the range that holds key have revisions above this one.
func (d *Dispatcher) raise(ctx context.Context, ks base.KeyspaceID, key []byte, revision int64) error {
	a := spread.Ask{Kind: spread.Lift, Key: key, Revision: revision}
	_, err := d.propose(ctx, ks, key, a.Command(0))
	return err
}

// CompactRange compacts one range, the one that begins where d does.
func (d *Dispatcher) CompactRange(ctx context.Context, r *metapb.RangeDescriptor, cmd *kvpb.Command) error {
	_, err := d.propose(ctx, base.KeyspaceID(r.KeyspaceId), r.Start, cmd)
	return err
}

// compact compacts all ranges of a keyspace at one revision: each on its own, for what one of them forgets no other needs. It may be
// repeated: a range that is compacted already stays so.
func (d *Dispatcher) compact(ctx context.Context, ks base.KeyspaceID, c *kvpb.Command_Compaction) (proto.Message, error) {
	req := &pb.CompactionRequest{}
	if err := proto.Unmarshal(c.Compaction, req); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	var last proto.Message
	var refusal error
	for key := []byte(nil); ; {
		r, err := d.Descriptor(ctx, ks, key)
		if err != nil {
			return nil, err
		}
		msg, err := d.propose(ctx, ks, r.Start, &kvpb.Command{Body: c})
		if spread.Beyond(err) {
			if err = d.raise(ctx, ks, r.Start, req.Revision); err == nil {
				msg, err = d.propose(ctx, ks, r.Start, &kvpb.Command{Body: c})
			}
		}
		switch {
		case err == nil:
			last = msg
		case status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCCompacted).Message():
			refusal = err
		default:
			return nil, err
		}
		if len(r.End) == 0 {
			break
		}
		key = r.End
	}
	if last == nil {
		return nil, refusal // all of them had been
	}
	return last, nil
}
