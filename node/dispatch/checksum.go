package dispatch

import (
	"context"
	"errors"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/store"
)

// A hash over what a replica holds is made by the replica's own node, a page with each request, after ReadIndex; so whoever asks
// knows that it has applied all that was committed before. It is bounded in how much it reads a second, and how much at once: it
// may run on a cluster that is in use.

// checksums is what a node spends on hashing replicas, all together.
type checksums struct {
	slots chan struct{}
	rate  *rate.Limiter
}

func newChecksums() *checksums {
	return &checksums{
		slots: make(chan struct{}, base.ChecksumsAtOnce),
		rate:  rate.NewLimiter(base.ChecksumBytesPerSecond, base.ChecksumPageBytes),
	}
}

// Checksum hashes a page of a node's replica of a range. It has no effect, and is not tried again: the error says why.
func (d *Dispatcher) Checksum(ctx context.Context, node base.NodeID, id base.RangeID, req *rangepb.ChecksumRequest) (*rangepb.ChecksumResponse, error) {
	out, err := d.checksumAt(ctx, node, id, req)
	var amb *base.Ambiguous
	if errors.As(err, &amb) {
		err = amb.Cause // what has no effect is not carried out by halves
	}
	return out, err
}

func (d *Dispatcher) checksumAt(ctx context.Context, node base.NodeID, id base.RangeID, req *rangepb.ChecksumRequest) (*rangepb.ChecksumResponse, error) {
	if node == d.cfg.Node {
		if !d.cfg.Store.Has(id) {
			return nil, &base.RangeMoved{Range: id, Descriptors: d.routes.instead(id)}
		}
		return d.checksumHere(ctx, id, d.deadline(ctx), req)
	}
	body, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	out := &rangepb.ChecksumResponse{}
	return out, d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_CHECKSUM, body, out)
}

func (d *Dispatcher) checksumRaw(id base.RangeID, until base.Instant, raw []byte) (proto.Message, error) {
	req := &rangepb.ChecksumRequest{}
	if err := proto.Unmarshal(raw, req); err != nil {
		return nil, status.Error(codes.InvalidArgument, "the request cannot be read: "+err.Error())
	}
	ctx, cancel := context.WithTimeout(d.ctx, until.Sub(d.cfg.Store.Now()))
	defer cancel()
	return d.checksumHere(ctx, id, until, req)
}

func (d *Dispatcher) checksumHere(ctx context.Context, id base.RangeID, until base.Instant, req *rangepb.ChecksumRequest) (*rangepb.ChecksumResponse, error) {
	if _, err := wait(ctx, false, func(done store.Done) { d.cfg.Store.ReadIndex(id, until, done) }); err != nil {
		return nil, err
	}
	busy := &base.Throttled{What: "hashing replicas", RetryAfter: base.ThrottleRetry}
	if req.Revision > 0 {
		select {
		case d.checks.slots <- struct{}{}:
			defer func() { <-d.checks.slots }()
		case <-ctx.Done():
			return nil, busy
		}
	}
	return d.cfg.Store.Checksum(id, req, func(bytes int) error {
		if d.checks.rate.WaitN(ctx, bytes) != nil {
			return busy // it would take longer than the asker waits
		}
		return nil
	})
}
