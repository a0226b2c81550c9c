package serve

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// streamChunkBytes bounds one message of the stream: a page is one, unless its last pair is a large one.
const streamChunkBytes = base.PageBytes

// RangeStream answers a range in pieces. Together they are what Range answers: the first page fixes the revision, and every
// further one is read there. Each key is looked at once: the count is that of the pages, added up, and only what lies behind the
// limit is counted on its own. Orders other than the keys' own need the whole result at once.
func (s *kvService) RangeStream(req *pb.RangeRequest, out grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	if err := eval.CheckRange(req); err != nil {
		return err
	}
	defer s.cfg.tellRoute(out.Context(), req)
	if req.CountOnly || !keyOrder(req) {
		resp, err := s.Range(out.Context(), req)
		if err != nil {
			return err
		}
		return sendChunks(out, resp.Kvs, &pb.RangeResponse{Header: resp.Header, More: resp.More, Count: resp.Count})
	}
	ks, err := s.cfg.keyspace(out.Context())
	if err != nil {
		return err
	}
	r := &rangeStream{s: s, ks: ks, out: out, page: proto.CloneOf(req), limit: req.Limit}
	for {
		if more, err := r.step(); err != nil || !more {
			return err
		}
	}
}

// rangeStream is a stream while it is answered.
type rangeStream struct {
	s   *kvService
	ks  base.KeyspaceID
	out grpc.ServerStreamingServer[pb.RangeStreamResponse]

	page  *pb.RangeRequest // the next one
	limit int64            // 0: none
	sent  int64
	// last is sent with the last pairs: the header of the first page, and the count of all.
	last *pb.RangeResponse
}

// step reads a page and sends it; false after the last.
func (r *rangeStream) step() (bool, error) {
	if r.limit > 0 {
		r.page.Limit = r.limit - r.sent + 1 // whether there are more
	}
	resp, next, err := r.read()
	if err != nil {
		return false, err
	}
	if r.last == nil {
		r.last = &pb.RangeResponse{Header: r.s.cfg.fillHeader(r.ks, resp.Header)}
		if r.page.Revision <= 0 {
			r.page.Revision = resp.Header.GetRevision()
		}
	}
	r.last.Count += resp.Count
	kvs := resp.Kvs
	if left := r.limit - r.sent; r.limit > 0 && int64(len(kvs)) > left {
		kvs, r.last.More = kvs[:left], true
		if next != nil {
			if err := r.countFrom(next); err != nil {
				return false, err
			}
		}
		next = nil
	}
	r.sent += int64(len(kvs))
	if next == nil {
		return false, sendChunks(r.out, kvs, r.last)
	}
	r.page.Key = next
	return true, sendChunks(r.out, kvs, nil)
}

// read is one page, bounded as one request is.
func (r *rangeStream) read() (*pb.RangeResponse, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(r.out.Context(), r.s.cfg.RequestTimeout, errServerTimeout)
	defer cancel()
	resp, next, err := r.s.cfg.Backend.Page(ctx, r.ks, r.page)
	return resp, next, timedOut(ctx, err)
}

// countFrom adds the keys behind the limit.
func (r *rangeStream) countFrom(next []byte) error {
	ctx, cancel := context.WithTimeoutCause(r.out.Context(), r.s.cfg.RequestTimeout, errServerTimeout)
	defer cancel()
	resp, err := r.s.cfg.Backend.Range(ctx, r.ks, &pb.RangeRequest{
		Key: next, RangeEnd: r.page.RangeEnd, Revision: r.page.Revision, Serializable: r.page.Serializable, CountOnly: true,
	})
	r.last.Count += resp.GetCount()
	return timedOut(ctx, err)
}

// keyOrder says whether the answer is in ascending order of the keys.
func keyOrder(req *pb.RangeRequest) bool {
	return req.SortTarget == pb.RangeRequest_KEY && req.SortOrder != pb.RangeRequest_DESCEND
}

// sendChunks sends the pairs in messages of bounded size. If last is given, the last message carries it too.
func sendChunks(out grpc.ServerStreamingServer[pb.RangeStreamResponse], kvs []*mvccpb.KeyValue, last *pb.RangeResponse) error {
	for len(kvs) > 0 {
		n, size := 0, 0
		for n < len(kvs) && (n == 0 || size < streamChunkBytes) {
			size += eval.PairBytes(kvs[n])
			n++
		}
		chunk := &pb.RangeResponse{}
		if n == len(kvs) && last != nil {
			chunk = last
			last = nil
		}
		chunk.Kvs = kvs[:n]
		if err := out.Send(&pb.RangeStreamResponse{RangeResponse: chunk}); err != nil {
			return err
		}
		kvs = kvs[n:]
	}
	if last != nil {
		return out.Send(&pb.RangeStreamResponse{RangeResponse: last})
	}
	return nil
}
