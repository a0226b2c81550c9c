package spread

import (
	"bytes"
	"errors"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
)

// parts is a read at one revision that goes from range to range, in the order of keys.
type parts struct {
	req      *pb.RangeRequest
	revision int64
	key      []byte // where the next part begins
	newest   int64
	kvs      []*mvccpb.KeyValue
	count    int64
}

func newParts(req *pb.RangeRequest, revision int64) parts {
	return parts{req: req, revision: revision, key: req.Key, newest: revision}
}

// read asks for the next part.
func (r *Read) read(find Find) []Ask {
	p := &r.parts
	if r.lift {
		return []Ask{{Kind: Lift, Key: p.key, Revision: p.revision}}
	}
	part := p.next()
	if d := find(p.key); d != nil && !reaches(d.End, r.req.RangeEnd) {
		part.RangeEnd = d.End
	}
	return []Ask{{Kind: Part, Key: p.key, Request: part}}
}

// next is what is asked of one range. What is ordered otherwise than by key is ordered and cut at the end.
func (p *parts) next() *pb.RangeRequest {
	part := proto.CloneOf(p.req)
	part.Key, part.Revision, part.Serializable = p.key, p.revision, false
	switch {
	case !eval.InKeyOrder(p.req):
		part.Limit, part.SortOrder, part.SortTarget = 0, pb.RangeRequest_NONE, pb.RangeRequest_KEY
		part.KeysOnly = part.KeysOnly && p.req.SortTarget != pb.RangeRequest_VALUE
	case p.req.Limit > 0:
		if part.Limit = p.req.Limit + 1 - int64(len(p.kvs)); part.Limit <= 0 {
			part.Limit, part.CountOnly = 0, true // the rest is only counted
		}
	}
	return part
}

// took takes a part in.
func (r *Read) took(a *Ask, x *Answer) {
	var several *base.SeveralRanges
	switch {
	case errors.As(x.Err, &several):
		return // it was split since: what is known now says where
	case Beyond(x.Err) && !r.lifted && r.req.Revision > 0:
		r.lift = true
		return
	case is(x.Err, rpctypes.ErrGRPCCompacted) && r.req.Revision == 0:
		r.phase = raising // and failed: somebody has compacted what was the newest a moment ago
		r.fail(x.Err)
		return
	case x.Err != nil:
		r.end(nil, x.Err)
		return
	}
	p := &r.parts
	r.lifted = false
	p.newest = max(p.newest, x.Response.Header.GetRevision())
	p.kvs, p.count = append(p.kvs, x.Response.Kvs...), p.count+x.Response.Count
	if !bytes.Equal(a.Request.RangeEnd, r.req.RangeEnd) {
		p.key = a.Request.RangeEnd
		return
	}
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: p.revision}, Kvs: p.kvs, Count: p.count}
	if r.req.Revision > 0 {
		resp.Header.Revision = p.newest
	}
	eval.Arrange(r.req, resp)
	r.end(resp, nil)
}
