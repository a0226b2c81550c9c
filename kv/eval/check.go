package eval

import (
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
)

// Limits bound what a client may ask for in one request.
type Limits struct {
	MaxTxnOps       int // comparisons, or operations on one side, of a transaction and what is nested in it
	MaxRequestBytes int // of what goes through the log
}

// DefaultLimits are etcd's.
func DefaultLimits() Limits {
	return Limits{MaxTxnOps: base.MaxTxnOps, MaxRequestBytes: base.MaxRequestBytes}
}

// The checks below say whether a request makes sense whatever is stored. A request is checked once, before it is
// routed or proposed; evaluation relies on it for etcd's answers, not for its own safety.

// CheckRange checks a read.
func CheckRange(r *pb.RangeRequest) error {
	if len(r.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if _, ok := pb.RangeRequest_SortOrder_name[int32(r.GetSortOrder())]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	if _, ok := pb.RangeRequest_SortTarget_name[int32(r.GetSortTarget())]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

// CheckPut checks a put.
func CheckPut(r *pb.PutRequest, l Limits) error {
	if err := checkPut(r); err != nil {
		return err
	}
	return checkSize(r, l)
}

// CheckDeleteRange checks a delete.
func CheckDeleteRange(r *pb.DeleteRangeRequest, l Limits) error {
	if err := checkDeleteRange(r); err != nil {
		return err
	}
	return checkSize(r, l)
}

// CheckTxn checks a transaction and what is nested in it.
func CheckTxn(r *pb.TxnRequest, l Limits) error {
	if err := checkTxn(r, l.MaxTxnOps); err != nil {
		return err
	}
	// After the operations were counted: finding overlaps costs more.
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		if _, err := checkOverlaps(ops); err != nil {
			return err
		}
	}
	if IsReadOnly(r) {
		return nil
	}
	return checkSize(r, l)
}

func checkSize(r proto.Message, l Limits) error {
	if proto.Size(r) > l.MaxRequestBytes {
		return rpctypes.ErrGRPCRequestTooLarge
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.GetKey()) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.GetIgnoreValue() && len(r.GetValue()) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.GetIgnoreLease() && r.GetLease() != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

func checkDeleteRange(r *pb.DeleteRangeRequest) error {
	if len(r.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

// checkTxn counts against most the largest of a transaction's three lists; what is nested shares what is left.
func checkTxn(r *pb.TxnRequest, most int) error {
	most -= max(len(r.GetCompare()), len(r.GetSuccess()), len(r.GetFailure()))
	if most < 0 {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.GetCompare() {
		if len(c.GetKey()) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			if err := checkOp(op, most); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, most int) error {
	switch r := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return CheckRange(r.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(r.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return checkDeleteRange(r.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxn(r.RequestTxn, most)
	}
	return rpctypes.ErrGRPCKeyNotFound // an operation of no kind; etcd's answer
}

// FirstKey is the first key that a transaction names, to find its range by: all of its keys must lie in one range, which
// is checked when it is evaluated. Nil for one that names none.
func FirstKey(txn *pb.TxnRequest) []byte {
	for _, c := range txn.GetCompare() {
		return c.GetKey()
	}
	for _, ops := range [][]*pb.RequestOp{txn.GetSuccess(), txn.GetFailure()} {
		for _, op := range ops {
			var key []byte
			switch r := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
				key = r.RequestRange.GetKey()
			case *pb.RequestOp_RequestPut:
				key = r.RequestPut.GetKey()
			case *pb.RequestOp_RequestDeleteRange:
				key = r.RequestDeleteRange.GetKey()
			case *pb.RequestOp_RequestTxn:
				key = FirstKey(r.RequestTxn)
			}
			if key != nil {
				return key
			}
		}
	}
	return nil
}
