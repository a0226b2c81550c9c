package workloads

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// register is W1: few keys, each on its own.
type register struct {
	none
	prefix string
	keys   int
	rotation
	values
	last  map[int]*pb.RangeResponse // what each client read last, to be compared and set
	of    map[int]string            // and of which key
	apart bool                      // keys have only their own revisions in common
}

// newSpread makes a register whose keys may lie in different ranges.
func newSpread(prefix string, size int) linearizability.Workload {
	w := newRegister(prefix, size).(*register)
	w.apart = true
	return w
}

func newRegister(prefix string, size int) linearizability.Workload {
	if size == 0 {
		size = 4
	}
	return &register{
		prefix: prefix + "r/", keys: size, rotation: rotation{prefix: prefix + "r/", per: size * 100},
		last: map[int]*pb.RangeResponse{}, of: map[int]string{},
	}
}

// Next implements linearizability.Workload.
func (w *register) Next(client int, r *base.Rand) proto.Message {
	key := fmt.Sprintf("%s.%d", w.generation(), r.Int63n(int64(w.keys)))
	seen := w.last[client]
	delete(w.last, client)
	if seen != nil && r.Int63n(2) == 0 {
		return w.compareAndSet(client, w.of[client], seen, r)
	}
	switch x := r.Int63n(10); {
	case x < 5:
		req := get(key)
		req.Serializable = r.Int63n(12) == 0
		return req
	case x < 9:
		return &pb.PutRequest{Key: []byte(key), Value: w.next(client)}
	default:
		return &pb.DeleteRangeRequest{Key: []byte(key)}
	}
}

// compareAndSet sets a key if it still is what was read, by its value or by its revision; else it reads it again.
func (w *register) compareAndSet(client int, key string, seen *pb.RangeResponse, r *base.Rand) proto.Message {
	c := unchanged(key, 0)
	if len(seen.Kvs) > 0 {
		c = unchanged(key, seen.Kvs[0].ModRevision)
		if r.Int63n(2) == 0 {
			c.Target, c.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: seen.Kvs[0].Value}
		}
	}
	return &pb.TxnRequest{Compare: []*pb.Compare{c}, Success: []*pb.RequestOp{put(key, w.next(client))}, Failure: []*pb.RequestOp{read(get(key))}}
}

// Ended implements linearizability.Workload.
func (w *register) Ended(op *linearizability.Op) {
	if req, ok := op.Request.(*pb.RangeRequest); ok && op.Outcome == linearizability.OK {
		w.last[op.Client], w.of[op.Client] = op.Response.(*pb.RangeResponse), string(req.Key)
	}
}

// Final implements linearizability.Workload: each key on its own, for porcupine.
func (w *register) Final() (out []proto.Message) {
	for g := range w.ops/w.per + 1 {
		for k := range w.keys {
			out = append(out, get(fmt.Sprintf("%s%d.%d", w.prefix, g, k)))
		}
	}
	return out
}

// Checkers implements linearizability.Workload.
func (w *register) Checkers() []linearizability.Checker {
	if w.apart {
		return append(checkers.Apart(w.prefix, true), checkers.Linearizable(w.prefix, true))
	}
	return append(checkers.All(w.prefix), checkers.Linearizable(w.prefix, true))
}
