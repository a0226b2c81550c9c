package workloads

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// snapshots is W7: keys that may lie in many ranges are written one by one, and read together: all, a span of them, by pages, and
// once more at a revision that was read before.
type snapshots struct {
	none
	prefix string
	keys   int
	values
	last map[int]*linearizability.Op // the last thing that each client read, to be followed up
}

// pageOfKeys is how many keys a page has.
const pageOfKeys = 3

func newSnapshot(prefix string, size int) linearizability.Workload {
	if size == 0 {
		size = 10
	}
	return &snapshots{prefix: prefix + "n/", keys: size, last: map[int]*linearizability.Op{}}
}

func (w *snapshots) key(i int64) string { return fmt.Sprintf("%s%03d", w.prefix, i) }

// Next implements linearizability.Workload.
func (w *snapshots) Next(client int, r *base.Rand) proto.Message {
	seen := w.last[client]
	delete(w.last, client)
	if seen != nil && r.Int63n(2) > 0 {
		if req := w.follow(client, seen, r); req != nil {
			return req
		}
	}
	key := w.key(r.Int63n(int64(w.keys)))
	switch x := r.Int63n(20); {
	case x < 8:
		return &pb.PutRequest{Key: []byte(key), Value: w.next(client)}
	case x < 10:
		return get(key)
	case x < 15:
		return all(w.prefix)
	case x < 17:
		req := all(w.prefix)
		req.Limit = pageOfKeys
		return req
	default:
		return &pb.RangeRequest{Key: []byte(key), RangeEnd: end(w.key(r.Int63n(int64(w.keys))))}
	}
}

// follow makes a request of what a client has read: the next page, the same again, or a write if what was read is still there.
func (w *snapshots) follow(client int, seen *linearizability.Op, r *base.Rand) proto.Message {
	req, resp := seen.Request.(*pb.RangeRequest), seen.Response.(*pb.RangeResponse)
	at := req.Revision
	if at == 0 {
		at = resp.Header.Revision
	}
	switch {
	case len(req.RangeEnd) == 0:
		mod := int64(0)
		if len(resp.Kvs) > 0 {
			mod = resp.Kvs[0].ModRevision
		}
		key := string(req.Key)
		return &pb.TxnRequest{Compare: []*pb.Compare{unchanged(key, mod)}, Success: []*pb.RequestOp{put(key, w.next(client))}, Failure: []*pb.RequestOp{read(get(key))}}
	case resp.More:
		next := proto.CloneOf(req)
		next.Revision, next.Key = at, append(bytes.Clone(resp.Kvs[len(resp.Kvs)-1].Key), 0)
		return next
	case req.Revision == 0 && r.Int63n(2) == 0:
		again := proto.CloneOf(req)
		again.Revision, again.Limit = at, 0
		return again
	}
	return nil
}

// Ended implements linearizability.Workload.
func (w *snapshots) Ended(op *linearizability.Op) {
	if _, ok := op.Request.(*pb.RangeRequest); ok && op.Outcome == linearizability.OK {
		w.last[op.Client] = op
	}
}

// Final implements linearizability.Workload.
func (w *snapshots) Final() []proto.Message {
	out := []proto.Message{all(w.prefix)}
	for i := range w.keys {
		out = append(out, get(w.key(int64(i))))
	}
	return out
}

// Checkers implements linearizability.Workload.
func (w *snapshots) Checkers() []linearizability.Checker {
	return []linearizability.Checker{checkers.PhantomWrites(w.prefix), checkers.LostWrites(w.prefix), checkers.Snapshots(w.prefix)}
}
