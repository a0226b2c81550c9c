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

const (
	// streamPageKeys bounds what one page of a streamed range holds in memory: this many keys and values.
	streamPageKeys = 512
	// streamChunkBytes bounds one message of the stream, so that it flows while the next is made.
	streamChunkBytes = 1 << 20
	// pairOverhead is what a pair takes beyond its key and value: revisions, version, lease, tags.
	pairOverhead = 48
)

// RangeStream answers a range in pieces. Together they are what Range answers: the first page fixes the revision,
// and every further one is read there. Orders other than the keys' own need the whole result at once.
func (s *kvService) RangeStream(req *pb.RangeRequest, out grpc.ServerStreamingServer[pb.RangeStreamResponse]) error {
	if err := eval.CheckRange(req); err != nil {
		return err
	}
	ctx := out.Context()
	defer s.cfg.tellRoute(ctx, req)
	if req.CountOnly || !keyOrder(req) {
		resp, err := s.Range(ctx, req)
		if err != nil {
			return err
		}
		return sendChunks(out, resp.Kvs, &pb.RangeResponse{Header: resp.Header, More: resp.More, Count: resp.Count})
	}
	ks, err := s.cfg.keyspace(ctx)
	if err != nil {
		return err
	}
	page := proto.CloneOf(req)
	left := req.Limit // 0: no limit
	var last *pb.RangeResponse
	for {
		page.Limit = streamPageKeys
		if req.Limit > 0 {
			page.Limit = min(left, streamPageKeys)
		}
		resp, err := s.page(ctx, ks, page)
		if err != nil {
			return err
		}
		if last == nil { // the header and the count are those of the whole
			last = &pb.RangeResponse{Header: s.cfg.fillHeader(ks, resp.Header), Count: resp.Count}
			page.Revision = req.Revision
			if page.Revision <= 0 {
				page.Revision = resp.Header.GetRevision()
			}
		}
		left -= int64(len(resp.Kvs))
		if !resp.More || len(resp.Kvs) == 0 || req.Limit > 0 && left == 0 {
			last.More = resp.More
			return sendChunks(out, resp.Kvs, last)
		}
		if err := sendChunks(out, resp.Kvs, nil); err != nil {
			return err
		}
		page.Key = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
	}
}

// page is one read, bounded as one request is.
func (s *kvService) page(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.RequestTimeout, errServerTimeout)
	defer cancel()
	resp, err := s.cfg.Backend.Range(ctx, ks, req)
	if err != nil {
		return nil, timedOut(ctx, err)
	}
	return resp, nil
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
			size += len(kvs[n].Key) + len(kvs[n].Value) + pairOverhead
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
