package dispatch

import (
	"context"
	"math"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// etcd's HashKV: one hash over all versions of a keyspace that a read at a revision may need. It is the sum by which replicas are
// compared (checksum.go), carried on from page to page and from range to range: the versions go into it in the order of their keys,
// so it is the same whichever replicas were read and wherever the keyspace was cut, meanwhile too. Only a compaction changes it, as
// in etcd: then it is begun anew, and the answer says at which compaction it was made.

// HashKV hashes a keyspace at a revision; 0 is the newest. Where this node has a replica it is this one that is read, and else one
// of another node.
func (d *Dispatcher) HashKV(ctx context.Context, ks base.KeyspaceID, revision int64) (*pb.HashKVResponse, error) {
	h := &keyspaceHash{d: d, ks: ks, asked: max(revision, 0)}
	for h.anew(); !h.end; {
		if err := h.page(ctx); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return h.answer(), nil
}

// keyspaceHash is one while it is made.
type keyspaceHash struct {
	d     *Dispatcher
	ks    base.KeyspaceID
	asked int64 // 0: the newest

	revision int64 // at which it is made; 0: not chosen yet
	mark     int64 // the highest compaction that was met
	latest   int64 // the highest revision that was met

	after *rangepb.VersionPosition // what is in the sum; nil: nothing
	state []byte
	sum   uint64
	end   bool
}

// answer is it, once it is made.
func (h *keyspaceHash) answer() *pb.HashKVResponse {
	return &pb.HashKVResponse{
		Header: &pb.ResponseHeader{Revision: h.latest}, Hash: uint32(h.sum>>32) ^ uint32(h.sum),
		CompactRevision: h.mark, HashRevision: h.revision,
	}
}

// anew forgets what was hashed, and a revision that was chosen here: the compaction may have passed it.
func (h *keyspaceHash) anew() {
	h.revision, h.after, h.state, h.sum = h.asked, nil, nil, 0
}

// page hashes a page, or finds out what it needs for that. It has the time of a request; the whole has as long as its asker waits.
func (h *keyspaceHash) page(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, base.RequestTimeout)
	defer cancel()
	if h.revision == 0 && h.ks.Splits() { // one that all ranges have come to
		fixed, err := h.d.fix(ctx, h.ks, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		if err != nil {
			return err
		}
		h.revision = fixed
	}
	var resp *rangepb.ChecksumResponse
	err := h.d.retry(ctx, h.ks, h.after.GetKey(), func(r *metapb.RangeDescriptor, node base.NodeID) (err error) {
		id := base.RangeID(r.RangeId)
		if h.d.cfg.Store.Has(id) {
			node = h.d.cfg.Node
		}
		resp, err = h.d.checksumAt(ctx, node, id, &rangepb.ChecksumRequest{
			Revision: h.revision, Compacted: h.mark, Generation: r.Generation, After: h.after, State: h.state,
		})
		return h.d.retriable(ctx, id, err)
	})
	switch {
	case err == nil:
		return h.take(resp)
	case status.Code(err) == codes.OutOfRange && h.ks.Splits():
		return h.d.raise(ctx, h.ks, h.after.GetKey(), h.revision) // refused if it lies in the future
	case status.Code(err) == codes.OutOfRange:
		return rpctypes.ErrGRPCFutureRev
	}
	return err
}

// take takes a replica's answer.
func (h *keyspaceHash) take(resp *rangepb.ChecksumResponse) error {
	h.latest = max(h.latest, resp.Revision)
	switch {
	case resp.Hashed && !resp.End:
		h.state, h.sum, h.after = resp.State, resp.Sum, resp.Reached
	case resp.Hashed:
		next := resp.Descriptor_.GetEnd()
		h.state, h.sum, h.end = resp.State, resp.Sum, len(next) == 0
		h.after = &rangepb.VersionPosition{Key: next, Revision: math.MaxInt64} // before the first version of that key
	case h.revision > 0 && resp.Compacted <= h.mark:
		h.d.routes.learn(resp.Descriptor_) // the range is another by now
	default:
		h.mark = max(h.mark, resp.Compacted)
		if h.asked > 0 && h.asked < h.mark {
			return rpctypes.ErrGRPCCompacted
		}
		if h.anew(); h.revision == 0 && !h.ks.Splits() {
			h.revision = resp.Revision
		}
	}
	return nil
}
