package workloads

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// follow is W6: every other client writes, several keys in one revision too, and now and then somebody compacts; the others watch a key,
// a group, several groups or the whole keyspace, from the past, now or the future, and go on where a watch of theirs ended.
type follow struct {
	none
	prefix string
	values
	newest    int64 // revision that was seen
	compacted int64 // highest that a compaction was asked for
	rotten    int64 // chance of a compaction: one in so many writes
	next      map[int]*followpb.FollowRequest
	cut       bool // the keyspace has many ranges, whose revisions are not each other's
}

// Six groups of six keys: few, so that many events are of one key, and versions before them are of interest.
const (
	followGroups = 6
	followKeys   = 6
)

func newFollow(prefix string, _ int) linearizability.Workload {
	return &follow{prefix: prefix + "w/", rotten: 50, next: map[int]*followpb.FollowRequest{}}
}

func newSpreadFollow(prefix string, _ int) linearizability.Workload {
	return &follow{prefix: prefix + "w/", rotten: 80, next: map[int]*followpb.FollowRequest{}, cut: true}
}

// Next implements linearizability.Workload.
func (w *follow) Next(client int, r *base.Rand) proto.Message {
	if client%2 == 1 {
		return w.watch(client, r)
	}
	return w.write(client, r)
}

func (w *follow) group(i int64) string { return fmt.Sprintf("%s%d/", w.prefix, i) }

func (w *follow) write(client int, r *base.Rand) proto.Message {
	group := w.group(r.Int63n(followGroups))
	key := func(i int64) string { return fmt.Sprintf("%s%d", group, i%followKeys) }
	switch x := r.Int63n(20); {
	case r.Int63n(w.rotten) == 0 && w.newest > 40:
		w.compacted = max(w.compacted, w.newest-1-r.Int63n(30))
		return &pb.CompactionRequest{Revision: w.compacted}
	case x < 9:
		return &pb.PutRequest{Key: []byte(key(r.Int63n(followKeys))), Value: w.values.next(client)}
	case x < 12: // what is deleted is told: it is to be known which events there must be
		return &pb.DeleteRangeRequest{Key: []byte(key(r.Int63n(followKeys))), PrevKv: true}
	case x < 13:
		return &pb.DeleteRangeRequest{Key: []byte(group + "2"), RangeEnd: []byte(group + "5"), PrevKv: true}
	}
	t := &pb.TxnRequest{}
	first := r.Int63n(followKeys)
	for i := range 2 + r.Int63n(followKeys-2) {
		op := put(key(first+i), w.values.next(client))
		if r.Int63n(5) == 0 {
			op = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key(first + i)), PrevKv: true}}}
		}
		t.Success = append(t.Success, op)
	}
	return t
}

// watch goes on where the client's last watch ended or, now and then, begins another.
func (w *follow) watch(client int, r *base.Rand) proto.Message {
	req := w.next[client]
	delete(w.next, client)
	if req == nil || r.Int63n(4) == 0 {
		req = w.another(r)
	}
	req = proto.CloneOf(req)
	req.UntilEvents = []int64{1, 3, 10, 100, 1000, 0}[r.Int63n(6)]
	req.ForMicros = (100*time.Millisecond + time.Duration(r.Int63n(int64(3*time.Second)))).Microseconds()
	req.PauseMicros, req.ProgressMicros = 0, 0
	if r.Int63n(5) == 0 {
		req.PauseMicros = time.Duration(r.Int63n(int64(100 * time.Millisecond))).Microseconds()
	}
	if r.Int63n(3) == 0 {
		req.ProgressMicros = (5*time.Millisecond + time.Duration(r.Int63n(int64(500*time.Millisecond)))).Microseconds()
	}
	return req
}

// another watch: of some span, from some time on, with some of what a watch may ask for.
func (w *follow) another(r *base.Rand) *followpb.FollowRequest {
	req := &followpb.FollowRequest{PrevKv: r.Int63n(2) == 0, ProgressNotify: r.Int63n(4) == 0, Fragment: r.Int63n(3) == 0, Shared: r.Int63n(2) == 0}
	switch x := r.Int63n(8); {
	case x < 2:
		req.Key = fmt.Appendf(nil, "%s%d", w.group(r.Int63n(followGroups)), r.Int63n(followKeys))
	case x < 4:
		group := w.group(r.Int63n(followGroups))
		req.Key, req.RangeEnd = []byte(group), end(group)
	case x < 6:
		first := r.Int63n(followGroups)
		req.Key, req.RangeEnd = []byte(w.group(first)+"3"), []byte(w.group(first+1+r.Int63n(followGroups))+"3")
	case x < 7:
		req.Key, req.RangeEnd = []byte(w.prefix), end(w.prefix)
	default:
		req.Key, req.RangeEnd = []byte{0}, []byte{0}
	}
	switch r.Int63n(10) {
	case 0:
		req.NoPut = true
	case 1:
		req.NoDelete = true
	}
	switch x := r.Int63n(12); {
	case x < 4: // from now on
	case x < 9:
		req.StartRevision = max(1, w.newest-r.Int63n(60))
	case x < 10:
		req.StartRevision = 1 + r.Int63n(w.newest+1)
	case w.newest > 0:
		req.StartRevision = w.newest + 1 + r.Int63n(20)
	}
	return req
}

// Ended implements linearizability.Workload.
func (w *follow) Ended(op *linearizability.Op) {
	if op.Outcome != linearizability.OK {
		return
	}
	resp, ok := op.Response.(*followpb.FollowResponse)
	if !ok {
		if _, of := op.Response.(*pb.CompactionResponse); !of { // in a keyspace of many ranges that is the revision of any of them
			w.newest = max(w.newest, op.Response.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().GetRevision())
		}
		return
	}
	if resp.Next == 0 && resp.Compacted == 0 {
		return
	}
	again := proto.CloneOf(op.Request.(*followpb.FollowRequest))
	again.StartRevision = max(resp.Next, resp.Compacted)
	w.next[op.Client] = again
}

// finalPatience is how long a last watch may take to reach what was written last.
const finalPatience = 20 * time.Second

// Final implements linearizability.Workload: the keyspace as it is, and all that came since the last compaction, as one watch has it.
func (w *follow) Final() []proto.Message {
	last := &followpb.FollowRequest{
		Key: []byte(w.prefix), RangeEnd: end(w.prefix), StartRevision: max(1, w.compacted), PrevKv: true, UntilRevision: w.newest,
		ForMicros: finalPatience.Microseconds(), ProgressMicros: (100 * time.Millisecond).Microseconds(),
	}
	return []proto.Message{all(w.prefix), last}
}

// Checkers implements linearizability.Workload.
func (w *follow) Checkers() []linearizability.Checker {
	if w.cut {
		return append(checkers.Apart(w.prefix, false), checkers.Watches(w.prefix))
	}
	return append(checkers.All(w.prefix), checkers.Watches(w.prefix))
}
