package workloads

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// eventful is a store with watches and leases, that does all of it right.
type eventful struct {
	*store
	r         *base.Rand
	now       time.Duration
	events    []*mvccpb.Event // of all revisions, with the versions before
	compacted int64
	leases    map[int64]*storeLease
}

type storeLease struct {
	ttl int64
	end time.Duration
}

func newEventful(seed uint64) *eventful {
	return &eventful{store: &store{rev: 1, keys: map[string]*mvccpb.KeyValue{}, old: map[int64]map[string]*mvccpb.KeyValue{}}, r: base.NewRand(seed), leases: map[int64]*storeLease{}}
}

// stepTime is how long a step takes in the mean.
const stepTime = 15 * time.Millisecond

// change carries something out and takes note of the events that come of it.
func (s *eventful) change(do func() proto.Message) proto.Message {
	before := maps.Clone(s.keys)
	out := do()
	var came []*mvccpb.Event
	for k, kv := range s.keys {
		if before[k] != kv {
			came = append(came, &mvccpb.Event{Kv: kv, PrevKv: before[k]})
		}
	}
	for k, kv := range before {
		if s.keys[k] == nil {
			came = append(came, &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(k), ModRevision: s.rev}, PrevKv: kv})
		}
	}
	slices.SortFunc(came, func(a, b *mvccpb.Event) int { return slices.Compare(a.Kv.Key, b.Kv.Key) })
	s.events = append(s.events, came...)
	return out
}

// do carries out a request other than a watch; nil with what a client is told if it is refused.
func (s *eventful) do(req proto.Message) (proto.Message, string) {
	for _, id := range slices.Sorted(maps.Keys(s.leases)) {
		if s.leases[id].end < s.now {
			s.endLease(id)
		}
	}
	switch r := req.(type) {
	case *pb.CompactionRequest:
		s.compacted = max(s.compacted, r.Revision)
	case *pb.LeaseGrantRequest:
		s.leases[r.ID] = &storeLease{r.TTL, s.now + time.Duration(r.TTL)*time.Second}
		return &pb.LeaseGrantResponse{Header: s.header(), ID: r.ID, TTL: r.TTL}, ""
	case *pb.LeaseKeepAliveRequest:
		resp := &pb.LeaseKeepAliveResponse{Header: s.header(), ID: r.ID}
		if l := s.leases[r.ID]; l != nil {
			l.end, resp.TTL = s.now+time.Duration(l.ttl)*time.Second, l.ttl
		}
		return resp, ""
	case *pb.LeaseRevokeRequest:
		if s.leases[r.ID] == nil {
			return nil, "etcdserver: requested lease not found"
		}
		s.endLease(r.ID)
		return &pb.LeaseRevokeResponse{Header: s.header()}, ""
	case *pb.LeaseTimeToLiveRequest:
		resp := &pb.LeaseTimeToLiveResponse{Header: s.header(), ID: r.ID, TTL: -1}
		if l := s.leases[r.ID]; l != nil {
			resp.TTL, resp.GrantedTTL = int64((l.end-s.now)/time.Second), l.ttl
		}
		return resp, ""
	case *pb.LeaseLeasesRequest:
		return &pb.LeaseLeasesResponse{Header: s.header()}, ""
	case *pb.TxnRequest:
		for _, o := range r.Success {
			if p := o.GetRequestPut(); p != nil && p.Lease != 0 && s.leases[p.Lease] == nil {
				return nil, "etcdserver: requested lease not found"
			}
		}
	}
	return s.change(func() proto.Message { return s.store.do(req) }), ""
}

func (s *eventful) endLease(id int64) {
	delete(s.leases, id)
	s.change(func() proto.Message {
		s.rev++
		for k, kv := range s.keys {
			if kv.Lease == id {
				delete(s.keys, k)
			}
		}
		return nil
	})
}

// following is a watch under way.
type following struct {
	*linearizability.Follower
	req  *followpb.FollowRequest
	next int64
}

func (s *eventful) follow(req *followpb.FollowRequest) *following {
	f := &following{linearizability.NewFollower(req.StartRevision), req, req.StartRevision}
	f.Created(s.now, s.rev)
	if f.next == 0 {
		f.next = s.rev + 1
	}
	return f
}

// go sends what has come since, some of it; false when the watch has ended.
func (s *eventful) goOn(f *following, all bool) bool {
	if f.next < s.compacted {
		f.Compacted(s.now, s.compacted, "compacted")
		return false
	}
	upTo := s.rev
	if !all && f.next < s.rev {
		upTo = f.next + s.r.Int63n(s.rev-f.next+1)
	}
	var out []*mvccpb.Event
	i, _ := slices.BinarySearchFunc(s.events, f.next, func(e *mvccpb.Event, rev int64) int { return cmp.Compare(e.Kv.ModRevision, rev) })
	for _, e := range s.events[i:] {
		if e.Kv.ModRevision > upTo {
			break
		}
		deleted := e.Type == mvccpb.Event_DELETE
		if !in(string(e.Kv.Key), f.req.Key, f.req.RangeEnd) || deleted && f.req.NoDelete || !deleted && f.req.NoPut {
			continue
		}
		e = proto.CloneOf(e)
		if !f.req.PrevKv || e.Kv.ModRevision <= s.compacted {
			e.PrevKv = nil
		}
		out = append(out, e)
	}
	if n := len(out); n > 1 && f.req.Fragment && s.r.Int63n(2) == 0 {
		f.Events(s.now, s.rev, out[:1], true)
		out = out[1:]
	}
	if len(out) > 0 {
		f.Events(s.now, s.rev, out, false)
	}
	f.next = max(f.next, upTo+1)
	if s.r.Int63n(5) == 0 || all {
		f.Progress(s.now, f.next-1)
	}
	return !f.Reached(f.req)
}

// playEventful is play, with watches and leases; without what is lost on the way.
func playEventful(w linearizability.Workload, seed uint64, clients, ops int) *linearizability.History {
	s, r := newEventful(seed), base.NewRand(seed+1000)
	h := &linearizability.History{Clock: func() time.Duration { return s.now }}
	end := func(op *linearizability.Op, m proto.Message, refused string) {
		if refused != "" {
			h.Return(op, linearizability.Failed, nil, refused)
		} else {
			h.Return(op, linearizability.OK, m, "")
		}
		w.Ended(op)
	}
	for _, req := range w.Setup() {
		op := h.Invoke(clients, 4, req)
		m, refused := s.do(req)
		end(op, m, refused)
	}
	open, done, refusals, follows := make([]*linearizability.Op, clients), make([]proto.Message, clients), make([]string, clients), make([]*following, clients)
	for range ops * 3 {
		s.now += time.Duration(r.Int63n(int64(2 * stepTime)))
		c := int(r.Int63n(int64(clients)))
		op := open[c]
		switch {
		case op == nil:
			if req := w.Next(c, r); req != nil {
				open[c] = h.Invoke(c, 4, req)
			}
		case follows[c] != nil:
			if s.goOn(follows[c], false) && s.now-op.Began < time.Duration(follows[c].req.ForMicros)*time.Microsecond {
				continue
			}
			done[c], follows[c] = follows[c].Response(), nil
		case done[c] == nil && refusals[c] == "":
			if req, ok := op.Request.(*followpb.FollowRequest); ok {
				follows[c] = s.follow(req)
			} else {
				done[c], refusals[c] = s.do(op.Request)
			}
		default:
			end(op, done[c], refusals[c])
			open[c], done[c], refusals[c] = nil, nil, ""
		}
	}
	for c, op := range open {
		switch {
		case op == nil:
		case follows[c] != nil:
			end(op, follows[c].Response(), "")
		case done[c] != nil || refusals[c] != "":
			end(op, done[c], refusals[c])
		default:
			end(op, nil, "never sent")
		}
	}
	s.now += time.Hour // leases end
	for _, req := range w.Final() {
		op := h.Invoke(clients, 4, req)
		op.Final = true
		if f, ok := req.(*followpb.FollowRequest); ok {
			x := s.follow(f)
			s.goOn(x, true)
			h.Return(op, linearizability.OK, x.Response(), "")
			continue
		}
		m, _ := s.do(req)
		h.Return(op, linearizability.OK, m, "")
	}
	return h
}

// countOps counts a history's answers by type, for tests that want much to have happened.
func countOps(h *linearizability.History) map[string]int {
	out := map[string]int{}
	for _, op := range h.Ops {
		out[fmt.Sprintf("%T %s", op.Request, op.Outcome)]++
		if resp, ok := op.Response.(*followpb.FollowResponse); ok {
			out["events"] += int(resp.Events)
			if resp.Compacted > 0 {
				out["compacted"]++
			}
		}
	}
	return out
}
