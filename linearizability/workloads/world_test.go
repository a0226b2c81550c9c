package workloads

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// store is a keyspace that does everything at once and right.
type store struct {
	rev  int64
	keys map[string]*mvccpb.KeyValue
	old  map[int64]map[string]*mvccpb.KeyValue // as they were at each revision that was answered to a read
}

func (s *store) do(req proto.Message) proto.Message {
	switch r := req.(type) {
	case *pb.RangeRequest:
		if s.old[s.rev] == nil {
			s.old[s.rev] = maps.Clone(s.keys)
		}
		return s.read(r)
	case *pb.PutRequest:
		s.rev++
		s.put(r)
		return &pb.PutResponse{Header: s.header()}
	case *pb.DeleteRangeRequest:
		resp := s.delete(r)
		if resp.Deleted > 0 {
			s.rev++
		}
		resp.Header = s.header()
		return resp
	case *pb.TxnRequest:
		return s.txn(r)
	}
	return &pb.CompactionResponse{Header: s.header()}
}

func (s *store) header() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: s.rev} }

func (s *store) put(r *pb.PutRequest) {
	kv := s.keys[string(r.Key)]
	if kv == nil {
		kv = &mvccpb.KeyValue{Key: r.Key, CreateRevision: s.rev}
	}
	kv = proto.CloneOf(kv)
	kv.Value, kv.ModRevision, kv.Version, kv.Lease = r.Value, s.rev, kv.Version+1, r.Lease
	s.keys[string(r.Key)] = kv
}

func in(k string, key, end []byte) bool {
	return len(end) == 0 && k == string(key) || len(end) > 0 && k >= string(key) && (k < string(end) || string(end) == "\x00")
}

func (s *store) delete(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	out := &pb.DeleteRangeResponse{}
	for _, k := range slices.Sorted(maps.Keys(s.keys)) {
		if in(k, r.Key, r.RangeEnd) {
			if r.PrevKv {
				out.PrevKvs = append(out.PrevKvs, s.keys[k])
			}
			delete(s.keys, k)
			out.Deleted++
		}
	}
	return out
}

func (s *store) read(r *pb.RangeRequest) *pb.RangeResponse {
	out := &pb.RangeResponse{Header: s.header()}
	keys := s.keys
	if r.Revision > 0 {
		keys = s.old[r.Revision]
	}
	for k, kv := range keys {
		if in(k, r.Key, r.RangeEnd) {
			out.Kvs = append(out.Kvs, proto.CloneOf(kv))
		}
	}
	slices.SortFunc(out.Kvs, func(a, b *mvccpb.KeyValue) int {
		if r.SortTarget == pb.RangeRequest_CREATE {
			return cmp.Compare(a.CreateRevision, b.CreateRevision)
		}
		return slices.Compare(a.Key, b.Key)
	})
	if out.Count = int64(len(out.Kvs)); r.Limit > 0 && out.Count > r.Limit {
		out.Kvs, out.More = out.Kvs[:r.Limit], true
	}
	return out
}

func (s *store) holds(c *pb.Compare) bool {
	kv := s.keys[string(c.Key)]
	if kv == nil {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		kv = &mvccpb.KeyValue{}
	}
	var order int
	switch c.Target {
	case pb.Compare_VALUE:
		order = slices.Compare(kv.Value, c.GetValue())
	case pb.Compare_VERSION:
		order = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_CREATE:
		order = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	default:
		order = cmp.Compare(kv.ModRevision, c.GetModRevision())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	}
	return order < 0
}

func (s *store) txn(r *pb.TxnRequest) *pb.TxnResponse {
	out := &pb.TxnResponse{Succeeded: true}
	for _, c := range r.Compare {
		out.Succeeded = out.Succeeded && s.holds(c)
	}
	branch := r.Failure
	if out.Succeeded {
		branch = r.Success
	}
	before, wrote := s.rev, false
	s.rev++ // what is written in the transaction has its revision
	for _, o := range branch {
		resp := &pb.ResponseOp{}
		switch {
		case o.GetRequestRange() != nil:
			resp.Response = &pb.ResponseOp_ResponseRange{ResponseRange: s.read(o.GetRequestRange())}
		case o.GetRequestPut() != nil:
			wrote = true
			s.put(o.GetRequestPut())
			resp.Response = &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}
		default:
			got := s.delete(o.GetRequestDeleteRange())
			wrote = wrote || got.Deleted > 0
			resp.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: got}
		}
		out.Responses = append(out.Responses, resp)
	}
	if !wrote {
		s.rev = before
	}
	out.Header = s.header()
	return out
}

// play runs a workload's clients against a store, their requests overlapping, with lose some without an answer, and returns the
// history. It is linearizable: each takes effect at one moment between its beginning and its end, or later without one.
func play(w linearizability.Workload, seed uint64, clients, ops int, lose bool) *linearizability.History {
	h, r := &linearizability.History{}, base.NewRand(seed)
	s := &store{rev: 1, keys: map[string]*mvccpb.KeyValue{}, old: map[int64]map[string]*mvccpb.KeyValue{}}
	for _, req := range w.Setup() {
		op := h.Invoke(clients, 4, req)
		h.Return(op, linearizability.OK, s.do(req), "")
	}
	open := make([]*linearizability.Op, clients)
	done := make([]proto.Message, clients)
	for range ops * 3 {
		c := int(r.Int63n(int64(clients)))
		switch op := open[c]; {
		case op == nil:
			if req := w.Next(c, r); req != nil {
				open[c] = h.Invoke(c, 4, req)
			}
		case done[c] == nil:
			if _, reads := op.Request.(*pb.RangeRequest); lose && !reads && r.Int63n(60) == 0 {
				if r.Int63n(2) == 0 { // it took effect, and nobody heard of it
					s.do(op.Request)
				}
				h.Return(op, linearizability.Unknown, nil, "lost")
				w.Ended(op)
				open[c] = nil
				continue
			}
			done[c] = s.do(op.Request)
		default:
			h.Return(op, linearizability.OK, done[c], "")
			w.Ended(op)
			open[c], done[c] = nil, nil
		}
	}
	for c, op := range open {
		switch {
		case op == nil:
		case done[c] != nil:
			h.Return(op, linearizability.OK, done[c], "")
		default:
			h.Return(op, linearizability.Failed, nil, "never sent")
		}
	}
	for _, req := range w.Final() {
		op := h.Invoke(clients, 4, req)
		h.Return(op, linearizability.OK, s.do(req), "")
	}
	return h
}
