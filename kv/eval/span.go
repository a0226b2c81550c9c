package eval

import (
	"bytes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// toEnd is how a request says that its range has no upper bound: protobuf cannot tell an empty end from none.
func toEnd(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// upper is the upper bound of a request's range, empty for none. The request's range_end is not empty.
func upper(end []byte) []byte {
	if toEnd(end) {
		return nil
	}
	return end
}

// holds says whether [key, end) is within the range; an empty end means the key alone. A request whose end is not
// above its key holds nothing, and belongs where its key is.
func (e *Env) holds(key, end []byte) bool {
	if bytes.Compare(key, e.Start) < 0 {
		return false
	}
	if len(e.End) == 0 {
		return true
	}
	if toEnd(end) {
		return false
	}
	return bytes.Compare(key, e.End) < 0 && bytes.Compare(end, e.End) <= 0
}

// holdsTxn says so of everything that the transaction may touch, whichever way it goes.
func (e *Env) holdsTxn(t *pb.TxnRequest) bool {
	if len(e.Start) == 0 && len(e.End) == 0 {
		return true
	}
	for _, c := range t.GetCompare() {
		if !e.holds(c.GetKey(), c.GetRangeEnd()) {
			return false
		}
	}
	return e.holdsOps(t.GetSuccess()) && e.holdsOps(t.GetFailure())
}

func (e *Env) holdsOps(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		ok := true
		switch r := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			ok = e.holds(r.RequestRange.GetKey(), r.RequestRange.GetRangeEnd())
		case *pb.RequestOp_RequestPut:
			ok = e.holds(r.RequestPut.GetKey(), nil)
		case *pb.RequestOp_RequestDeleteRange:
			ok = e.holds(r.RequestDeleteRange.GetKey(), r.RequestDeleteRange.GetRangeEnd())
		case *pb.RequestOp_RequestTxn:
			ok = e.holdsTxn(r.RequestTxn)
		}
		if !ok {
			return false
		}
	}
	return true
}
