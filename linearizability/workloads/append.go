package workloads

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// appends is W3: each key holds a list. A client reads the lists of a group, then appends an element to some of them in one
// transaction, if none of those that it read has changed.
type appends struct {
	none
	prefix string
	rotation
	values
	groups int // at once; above 1: they may lie in different ranges
	read   map[int]*pb.RangeResponse
	of     map[int]string // the group that was read
}

// listsInGroup is how many lists a transaction chooses from.
const listsInGroup = 3

func newAppend(prefix string, size int) linearizability.Workload { return newAppends(prefix, size, 1) }

// newSpreadAppend appends to lists of several groups, each of which is to be in one range.
func newSpreadAppend(prefix string, size int) linearizability.Workload {
	return newAppends(prefix, size, spreadGroups)
}

// spreadGroups are the groups of a workload that is spread over ranges: more than clients that usually share them, so that they
// meet in some, and few enough that they do.
const spreadGroups = 6

func newAppends(prefix string, size, groups int) *appends {
	if size == 0 {
		size = 60
	}
	return &appends{
		prefix: prefix + "a/", rotation: rotation{prefix: prefix + "a/", per: size * groups}, groups: groups,
		read: map[int]*pb.RangeResponse{}, of: map[int]string{},
	}
}

// group draws one of those in use.
func (w *appends) group(r *base.Rand) string {
	if w.groups == 1 {
		return w.generation()
	}
	return fmt.Sprintf("%s.%d", w.generation(), r.Int63n(int64(w.groups)))
}

// Next implements linearizability.Workload.
func (w *appends) Next(client int, r *base.Rand) proto.Message {
	group := w.group(r)
	seen := w.read[client]
	delete(w.read, client)
	if seen == nil || w.groups == 1 && w.of[client] != group {
		return all(group + "/")
	}
	group = w.of[client] // of several it may be one that others have left: then it is appended to once more
	mods, values := map[string]int64{}, map[string][]byte{}
	for _, kv := range seen.Kvs {
		mods[string(kv.Key)], values[string(kv.Key)] = kv.ModRevision, kv.Value
	}
	t := &pb.TxnRequest{Failure: []*pb.RequestOp{read(all(group + "/"))}}
	element := w.next(client)
	for i := range listsInGroup {
		key := fmt.Sprintf("%s/%d", group, i)
		if i == 0 || r.Int63n(2) == 0 { // compared, whether or not it is written: what was read must hold
			t.Compare = append(t.Compare, unchanged(key, mods[key]))
			if i == 0 || r.Int63n(2) == 0 {
				t.Success = append(t.Success, put(key, append(append(append([]byte{}, values[key]...), ' '), element...)))
			}
		}
	}
	return t
}

// Ended implements linearizability.Workload.
func (w *appends) Ended(op *linearizability.Op) {
	if op.Outcome != linearizability.OK {
		return
	}
	switch req := op.Request.(type) {
	case *pb.RangeRequest:
		w.read[op.Client], w.of[op.Client] = op.Response.(*pb.RangeResponse), string(req.Key[:len(req.Key)-1])
	case *pb.TxnRequest:
		if resp := op.Response.(*pb.TxnResponse); !resp.Succeeded { // it read them again
			key := req.Failure[0].GetRequestRange().Key
			w.read[op.Client], w.of[op.Client] = resp.Responses[0].GetResponseRange(), string(key[:len(key)-1])
		}
	}
}

// Final implements linearizability.Workload.
func (w *appends) Final() (out []proto.Message) {
	for g := range w.ops/w.per + 1 {
		if w.groups == 1 {
			out = append(out, all(fmt.Sprintf("%s%d/", w.prefix, g)))
			continue
		}
		for i := range w.groups {
			out = append(out, all(fmt.Sprintf("%s%d.%d/", w.prefix, g, i)))
		}
	}
	return out
}

// Checkers implements linearizability.Workload.
func (w *appends) Checkers() []linearizability.Checker {
	all := checkers.All(w.prefix)
	if w.groups > 1 {
		all = checkers.Apart(w.prefix, false)
	}
	return append(all, checkers.Linearizable(w.prefix, false), checkers.Lists(w.prefix), checkers.Cycles(w.prefix))
}
