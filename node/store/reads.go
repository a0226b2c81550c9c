package store

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
)

// Read evaluates a RangeRequest, a PageRequest or a TxnRequest that does not write on the local replica as it is now, and puts the
// answer into out. It is as fresh as the replica: a linearizable read comes after ReadIndex.
//
// The engine is read without a lock while entries are applied. The view is taken first, and its revision is what is read:
// versions that are written meanwhile are above it. Only a compaction can take a version away from under the read;
// it shows in the view after it, and then the read is made again at the newer revision. So it is if the replica was removed,
// or replaced by a snapshot, or the range has another span: keys that are no longer its own may be compacted by whose they are.
func (s *Store) Read(id base.RangeID, req, out proto.Message) error {
	for {
		r := s.replica(id)
		if r == nil {
			return &base.RangeMoved{Range: id}
		}
		view := s.viewOf(id, r)
		if view == nil {
			return &base.RangeMoved{Range: id}
		}
		err := s.evaluate(view, req, out)
		if s.replica(id) != r {
			continue // it was removed, or replaced by a snapshot, under the read
		}
		now := s.viewOf(id, r)
		if now != nil && now.Counters.Compacted == view.Counters.Compacted && desc.SameSpan(now.Descriptor, view.Descriptor) {
			if err == nil {
				s.served(id, r, req, out)
			}
			return err
		}
	}
}

func (s *Store) evaluate(view *apply.View, req, out proto.Message) error {
	if stale, ok := req.(*pb.RangeRequest); desc.IsFrozen(view.Descriptor) && !(ok && stale.Serializable) && !mutant.Is(mutant.FrozenServesReads) {
		return desc.Busy(view.Descriptor) // at any moment its keys may be another's, who is written to
	}
	env := view.Env()
	switch req := req.(type) {
	case *pb.RangeRequest:
		resp, err := eval.Range(s.eng, env, req)
		if err != nil {
			return s.refusal(view, err)
		}
		take(out.(*pb.RangeResponse), resp)
		return nil
	case *rangepb.PageRequest:
		page := &pb.RangeRequest{}
		if err := proto.Unmarshal(req.Range, page); err != nil {
			return status.Error(codes.InvalidArgument, "the page's request cannot be read: "+err.Error())
		}
		var resp *pb.RangeResponse
		var err error
		if req.RevisionOnly {
			resp, err = eval.RevisionOf(env, page)
		} else {
			resp, err = eval.Page(s.eng, env, page, int(min(req.MostBytes, base.PageBytes)))
		}
		if err != nil {
			return s.refusal(view, err)
		}
		take(out.(*pb.RangeResponse), resp)
		return nil
	case *pb.TxnRequest:
		resp, err := eval.ReadTxn(s.eng, env, req)
		if err != nil {
			return s.refusal(view, err)
		}
		o := out.(*pb.TxnResponse)
		o.Header, o.Succeeded, o.Responses = resp.Header, resp.Succeeded, resp.Responses
		return nil
	}
	return fmt.Errorf("%T is not a read", req)
}

func take(out, resp *pb.RangeResponse) {
	out.Header, out.Kvs, out.More, out.Count = resp.Header, resp.Kvs, resp.More, resp.Count
}

// refusal makes of an evaluation's error what the caller can act on.
func (s *Store) refusal(view *apply.View, err error) error {
	if err == eval.ErrOutOfSpan {
		return &base.RangeMoved{Range: base.RangeID(view.Descriptor.RangeId), Descriptors: []*metapb.RangeDescriptor{view.Descriptor}}
	}
	return err
}
