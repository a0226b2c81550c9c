package workloads

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// set is W2: every element is a key of its own, written once.
type set struct {
	none
	prefix string
	rotation
	values
}

func newSet(prefix string, size int) linearizability.Workload {
	if size == 0 {
		size = 200
	}
	return &set{prefix: prefix + "s/", rotation: rotation{prefix: prefix + "s/", per: size}}
}

// Next implements linearizability.Workload.
func (w *set) Next(client int, r *base.Rand) proto.Message {
	g := w.generation() + "."
	switch x := r.Int63n(10); {
	case x < 2:
		return all(g)
	case x < 3:
		req := all(g)
		req.Serializable = true
		return req
	default:
		v := w.next(client)
		return &pb.PutRequest{Key: append([]byte(g), v...), Value: v}
	}
}

// Ended implements linearizability.Workload.
func (w *set) Ended(*linearizability.Op) {}

// Final implements linearizability.Workload.
func (w *set) Final() (out []proto.Message) {
	for g := range w.ops/w.per + 1 {
		out = append(out, all(fmt.Sprintf("%s%d.", w.prefix, g)))
	}
	return out
}

// Checkers implements linearizability.Workload.
func (w *set) Checkers() []linearizability.Checker {
	return append(checkers.All(w.prefix), checkers.Set(w.prefix))
}
