package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/operation"
	"github.com/cairndb/cairn/node/join"
	"github.com/cairndb/cairn/node/sysrec"
)

// operationCounter is written with each operation that begins: of two that begin at once one looks again.
const operationCounter = "counter/op"

// Operations reads all operations, in the order of their ids.
func Operations(ctx context.Context, c sysrec.Cluster) ([]*metapb.Operation, error) {
	start, end := sysrec.OperationSpan()
	kvs, err := sysrec.List(ctx, c, start, end)
	if err != nil {
		return nil, err
	}
	return decodeAll(kvs, func() *metapb.Operation { return &metapb.Operation{} })
}

// Policies reads all policies that somebody set, in the order of their keyspaces.
func Policies(ctx context.Context, c sysrec.Cluster) ([]*metapb.PolicyRecord, error) {
	start, end := sysrec.PolicySpan()
	kvs, err := sysrec.List(ctx, c, start, end)
	if err != nil {
		return nil, err
	}
	return decodeAll(kvs, func() *metapb.PolicyRecord { return &metapb.PolicyRecord{} })
}

func decodeAll[T proto.Message](kvs []*mvccpb.KeyValue, empty func() T) ([]T, error) {
	out := make([]T, len(kvs))
	for i, kv := range kvs {
		out[i] = empty()
		if err := sysrec.Decode(kv, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// records are what a change of operations rests on, each with the revision that it was read at.
type records struct {
	last     uint64 // the highest id of an operation
	counter  int64  // the counter's revision
	ops      []*metapb.Operation
	nodes    []*metapb.NodeRecord
	revision map[string]int64 // by key
	nodeKeys map[uint64][]byte
}

func (m *Manager) read(ctx context.Context) (*records, error) {
	c := m.cfg.Cluster
	counter, err := sysrec.Get(ctx, c, []byte(operationCounter)) // first: what began since makes it another
	if err != nil {
		return nil, err
	}
	r := &records{counter: counter.ModRevision, revision: make(map[string]int64), nodeKeys: make(map[uint64][]byte)}
	if r.last, err = sysrec.Counter(counter, 1); err != nil {
		return nil, err
	}
	list := func(start, end []byte) ([]*mvccpb.KeyValue, error) {
		kvs, err := sysrec.List(ctx, c, start, end)
		for _, kv := range kvs {
			r.revision[string(kv.Key)] = kv.ModRevision
		}
		return kvs, err
	}
	kvs, err := list(sysrec.OperationSpan())
	if err == nil {
		r.ops, err = decodeAll(kvs, func() *metapb.Operation { return &metapb.Operation{} })
	}
	if err != nil {
		return nil, err
	}
	if kvs, err = list(join.RecordSpan()); err == nil {
		r.nodes, err = decodeAll(kvs, func() *metapb.NodeRecord { return &metapb.NodeRecord{} })
	}
	if err != nil {
		return nil, err
	}
	for i, n := range r.nodes {
		r.nodeKeys[n.NodeId] = kvs[i].Key
	}
	return r, nil
}

// put adds a change to a transaction, each record at the revision that it was read at.
func (r *records) put(t *sysrec.Txn, c operation.Change) {
	if c.Op != nil {
		key := sysrec.OperationKey(c.Op.OpId)
		t.At(key, r.revision[string(key)])
		t.PutMessage(key, c.Op)
	}
	for _, n := range c.Nodes {
		key := r.nodeKeys[n.NodeId]
		t.At(key, r.revision[string(key)])
		t.PutMessage(key, n)
	}
}

func (r *records) operation(id uint64) (*metapb.Operation, error) {
	for _, op := range r.ops {
		if op.OpId == id {
			return op, nil
		}
	}
	return nil, noOperation(id)
}

func noOperation(id uint64) error {
	return &base.Refused{For: base.RefusedUnknown, Reason: fmt.Sprintf("there is no operation %d", id), Instead: "see cairn op ls --all"}
}

func (r *records) node(id uint64) (*metapb.NodeRecord, error) {
	var there []uint64
	for _, n := range r.nodes {
		if n.NodeId == id {
			return n, nil
		}
		there = append(there, n.NodeId)
	}
	return nil, &base.Refused{For: base.RefusedUnknown, Reason: fmt.Sprintf("there is no node %s", base.NodeID(id)), Instead: "there are " + operation.Names(there)}
}

// prune deletes the oldest operations that have ended, so that not more than base.OperationsKept of them are left.
func (r *records) prune(t *sysrec.Txn) {
	ended := slices.DeleteFunc(slices.Clone(r.ops), active)
	slices.SortFunc(ended, func(a, b *metapb.Operation) int { return cmp.Compare(a.OpId, b.OpId) })
	for i := 0; i < len(ended)-base.OperationsKept && i < 2; i++ { // one comes, at most two go
		key := sysrec.OperationKey(ended[i].OpId)
		t.At(key, r.revision[string(key)])
		t.Delete(key)
	}
}

func active(op *metapb.Operation) bool { return operation.Active(op) }

// change reads the records, lets decide say what is to be written, and writes it if nothing that it rests on is another by now;
// otherwise it begins again. decide finds what an earlier try may have written: so an outcome that is not known is settled by the next
// try. An empty transaction is not sent.
func (m *Manager) change(ctx context.Context, decide func(*records, *sysrec.Txn) (write bool, err error)) error {
	for range base.OperationTries {
		r, err := m.read(ctx)
		if err != nil {
			return err
		}
		var t sysrec.Txn
		write, err := decide(r, &t)
		if err != nil || !write {
			return err
		}
		done, err := t.Commit(ctx, m.cfg.Cluster)
		var ambiguous *base.Ambiguous
		switch {
		case err == nil && done:
			return nil
		case err != nil && (!errors.As(err, &ambiguous) || ctx.Err() != nil):
			return err
		}
	}
	return &base.Throttled{What: "changes of operations", RetryAfter: base.OperationLook}
}
