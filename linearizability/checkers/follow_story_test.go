package checkers

import (
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/linearizability"
)

// Watches and leases, in stories:
//
//	> 1 watch k/a from=5           one key, from a revision on; or from now on. "noput", "nodelete", "prev", "fragment", "final" may follow,
//	                               and "until=9" for a revision that is to be reached
//	> 1 watch k/ k0                or a span
//	< 1 ok 0 created@4 k/a=v@5;k/b!@5 progress@9 compacted@12   a word for each response; of several events in one there is a semicolon
//	                               between them; ! is a deletion; after < comes the version before: k/a=w@7,5,2<v@5. + before a response
//	                               says that it is a fragment
//	> 1 grant 7 3                  a lease with an id and a TTL
//	> 1 alive 7, revoke 7, left 7  keep it alive, end it, ask for its time to live
//	< 1 ok 0 3                     of grant, alive, left: the TTL
//	> 1 lock k/a 7                 if k/a is not there: put it under lease 7; in both cases read who came first in its folder
//	< 1 ok 5 yes k/a=x@5           who came first
func followRequest(op *linearizability.Op, f []string) bool {
	if f[0] != "watch" {
		return false
	}
	req := &followpb.FollowRequest{Key: []byte(f[1])}
	for i, word := range f[2:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "from":
			req.StartRevision = number(value)
		case "until":
			req.UntilRevision = number(value)
		case "noput":
			req.NoPut = true
		case "nodelete":
			req.NoDelete = true
		case "prev":
			req.PrevKv = true
		case "fragment":
			req.Fragment = true
		case "final":
			op.Final = true
		default:
			if i > 0 {
				panic("a watch with " + word)
			}
			req.RangeEnd = []byte(word)
		}
	}
	op.Request = req
	return true
}

func followAnswer(op *linearizability.Op, words []string) bool {
	req, ok := op.Request.(*followpb.FollowRequest)
	if !ok {
		return false
	}
	f := linearizability.NewFollower(req.StartRevision)
	for _, word := range words {
		kind, rev, _ := strings.Cut(word, "@")
		switch kind {
		case "created":
			f.Created(0, number(rev))
		case "progress":
			f.Progress(0, number(rev))
		case "compacted":
			f.Compacted(0, number(rev), "")
		default:
			word, fragment := strings.CutPrefix(word, "+")
			var events []*mvccpb.Event
			last := int64(0)
			for s := range strings.SplitSeq(word, ";") {
				events = append(events, storyEvent(s))
				last = max(last, events[len(events)-1].Kv.ModRevision)
			}
			f.Events(0, last, events, fragment)
		}
	}
	op.Response = f.Response()
	return true
}

func storyEvent(s string) *mvccpb.Event {
	s, before, hasPrev := strings.Cut(s, "<")
	e := &mvccpb.Event{}
	if key, rev, ok := strings.Cut(s, "!@"); ok {
		e.Type, e.Kv = mvccpb.Event_DELETE, &mvccpb.KeyValue{Key: []byte(key), ModRevision: number(rev)}
	} else {
		key, version, _ := strings.Cut(s, "=")
		e.Kv = storyVersion(key, version)
	}
	if hasPrev {
		e.PrevKv = storyVersion(string(e.Kv.Key), before)
	}
	return e
}

func storyVersion(key, s string) *mvccpb.KeyValue {
	s, lease, leased := strings.Cut(s, "~")
	value, at, _ := strings.Cut(s, "@")
	mod, life, again := strings.Cut(at, ",")
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: spaced(value), ModRevision: number(mod), CreateRevision: number(mod), Version: 1}
	if create, version, _ := strings.Cut(life, ","); again {
		kv.CreateRevision, kv.Version = number(create), number(version)
	}
	if leased {
		kv.Lease = number(lease)
	}
	return kv
}

func seconds(s string) time.Duration {
	d, err := time.ParseDuration(s + "s")
	if err != nil {
		panic(err)
	}
	return d
}

func leaseRequest(op *linearizability.Op, f []string) bool {
	switch f[0] {
	case "grant":
		op.Request = &pb.LeaseGrantRequest{ID: number(f[1]), TTL: number(f[2])}
	case "alive":
		op.Request = &pb.LeaseKeepAliveRequest{ID: number(f[1])}
	case "revoke":
		op.Request = &pb.LeaseRevokeRequest{ID: number(f[1])}
	case "left":
		op.Request = &pb.LeaseTimeToLiveRequest{ID: number(f[1])}
	case "lock":
		dir := f[1][:strings.LastIndexByte(f[1], '/')+1]
		first := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{
			Key: []byte(dir), RangeEnd: []byte(dir[:len(dir)-1] + "0"), SortTarget: pb.RangeRequest_CREATE, Limit: 1,
		}}}
		mine := putOp([]byte(f[1]), []byte("x"))
		mine.GetRequestPut().Lease = number(f[2])
		op.Request = &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte(f[1]), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{}}},
			Success: []*pb.RequestOp{mine, first}, Failure: []*pb.RequestOp{first},
		}
	default:
		return false
	}
	op.Final = slices.Contains(f, "final")
	return true
}

func leaseAnswer(op *linearizability.Op, rev int64, f []string) bool {
	switch req := op.Request.(type) {
	case *pb.LeaseGrantRequest:
		op.Response = &pb.LeaseGrantResponse{ID: req.ID, TTL: number(f[0])}
	case *pb.LeaseKeepAliveRequest:
		op.Response = &pb.LeaseKeepAliveResponse{ID: req.ID, TTL: number(f[0])}
	case *pb.LeaseTimeToLiveRequest:
		op.Response = &pb.LeaseTimeToLiveResponse{ID: req.ID, TTL: number(f[0])}
	case *pb.LeaseRevokeRequest:
		op.Response = &pb.LeaseRevokeResponse{}
	default:
		return lockAnswer(op, rev, f)
	}
	return true
}

// lockAnswer makes the answer of a lock's acquisition.
func lockAnswer(op *linearizability.Op, rev int64, f []string) bool {
	t, ok := op.Request.(*pb.TxnRequest)
	if !ok || len(t.Compare) == 0 || t.Compare[0].Target != pb.Compare_CREATE || len(t.Failure) != 1 {
		return false
	}
	head := &pb.ResponseHeader{Revision: rev}
	resp := &pb.TxnResponse{Header: head, Succeeded: f[0] == "yes"}
	if resp.Succeeded {
		resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: head}}})
	}
	first := &pb.RangeResponse{Header: head, Count: 1}
	if len(f) > 1 {
		key, version, _ := strings.Cut(f[1], "=")
		first.Kvs, first.More = []*mvccpb.KeyValue{storyVersion(key, version)}, slices.Contains(f, "more")
	}
	resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: first}})
	op.Response = resp
	return true
}
