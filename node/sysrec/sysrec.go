// Package sysrec reads and changes records in `sys`: several at once, in one transaction, if none of them is another by now. `sys` is
// one range for ever, so what rests on several records needs no more than that to be whole at every moment.
package sysrec

import (
	"context"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
)

// Cluster is what is needed of the cluster. The errors are those of internal/base.
type Cluster interface {
	Range(ctx context.Context, ks base.KeyspaceID, req *pb.RangeRequest) (*pb.RangeResponse, error)
	Propose(ctx context.Context, ks base.KeyspaceID, key []byte, cmd *kvpb.Command) (proto.Message, error)
}

// Get reads a record, linearizably; Revision is 0 if there is none.
func Get(ctx context.Context, c Cluster, key []byte) (*mvccpb.KeyValue, error) {
	resp, err := c.Range(ctx, base.KeyspaceSys, &pb.RangeRequest{Key: key})
	if err != nil {
		return nil, err
	}
	if len(resp.Kvs) == 0 {
		return &mvccpb.KeyValue{Key: key}, nil
	}
	return resp.Kvs[0], nil
}

// List reads the records from start to before end, in the order of their keys.
func List(ctx context.Context, c Cluster, start, end []byte) ([]*mvccpb.KeyValue, error) {
	resp, err := c.Range(ctx, base.KeyspaceSys, &pb.RangeRequest{Key: start, RangeEnd: end})
	if err != nil {
		return nil, err
	}
	return resp.Kvs, nil
}

// Decode reads a record's value.
func Decode(kv *mvccpb.KeyValue, into proto.Message) error {
	if err := proto.Unmarshal(kv.Value, into); err != nil {
		return &base.Corruption{Where: fmt.Sprintf("record %q", kv.Key), Cause: err}
	}
	return nil
}

// Txn is a change of some records.
type Txn struct {
	txn pb.TxnRequest
	err error
}

// At has the change stand only if a record was last written at a revision; 0: if there is none.
func (t *Txn) At(key []byte, revision int64) {
	t.txn.Compare = append(t.txn.Compare, &pb.Compare{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_ModRevision{ModRevision: revision}})
}

// Put writes a value.
func (t *Txn) Put(key, value []byte) {
	t.txn.Success = append(t.txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}})
}

// PutMessage writes a message.
func (t *Txn) PutMessage(key []byte, m proto.Message) {
	value, err := proto.Marshal(m)
	if err != nil && t.err == nil {
		t.err = err
	}
	t.Put(key, value)
}

// Delete deletes a record.
func (t *Txn) Delete(key []byte) {
	t.txn.Success = append(t.txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}})
}

// Commit carries the change out; false: one of the records is another by now, and nothing was done.
func (t *Txn) Commit(ctx context.Context, c Cluster) (bool, error) {
	if t.err != nil {
		return false, t.err
	}
	raw, err := proto.Marshal(&t.txn)
	if err != nil {
		return false, err
	}
	var key []byte // all are in one range
	if len(t.txn.Compare) > 0 {
		key = t.txn.Compare[0].Key
	}
	msg, err := c.Propose(ctx, base.KeyspaceSys, key, &kvpb.Command{Body: &kvpb.Command_Txn{Txn: raw}})
	if err != nil {
		return false, err
	}
	resp, ok := msg.(*pb.TxnResponse)
	if !ok {
		return false, fmt.Errorf("sysrec: a transaction was answered with a %T", msg)
	}
	return resp.Succeeded, nil
}

// Counter is the highest number that was drawn from a counter; below the first if none was.
func Counter(kv *mvccpb.KeyValue, first uint64) (uint64, error) {
	if kv.ModRevision == 0 {
		return first - 1, nil
	}
	if len(kv.Value) != 8 {
		return 0, &base.Corruption{Where: fmt.Sprintf("counter %q", kv.Key), Cause: fmt.Errorf("it has %d bytes", len(kv.Value))}
	}
	return binary.BigEndian.Uint64(kv.Value), nil
}

// PutCounter writes a counter.
func (t *Txn) PutCounter(key []byte, last uint64) {
	t.Put(key, binary.BigEndian.AppendUint64(nil, last))
}

// Draw takes the next number of a counter. One that is drawn and not used is lost, which is no loss.
func Draw(ctx context.Context, c Cluster, key []byte, first uint64) (uint64, error) {
	for {
		kv, err := Get(ctx, c, key)
		if err != nil {
			return 0, err
		}
		last, err := Counter(kv, first)
		if err != nil {
			return 0, err
		}
		var t Txn
		t.At(key, kv.ModRevision)
		t.PutCounter(key, last+1)
		if ok, err := t.Commit(ctx, c); ok || err != nil {
			return last + 1, err
		}
	}
}
