package dispatch

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// A read over several ranges is answered as of one moment, without holding writes up: all ranges are read; each is raised to the
// highest revision R that any of them was at, so that later writes lie above R; and then all are looked at again. If each is
// still at R, nothing was written in any of them between the end of the first look and the beginning of the second, so what was
// read is what all of them held at each moment between, and what a read at R finds ever after. Else it is done again; under
// writes without a pause that may not end, and after base.SpreadTries it is given up and says so. The first such double
// collect is Afek et al., Atomic Snapshots of Shared Memory (1993), section 3. RFC 3 says why not latches.

// spread reads keys of several ranges.
func (d *Dispatcher) spread(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	return d.snapshot(ctx, ks, req, 0)
}

// snapshot is spread; if most is not 0, no more than a page of that many bytes is read of each range.
func (d *Dispatcher) snapshot(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest, most uint64) (*pb.RangeResponse, error) {
	for range base.SpreadTries {
		c := &collector{d: d, ks: ks, req: req, most: most}
		if err := c.collect(ctx); err != nil {
			return nil, err
		}
		if req.Revision > 0 {
			return c.response(req.Revision), nil // what is read at a revision stays as it is
		}
		still, err := c.settle(ctx)
		if err != nil {
			return nil, err
		}
		if still {
			return c.response(c.newest), nil
		}
	}
	return nil, &base.Throttled{What: "a read over several ranges that are written to without a pause", RetryAfter: base.ThrottleRetry}
}

// collector gathers a read over several ranges, each read on its own.
type collector struct {
	d   *Dispatcher
	ks  base.KeyspaceID
	req *pb.RangeRequest

	most uint64 // bytes of each range; 0: all

	starts [][]byte // the first key that was read in each range
	at     []int64  // and the revision that it was at
	newest int64
	kvs    []*mvccpb.KeyValue
	count  int64
}

func (c *collector) collect(ctx context.Context) error {
	end := c.req.RangeEnd
	for key := c.req.Key; ; {
		asked, err := c.d.descriptor(ctx, c.ks, key)
		if err != nil {
			var next bool
			if next, err = c.again(ctx, key, err); !next {
				return err
			}
			continue
		}
		part := c.part(key, end)
		if endsWithin(asked, end) {
			part.RangeEnd = asked.End
		}
		resp, err := c.readPart(ctx, part)
		var several *base.SeveralRanges
		if errors.As(err, &several) {
			continue // it was split since
		}
		if err != nil {
			return err
		}
		c.starts, c.at = append(c.starts, key), append(c.at, resp.Header.GetRevision())
		c.newest = max(c.newest, resp.Header.GetRevision())
		c.kvs, c.count = append(c.kvs, resp.Kvs...), c.count+resp.Count
		if bytes.Equal(part.RangeEnd, end) {
			return nil
		}
		key = part.RangeEnd
	}
}

// again lets a lookup that failed be tried as a request is: a read of one key goes through all of that.
func (c *collector) again(ctx context.Context, key []byte, cause error) (bool, error) {
	_, err := c.readPart(ctx, &pb.RangeRequest{Key: key, CountOnly: true})
	if err != nil {
		return false, errors.Join(err, cause)
	}
	return true, nil
}

// toTheEnd says whether a request's end is the keyspace's.
func toTheEnd(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// part is what is asked of one range. What is ordered otherwise than by key is ordered and cut at the end.
func (c *collector) part(key, end []byte) *pb.RangeRequest {
	part := proto.CloneOf(c.req)
	part.Key, part.RangeEnd, part.Serializable = key, end, false
	switch {
	case !eval.InKeyOrder(c.req):
		part.Limit, part.SortOrder, part.SortTarget = 0, pb.RangeRequest_NONE, pb.RangeRequest_KEY
		part.KeysOnly = part.KeysOnly && c.req.SortTarget != pb.RangeRequest_VALUE
	case c.req.Limit > 0:
		if part.Limit = c.req.Limit + 1 - int64(len(c.kvs)); part.Limit <= 0 {
			part.Limit, part.CountOnly = 0, true // the rest is only counted
		}
	}
	return part
}

func (c *collector) readPart(ctx context.Context, part *pb.RangeRequest) (*pb.RangeResponse, error) {
	out := &pb.RangeResponse{}
	var ask proto.Message = part
	if c.most > 0 {
		page, err := pageRequest(part, c.most)
		if err != nil {
			return nil, err
		}
		ask = page
	}
	err := c.d.read(ctx, c.ks, part.Key, ask, out)
	if part.Revision > 0 && beyond(err) {
		if err = c.d.raise(ctx, c.ks, part.Key, part.Revision); err == nil {
			err = c.d.read(ctx, c.ks, part.Key, ask, out)
		}
	}
	return out, err
}

// settle raises the ranges to the newest revision, and says whether all are at just that when they are looked at again.
func (c *collector) settle(ctx context.Context) (bool, error) {
	for i, key := range c.starts {
		if c.at[i] < c.newest {
			if err := c.d.raise(ctx, c.ks, key, c.newest); err != nil {
				return false, err
			}
		}
	}
	for _, key := range c.starts {
		resp, err := c.readPart(ctx, &pb.RangeRequest{Key: key, CountOnly: true})
		if err != nil || resp.Header.GetRevision() != c.newest {
			return false, err
		}
	}
	return true, nil
}

func (c *collector) response(revision int64) *pb.RangeResponse {
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: max(revision, c.newest)}, Kvs: c.kvs, Count: c.count}
	eval.Arrange(c.req, resp)
	return resp
}

// raise has all later writes of the range that holds key have revisions above this one.
func (d *Dispatcher) raise(ctx context.Context, ks base.KeyspaceID, key []byte, revision int64) error {
	_, err := d.Propose(ctx, ks, key, &kvpb.Command{Body: &kvpb.Command_RaiseRevision{
		RaiseRevision: &kvpb.RaiseRevision{Key: slices.Clone(key), Revision: revision},
	}})
	return err
}

// beyond says whether a read was refused because the range has not come to its revision yet: in a sharded keyspace another has.
func beyond(err error) bool {
	return err != nil && status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCFutureRev).Message()
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
		if beyond(err) {
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
