package workloads

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// Watches and sessions meet much, and nobody complains of what is right.
func TestFollowersAndSessions(t *testing.T) {
	for _, k := range Kinds() {
		if !k.Follows && !k.Leases {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			all := map[string]int{}
			for seed := range uint64(30) {
				w := k.New("p/", 0)
				h := playEventful(w, seed, 6, 1500)
				for _, v := range complaints(w, h) {
					t.Fatalf("seed %d: %s: %s", seed, v.Checker, v.What)
				}
				for what, n := range countOps(h) {
					all[what] += n
				}
			}
			t.Log(all)
			if k.Follows && (all["events"] < 10_000 || all["compacted"] < 10) {
				t.Errorf("too little happened: %v", all)
			}
			if k.Leases && (all["*etcdserverpb.TxnRequest failed"] < 5 || all["*etcdserverpb.LeaseKeepAliveRequest ok"] < 1000 || all["*etcdserverpb.TxnRequest ok"] < 1000) {
				t.Errorf("too little happened: %v", all)
			}
		})
	}
}

// spoiled is a watch's messages, of which one is spoiled, as a log again; nil: there is nothing to spoil in that way.
func spoiled(op *linearizability.Op, way string, r *base.Rand) *followpb.FollowResponse {
	resp, ok := op.Response.(*followpb.FollowResponse)
	req, isFollow := op.Request.(*followpb.FollowRequest)
	if !ok || !isFollow {
		return nil
	}
	msgs, err := linearizability.FollowMessages(resp)
	if err != nil || !spoil(req, &msgs, way, r) {
		return nil
	}
	f := linearizability.NewFollower(req.StartRevision)
	for _, m := range msgs {
		switch m.Kind {
		case linearizability.Created:
			f.Created(m.At, m.Revision)
		case linearizability.Progress:
			f.Progress(m.At, m.Revision)
		case linearizability.Compacted:
			f.Compacted(m.At, m.Revision, "")
		default:
			var events []*mvccpb.Event
			for _, e := range m.Events {
				out := &mvccpb.Event{Kv: kvOf(e.Key, &e.FollowVersion)}
				if e.Deleted {
					out.Type = mvccpb.Event_DELETE
				}
				if e.Prev != nil {
					out.PrevKv = kvOf(e.Key, e.Prev)
				}
				events = append(events, out)
			}
			f.Events(m.At, m.Revision, events, m.Fragment)
		}
	}
	return f.Response()
}

func kvOf(key string, v *linearizability.FollowVersion) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte(key), Value: []byte(v.Value), ModRevision: v.Revision, CreateRevision: v.Create, Version: v.Version, Lease: v.Lease}
}

// spoil spoils what a watch got in one way.
func spoil(req *followpb.FollowRequest, msgs *[]linearizability.FollowMessage, way string, r *base.Rand) bool {
	var at []int // messages with two events of different revisions at least, whole
	for i, m := range *msgs {
		if n := len(m.Events); n > 1 && !m.Fragment && m.Events[0].Revision != m.Events[n-1].Revision && (i == 0 || !(*msgs)[i-1].Fragment) {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return false
	}
	i := at[r.Int63n(int64(len(at)))]
	m := &(*msgs)[i]
	n := len(m.Events)
	j := int(r.Int63n(int64(n - 1))) // not the last: what is missing at the end may come later
	e := &m.Events[j]
	switch way {
	case "gap":
		m.Events = slices.Delete(m.Events, j, j+1)
	case "double":
		again := linearizability.FollowMessage{Kind: m.Kind, At: m.At, Revision: m.Revision, Events: []linearizability.FollowEvent{m.Events[n-1]}}
		*msgs = slices.Insert(*msgs, i+1, again)
	case "order":
		m.Events[0], m.Events[n-1] = m.Events[n-1], m.Events[0]
	case "cut": // a revision in two responses
		k := slices.IndexFunc(m.Events[1:], func(e linearizability.FollowEvent) bool { return e.Revision == m.Events[0].Revision })
		if k != 0 {
			return false
		}
		rest := *m
		rest.Events = m.Events[1:]
		m.Events = m.Events[:1:1]
		*msgs = slices.Insert(*msgs, i+1, rest)
	case "progress":
		early := linearizability.FollowMessage{Kind: linearizability.Progress, At: m.At, Revision: m.Events[0].Revision}
		*msgs = slices.Insert(*msgs, i, early)
	case "last progress":
		if len(*msgs) != i+1 || !slices.ContainsFunc(m.Events, func(e linearizability.FollowEvent) bool { return e.Revision == m.Events[n-1].Revision-1 }) {
			return false
		}
		told := m.Events[n-1].Revision
		m.Events = slices.DeleteFunc(m.Events, func(e linearizability.FollowEvent) bool { return e.Revision == told })
		*msgs = append(*msgs, linearizability.FollowMessage{Kind: linearizability.Progress, At: m.At, Revision: told})
	case "prev":
		if e.Prev == nil {
			return false
		}
		e.Prev = nil
	case "older prev":
		if e.Prev == nil {
			return false
		}
		e.Prev.Revision--
	case "value":
		if e.Deleted {
			return false
		}
		e.Value += "x"
	case "filter":
		if e.Deleted {
			return false
		}
		req.NoPut = true
	case "span":
		if len(req.RangeEnd) == 0 {
			return false
		}
		req.RangeEnd = []byte(e.Key)
	case "resume":
		if req.StartRevision == 0 {
			return false
		}
		req.StartRevision = m.Events[n-1].Revision
	case "compacted":
		*msgs = append((*msgs)[:i+1:i+1], linearizability.FollowMessage{Kind: linearizability.Compacted, At: m.At, Revision: 1 << 40})
	case "header":
		m.Revision = m.Events[n-1].Revision - 1
	}
	return true
}

// Each way of being wrong is found, in whichever watch.
func TestSpoiledWatches(t *testing.T) {
	ways := map[string][]string{ // what is complained of
		"gap": {"not reliable", "prev_kv", "progress too early"}, "double": {"not unique"}, "order": {"not ordered"}, "cut": {"not atomic"}, "progress": {"progress too early"},
		"last progress": {"progress too early"}, "prev": {"prev_kv"}, "older prev": {"prev_kv", "a watch got"}, "value": {"wrong", "a watch got"},
		"filter": {"not filtered"}, "span": {"not of its span"}, "resume": {"not resumable"}, "compacted": {"not compacted"}, "header": {"header behind"},
	}
	for way, want := range ways {
		t.Run(way, func(t *testing.T) {
			kind, _ := Named("watch")
			tried := 0
			for seed := range uint64(12) {
				w := kind.New("p/", 0)
				h, r := playEventful(w, seed, 6, 900), base.NewRand(seed)
				var resp *followpb.FollowResponse
				for range 400 {
					op := h.Ops[r.Int63n(int64(len(h.Ops)))]
					was := op.Request
					op.Request = proto.Clone(was)
					if resp = spoiled(op, way, r); resp != nil {
						op.Response = resp
						break
					}
					op.Request = was
				}
				if resp == nil {
					continue
				}
				tried++
				found := complaints(w, h)
				if !slices.ContainsFunc(found, func(v linearizability.Violation) bool {
					return slices.ContainsFunc(want, func(s string) bool { return strings.HasPrefix(v.What, s) })
				}) {
					t.Errorf("seed %d: nobody complains of %v: %v", seed, want, found)
				}
			}
			if tried < 5 {
				t.Errorf("tried in %d histories", tried)
			}
		})
	}
}

// A lease that ends early, one that comes back, a key that outlives it, a register that takes what is old, and who comes first going
// back: each is found in a history that is right otherwise.
func TestSpoiledSessions(t *testing.T) {
	ways := map[string]func(h *linearizability.History, op *linearizability.Op) bool{
		"ended by": func(_ *linearizability.History, op *linearizability.Op) bool { // a keep-alive is told that it has ended
			resp, ok := op.Response.(*pb.LeaseKeepAliveResponse)
			if ok = ok && resp.TTL > 0; ok {
				op.Response = &pb.LeaseKeepAliveResponse{ID: resp.ID}
			}
			return ok
		},
		"lives, and had ended": func(h *linearizability.History, op *linearizability.Op) bool {
			resp, ok := op.Response.(*pb.LeaseKeepAliveResponse)
			if ok = ok && resp.TTL == 0; ok {
				again := h.Invoke(9, 4, op.Request)
				h.Return(again, linearizability.OK, &pb.LeaseKeepAliveResponse{ID: resp.ID, TTL: 2}, "")
			}
			return ok
		},
		"outlives lease": func(h *linearizability.History, op *linearizability.Op) bool {
			req, ok := op.Request.(*pb.LeaseRevokeRequest)
			if ok = ok && op.Outcome == linearizability.OK; ok {
				dir := "p/l/0/"
				again := h.Invoke(9, 4, all(dir))
				h.Return(again, linearizability.OK, &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Key: []byte(dir + "x"), ModRevision: 1 << 40, CreateRevision: 1 << 40, Lease: req.ID}}}, "")
			}
			return ok
		},
		"after one with": func(h *linearizability.History, op *linearizability.Op) bool {
			req, ok := op.Request.(*pb.TxnRequest)
			if ok = ok && op.Outcome == linearizability.OK && strings.HasPrefix(string(req.Compare[0].Key), "p/r/") && op.Response.(*pb.TxnResponse).Succeeded; ok {
				again := h.Invoke(9, 4, &pb.PutRequest{Key: req.Compare[0].Key, Value: []byte("00000000000000000001-000001-c1")})
				h.Return(again, linearizability.OK, &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 1 << 40}}, "")
			}
			return ok
		},
		"the first of": func(h *linearizability.History, op *linearizability.Op) bool {
			req, ok := op.Request.(*pb.RangeRequest)
			if ok = ok && req.Limit == 1 && len(op.Response.(*pb.RangeResponse).Kvs) == 1; ok {
				resp := proto.CloneOf(op.Response.(*pb.RangeResponse))
				resp.Kvs[0].CreateRevision = 1
				again := h.Invoke(9, 4, req)
				h.Return(again, linearizability.OK, resp, "")
			}
			return ok
		},
	}
	for want, spoil := range ways {
		t.Run(want, func(t *testing.T) {
			kind, _ := Named("lock")
			for seed := range uint64(10) {
				w := kind.New("p/", 0)
				h, r := playEventful(w, seed, 6, 1200), base.NewRand(seed)
				h.Clock = func() time.Duration { return time.Hour }
				tries := 0
				for ; tries < 20_000 && !spoil(h, h.Ops[r.Int63n(int64(len(h.Ops)))]); tries++ {
				}
				if tries == 20_000 {
					t.Errorf("seed %d: there is nothing to spoil", seed)
					continue
				}
				if found := complaints(w, h); !slices.ContainsFunc(found, func(v linearizability.Violation) bool { return strings.Contains(v.What, want) }) {
					t.Errorf("seed %d: nobody complains: %v", seed, found)
				}
			}
		})
	}
}
