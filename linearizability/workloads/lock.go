package workloads

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/linearizability/checkers"
)

// lock is W7: sessions, each with a lease, compete for locks as etcd's concurrency recipes do, by the create revisions of keys under
// their leases. Who holds a lock writes into a register with its fencing token. Sessions keep their leases alive, or are away for too
// long, or forget all and begin anew, or end in order.
type lock struct {
	prefix   string
	cut      bool
	sessions map[int]*session
	leases   []int64 // of all sessions
}

// session is one client's.
type session struct {
	lease   int64
	granted bool
	lock    int64  // which it wants or has
	key     string // of its own in the lock
	token   int64  // its key's create revision; 0: the key is not there
	owner   bool   // it was told so
	asks    bool   // the acquisition was sent, and what became of it is not known
	away    int    // for how many turns it does nothing
	writes  int    // into the register
}

const locks = 2

// lockTTL are the seconds that a lease is asked for; the shortest are what etcd grants at least.
func lockTTL(r *base.Rand) int64 { return 2 + r.Int63n(4) }

func newLock(prefix string, _ int) linearizability.Workload {
	return &lock{prefix: prefix, sessions: map[int]*session{}}
}

func newSpreadLock(prefix string, _ int) linearizability.Workload {
	return &lock{prefix: prefix, sessions: map[int]*session{}, cut: true}
}

func (w *lock) dir(n int64) string      { return fmt.Sprintf("%sl/%d/", w.prefix, n) }
func (w *lock) register(n int64) string { return fmt.Sprintf("%sr/%d/v", w.prefix, n) }

// Setup implements linearizability.Workload: a register has seen no token.
func (w *lock) Setup() (out []proto.Message) {
	for n := range int64(locks) {
		out = append(out, &pb.PutRequest{Key: []byte(w.register(n)), Value: checkers.Fenced(0, 0, 0)})
	}
	return out
}

// Next implements linearizability.Workload.
func (w *lock) Next(client int, r *base.Rand) proto.Message {
	s := w.sessions[client]
	if s == nil {
		s = &session{lease: w.leaseID(r), lock: r.Int63n(locks)}
		s.key = fmt.Sprintf("%s%016x", w.dir(s.lock), s.lease)
		w.sessions[client], w.leases = s, append(w.leases, s.lease)
	}
	switch x := r.Int63n(100); {
	case s.away > 0:
		s.away--
		return nil
	case !s.granted:
		return &pb.LeaseGrantRequest{TTL: lockTTL(r), ID: s.lease}
	case x < 2: // it is gone, and nobody ends its lease
		delete(w.sessions, client)
		return nil
	case x < 4: // a long pause: it does not know what has become of its lease meanwhile
		s.away = 5 + int(r.Int63n(40))
		return nil
	case x < 7:
		delete(w.sessions, client)
		return &pb.LeaseRevokeRequest{ID: s.lease}
	case x < 11:
		return &pb.LeaseTimeToLiveRequest{ID: w.leases[r.Int63n(int64(len(w.leases)))], Keys: r.Int63n(2) == 0}
	case x < 12:
		return &pb.LeaseLeasesRequest{}
	case x < 15:
		return all(w.dir(s.lock))
	case x < 50:
		return &pb.LeaseKeepAliveRequest{ID: s.lease}
	}
	return w.compete(client, s, r)
}

// compete is the session's next step to the lock, or what it does with it.
func (w *lock) compete(client int, s *session, r *base.Rand) proto.Message {
	switch {
	case s.token == 0 || s.asks:
		return w.acquire(s)
	case !s.owner: // who came before it is still there?
		return &pb.RangeRequest{
			Key: []byte(w.dir(s.lock)), RangeEnd: end(w.dir(s.lock)), SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND, Limit: 1,
		}
	case r.Int63n(6) == 0:
		s.token, s.owner = 0, false
		return &pb.DeleteRangeRequest{Key: []byte(s.key), PrevKv: true}
	}
	s.writes++
	value := checkers.Fenced(s.token, client, s.writes)
	key := w.register(s.lock)
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_VALUE, Result: pb.Compare_LESS, TargetUnion: &pb.Compare_Value{Value: value}}},
		Success: []*pb.RequestOp{put(key, value)}, Failure: []*pb.RequestOp{read(get(key))},
	}
}

// acquire is the transaction of concurrency.Mutex: the key is put if it is not there, and who came first is told.
func (w *lock) acquire(s *session) *pb.TxnRequest {
	s.asks = true
	dir := w.dir(s.lock)
	first := read(&pb.RangeRequest{Key: []byte(dir), RangeEnd: end(dir), SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND, Limit: 1})
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(s.key), Value: []byte(s.key), Lease: s.lease}}}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(s.key), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{}}},
		Success: []*pb.RequestOp{put, first}, Failure: []*pb.RequestOp{read(get(s.key)), first},
	}
}

// leaseID draws a lease's id. In a keyspace of many ranges half of them belong where the locks are, as keys go by their bytes.
func (w *lock) leaseID(r *base.Rand) int64 {
	id := r.Uint64()>>1 | 1
	if w.cut && r.Int63n(2) == 0 {
		near := binary.BigEndian.AppendUint64(nil, id)
		copy(near[:4], w.dir(r.Int63n(locks)))
		id = binary.BigEndian.Uint64(near) &^ (1 << 63)
	}
	return int64(id)
}

// Ended implements linearizability.Workload.
func (w *lock) Ended(op *linearizability.Op) {
	s := w.sessions[op.Client]
	if s == nil {
		return
	}
	if op.Outcome != linearizability.OK {
		w.refused(op, s)
		return
	}
	switch resp := op.Response.(type) {
	case *pb.LeaseGrantResponse:
		s.granted = true
	case *pb.LeaseKeepAliveResponse:
		if resp.TTL <= 0 {
			delete(w.sessions, op.Client)
		}
	case *pb.RangeResponse:
		if op.Request.(*pb.RangeRequest).Limit == 1 {
			w.looked(op.Client, s, resp.Kvs)
		}
	case *pb.TxnResponse:
		if s.asks {
			w.acquired(op.Client, s, resp)
		} else if !resp.Succeeded { // the register has seen a larger token: somebody else came after this one
			delete(w.sessions, op.Client)
		}
	}
}

// refused takes note of what had no effect, or of what nothing is known: the lease, most often, is gone.
func (w *lock) refused(op *linearizability.Op, s *session) {
	switch op.Request.(type) {
	case *pb.LeaseGrantRequest:
		delete(w.sessions, op.Client) // another id, lest it was granted
	case *pb.TxnRequest:
		if s.asks && op.Outcome == linearizability.Failed {
			delete(w.sessions, op.Client)
		}
	}
}

func (w *lock) acquired(client int, s *session, resp *pb.TxnResponse) {
	s.asks = false
	if resp.Succeeded {
		s.token = resp.Header.GetRevision()
	} else if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) == 1 {
		s.token = kvs[0].CreateRevision
	}
	w.looked(client, s, resp.Responses[1].GetResponseRange().GetKvs())
}

// looked goes by who came first: this session, another, or nobody, and then its own key is gone, and its lease.
func (w *lock) looked(client int, s *session, first []*mvccpb.KeyValue) {
	if len(first) == 0 || first[0].CreateRevision > s.token {
		delete(w.sessions, client)
		return
	}
	s.owner = string(first[0].Key) == s.key
}

// Final implements linearizability.Workload.
func (w *lock) Final() (out []proto.Message) {
	out = append(out, &pb.LeaseLeasesRequest{})
	for n := range int64(locks) {
		out = append(out, all(w.dir(n)), get(w.register(n)))
	}
	return out
}

// Checkers implements linearizability.Workload.
func (w *lock) Checkers() []linearizability.Checker {
	out := []linearizability.Checker{
		checkers.PhantomWrites(w.prefix), checkers.LostWrites(w.prefix + "r/"), checkers.Linearizable(w.prefix+"r/", true),
		checkers.Fencing(w.prefix+"l/", w.prefix+"r/"), checkers.Leases(w.prefix+"l/", w.cut),
	}
	if w.cut {
		return append(out, checkers.RevisionsApart(w.prefix, false))
	}
	return append(out, checkers.Revisions(w.prefix))
}
