package workloads

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// monotonic is W5: counters that are raised by compare-and-set, and read alone and together.
type monotonic struct {
	none
	prefix string
	rotation
	values
	seen map[int]*pb.RangeResponse
	of   map[int]string
}

const counters = 3

func newMonotonic(prefix string, size int) linearizability.Workload {
	if size == 0 {
		size = 80
	}
	return &monotonic{prefix: prefix + "m/", rotation: rotation{prefix: prefix + "m/", per: size}, seen: map[int]*pb.RangeResponse{}, of: map[int]string{}}
}

// Next implements linearizability.Workload.
func (w *monotonic) Next(client int, r *base.Rand) proto.Message {
	group := w.generation()
	seen := w.seen[client]
	delete(w.seen, client)
	if seen == nil || r.Int63n(3) == 0 {
		if r.Int63n(3) == 0 {
			return all(group + "/")
		}
		return get(fmt.Sprintf("%s/%d", group, r.Int63n(counters)))
	}
	key, count, mod := w.of[client], 0, int64(0)
	if len(seen.Kvs) > 0 {
		count, _ = checkers.Balance(seen.Kvs[0].Value)
		mod = seen.Kvs[0].ModRevision
	}
	w.n++
	value := []byte(strconv.Itoa(count+1) + "#" + strconv.Itoa(w.n))
	return &pb.TxnRequest{Compare: []*pb.Compare{unchanged(key, mod)}, Success: []*pb.RequestOp{put(key, value)}, Failure: []*pb.RequestOp{read(get(key))}}
}

// Ended implements linearizability.Workload.
func (w *monotonic) Ended(op *linearizability.Op) {
	if req, ok := op.Request.(*pb.RangeRequest); ok && op.Outcome == linearizability.OK && len(req.RangeEnd) == 0 {
		w.seen[op.Client], w.of[op.Client] = op.Response.(*pb.RangeResponse), string(req.Key)
	}
}

// Final implements linearizability.Workload.
func (w *monotonic) Final() (out []proto.Message) {
	for g := range w.ops/w.per + 1 {
		out = append(out, all(fmt.Sprintf("%s%d/", w.prefix, g)))
	}
	return out
}

// Checkers implements linearizability.Workload.
func (w *monotonic) Checkers() []linearizability.Checker {
	return append(checkers.All(w.prefix), checkers.Linearizable(w.prefix, false), checkers.Monotonic(w.prefix))
}
