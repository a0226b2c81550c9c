package load

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/kv/eval"
)

// Span is the keys of one request, as etcd writes them: End is the first key behind them, or empty for Start alone, or one zero
// byte for all from Start on.
type Span struct {
	Start, End []byte
	// Whole: they must lie in one range. Cut between them, the request would be refused.
	Whole bool
}

func (s Span) endless() bool { return len(s.End) == 1 && s.End[0] == 0 }

// bounded says whether it has an end that is a key.
func (s Span) bounded() bool { return len(s.End) > 0 && !s.endless() }

type side int

const (
	left side = iota
	right
	across
)

// side says where a span is if a range is cut at key.
func (s Span) side(key []byte) side {
	switch {
	case bytes.Compare(s.Start, key) >= 0:
		return right
	case s.endless() || len(s.End) > 0 && bytes.Compare(s.End, key) > 0:
		return across
	}
	return left
}

// hull is the least span that holds both. Start is not nil in one that holds something.
func (s Span) hull(o Span) Span {
	if s.Start == nil {
		return o
	}
	if o.Start == nil {
		return s
	}
	h := Span{Start: s.Start, End: s.behind(), Whole: s.Whole || o.Whole}
	if bytes.Equal(s.Start, o.Start) && len(s.End) == 0 && len(o.End) == 0 {
		return s
	}
	if bytes.Compare(o.Start, h.Start) < 0 {
		h.Start = o.Start
	}
	if end := o.behind(); !s.endless() && (o.endless() || bytes.Compare(end, h.End) > 0) {
		h.End = end
	}
	return h
}

// behind is the span's end, that of a single key too.
func (s Span) behind() []byte {
	if len(s.End) > 0 {
		return s.End
	}
	return append(slices.Clone(s.Start), 0)
}

// OfRead is the keys that a read touched: of a limited one those up to the last that it returned. False for other messages.
func OfRead(req, resp proto.Message) (Span, bool) {
	switch req := req.(type) {
	case *pb.RangeRequest:
		s := Span{Start: req.Key, End: req.RangeEnd}
		if r, ok := resp.(*pb.RangeResponse); ok && r.More && len(r.Kvs) > 0 && eval.InKeyOrder(req) {
			s.End = Span{Start: r.Kvs[len(r.Kvs)-1].Key}.behind()
		}
		return s, true
	case *pb.TxnRequest:
		s := ofTxn(req)
		s.Whole = true
		return s, s.Start != nil
	}
	return Span{}, false
}

// OfCommand is the keys that a client's write names; false for another command, or one that cannot be read.
func OfCommand(data []byte) (Span, bool) {
	cmd := &kvpb.Command{}
	if proto.Unmarshal(data, cmd) != nil {
		return Span{}, false
	}
	switch body := cmd.Body.(type) {
	case *kvpb.Command_Put:
		req := &pb.PutRequest{}
		err := proto.Unmarshal(body.Put, req)
		return Span{Start: req.Key}, err == nil
	case *kvpb.Command_DeleteRange:
		req := &pb.DeleteRangeRequest{}
		err := proto.Unmarshal(body.DeleteRange, req)
		return Span{Start: req.Key, End: req.RangeEnd, Whole: true}, err == nil
	case *kvpb.Command_Txn:
		req := &pb.TxnRequest{}
		err := proto.Unmarshal(body.Txn, req)
		s := ofTxn(req)
		s.Whole = true
		return s, err == nil && s.Start != nil
	}
	return Span{}, false
}

// ofTxn is from the first to the last key that a transaction names on either of its ways.
func ofTxn(txn *pb.TxnRequest) (s Span) {
	for _, c := range txn.GetCompare() {
		s = s.hull(Span{Start: c.GetKey(), End: c.GetRangeEnd()})
	}
	for _, ops := range [][]*pb.RequestOp{txn.GetSuccess(), txn.GetFailure()} {
		for _, op := range ops {
			switch r := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
				s = s.hull(Span{Start: r.RequestRange.GetKey(), End: r.RequestRange.GetRangeEnd()})
			case *pb.RequestOp_RequestPut:
				s = s.hull(Span{Start: r.RequestPut.GetKey()})
			case *pb.RequestOp_RequestDeleteRange:
				s = s.hull(Span{Start: r.RequestDeleteRange.GetKey(), End: r.RequestDeleteRange.GetRangeEnd()})
			case *pb.RequestOp_RequestTxn:
				s = s.hull(ofTxn(r.RequestTxn))
			}
		}
	}
	return s
}
