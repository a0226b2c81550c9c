package workloads

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// txns makes transactions over the keys of a group: comparisons of each kind, reads, writes and deletions in both branches,
// and compactions, which must change nothing that is read.
type txns struct {
	none
	prefix string
	rotation
	values
	newest int64 // revision that was seen
}

const keysInGroup = 4

func newTxn(prefix string, size int) linearizability.Workload {
	if size == 0 {
		size = 60
	}
	return &txns{prefix: prefix + "t/", rotation: rotation{prefix: prefix + "t/", per: size}}
}

// Next implements linearizability.Workload.
func (w *txns) Next(client int, r *base.Rand) proto.Message {
	group := w.generation()
	key := func() string { return fmt.Sprintf("%s/%d", group, r.Int63n(keysInGroup)) }
	switch x := r.Int63n(40); {
	case x == 0 && w.newest > 10:
		return &pb.CompactionRequest{Revision: w.newest - 1 - r.Int63n(9)}
	case x < 8:
		return all(group + "/")
	case x < 10:
		return &pb.DeleteRangeRequest{Key: []byte(group + "/1"), RangeEnd: []byte(group + "/3")}
	}
	t := &pb.TxnRequest{Compare: []*pb.Compare{w.compare(key(), r)}}
	for _, branch := range []*[]*pb.RequestOp{&t.Success, &t.Failure} {
		written := map[string]bool{} // a key is written once in a branch: etcd refuses more
		for range 1 + r.Int63n(3) {
			k := key()
			switch y := r.Int63n(5); {
			case y < 2:
				*branch = append(*branch, read(get(k)))
			case written[k]:
			case y == 4:
				written[k] = true
				*branch = append(*branch, del(k))
			default:
				written[k] = true
				*branch = append(*branch, put(k, w.next(client)))
			}
		}
	}
	return t
}

func (w *txns) compare(key string, r *base.Rand) *pb.Compare {
	c := unchanged(key, 0)
	c.Result = []pb.Compare_CompareResult{pb.Compare_EQUAL, pb.Compare_NOT_EQUAL, pb.Compare_GREATER, pb.Compare_LESS}[r.Int63n(4)]
	switch r.Int63n(4) {
	case 0:
		c.Target, c.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: r.Int63n(4)}
	case 1:
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: r.Int63n(w.newest + 1)}
	case 2:
		c.Target, c.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: fmt.Appendf(nil, "c%d-%d", r.Int63n(5), r.Int63n(int64(w.n+1)))}
	default:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: r.Int63n(w.newest + 1)}
	}
	return c
}

// Ended implements linearizability.Workload.
func (w *txns) Ended(op *linearizability.Op) {
	if resp, ok := op.Response.(interface{ GetHeader() *pb.ResponseHeader }); ok && op.Outcome == linearizability.OK {
		w.newest = max(w.newest, resp.GetHeader().GetRevision())
	}
}

// Final implements linearizability.Workload.
func (w *txns) Final() (out []proto.Message) {
	for g := range w.ops/w.per + 1 {
		out = append(out, all(fmt.Sprintf("%s%d/", w.prefix, g)))
	}
	return out
}

// Checkers implements linearizability.Workload.
func (w *txns) Checkers() []linearizability.Checker {
	return append(checkers.All(w.prefix), checkers.Linearizable(w.prefix, false))
}
