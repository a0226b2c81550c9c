package client

import (
	"context"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Txn compares, and then does one of two lists of operations, all of it at once. All keys must lie in one range. The comparisons
// and operations are etcd's; the constructors below make those that are mostly needed.
type Txn struct {
	If   []*pb.Compare // all must hold; none: they do
	Then []*pb.RequestOp
	Else []*pb.RequestOp
}

// TxnResult is what a transaction did.
type TxnResult struct {
	Succeeded bool // Then was done, not Else
	Revision  int64
	Responses []*pb.ResponseOp // to each operation that was done, in order
}

// Txn carries a transaction out. One without a put or delete is a read.
func (k KV) Txn(ctx context.Context, t Txn) (*TxnResult, error) {
	req := &pb.TxnRequest{Compare: t.If, Success: t.Then, Failure: t.Else}
	e := reads
	if changes(req) {
		e = writes
	}
	var resp *pb.TxnResponse
	err := k.c.do(ctx, k.call(txnKey(req), e, func(ctx context.Context, cc *grpc.ClientConn, opts ...grpc.CallOption) (err error) {
		resp, err = pb.NewKVClient(cc).Txn(ctx, req, opts...)
		return err
	}))
	if err != nil {
		return nil, err
	}
	return &TxnResult{Succeeded: resp.Succeeded, Revision: resp.Header.GetRevision(), Responses: resp.Responses}, nil
}

// If is a list of comparisons.
func If(compares ...*pb.Compare) []*pb.Compare { return compares }

// Do is a list of operations, done one after the other.
func Do(ops ...*pb.RequestOp) []*pb.RequestOp { return ops }

// Absent compares: there is no such key.
func Absent(key string) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{}}
}

// Present compares: there is such a key.
func Present(key string) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{}}
}

// Unchanged compares: the key was last written at this revision (KeyValue.ModRevision); 0: there is none.
func Unchanged(key string, modRevision int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: modRevision}}
}

// ValueIs compares: the key has this value. A key that is not there has none, not even the empty one.
func ValueIs(key string, value []byte) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_VALUE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Value{Value: value}}
}

// PutOp writes a key.
func PutOp(key string, value []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}
}

// DeleteOp deletes a key.
func DeleteOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

// GetOp reads a key.
func GetOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

// changes says whether a transaction may write. What is not known to be a read counts as a write.
func changes(t *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{t.GetSuccess(), t.GetFailure()} {
		for _, op := range ops {
			switch r := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
			case *pb.RequestOp_RequestTxn:
				if changes(r.RequestTxn) {
					return true
				}
			default:
				return true
			}
		}
	}
	return false
}

// txnKey is a key of the transaction, by which its range is found: the first, as nodes take it too.
func txnKey(t *pb.TxnRequest) []byte {
	if len(t.GetCompare()) > 0 {
		return t.Compare[0].GetKey()
	}
	for _, ops := range [][]*pb.RequestOp{t.GetSuccess(), t.GetFailure()} {
		for _, op := range ops {
			switch r := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
				return r.RequestRange.GetKey()
			case *pb.RequestOp_RequestPut:
				return r.RequestPut.GetKey()
			case *pb.RequestOp_RequestDeleteRange:
				return r.RequestDeleteRange.GetKey()
			case *pb.RequestOp_RequestTxn:
				if key := txnKey(r.RequestTxn); key != nil {
					return key
				}
			}
		}
	}
	return nil
}
