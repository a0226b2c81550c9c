package checkers

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// A story is a history and what a checker says of it. Each checker has one that it accepts, and one wrong history for each
// way of being wrong: a check that cannot fail is worth nothing.
//
//	> 1 put k/a v          client 1 sends a put
//	> 1 get k/a            a linearizable read; "serializable", "at=REV" may follow
//	> 1 span k/ k0         a read of a span; "limit=N" too
//	> 1 del k/a            or of a span: del k/ k0
//	> 1 cas k/a 3 v        if k/a is of revision 3: put v; else read it
//	> 1 txn k/a@3 k/b=v k/c  if k/a is of revision 3: put v, read k/c; else nothing
//	< 1 ok 5 k/a=v@4,3,2   client 1 is answered at revision 5: what it read, with revision, create revision and version; of a
//	                       key's first value the revision is enough; k/a=v@4~7 belongs to lease 7
//	< 1 ok 5 yes           of a cas; "no" and what it read
//	< 1 ok 5 deleted=1
//	< 1 ok 5 k/a=v@4 more  and there is more of it
//	@ 1.5                  it is 1.5 seconds after the beginning
//	< 1 failed             it certainly had no effect; "failed TEXT" is what the client was told
//
// An underscore in a value is a space.
//
// A request without an answer is one of which nothing is known.
func TestStories(t *testing.T) {
	byName := map[string]func() linearizability.Checker{
		"revisions":     func() linearizability.Checker { return Revisions("") },
		"phantom":       func() linearizability.Checker { return PhantomWrites("k/") },
		"lost":          func() linearizability.Checker { return LostWrites("k/") },
		"set":           func() linearizability.Checker { return Set("k/") },
		"bank":          func() linearizability.Checker { return Bank("k/", 2, 10) },
		"monotonic":     func() linearizability.Checker { return Monotonic("k/") },
		"snapshots":     func() linearizability.Checker { return Snapshots("k/") },
		"lists":         func() linearizability.Checker { return Lists("k/") },
		"cycles":        func() linearizability.Checker { return Cycles("k/") },
		"watches":       func() linearizability.Checker { return Watches("k/") },
		"fencing":       func() linearizability.Checker { return Fencing("k/", "r/") },
		"leases":        func() linearizability.Checker { return Leases("k/", false) },
		"leases*":       func() linearizability.Checker { return Leases("k/", true) },
		"members":       Members,
		"placement":     Placement,
		"linearizable":  func() linearizability.Checker { return Linearizable("k/", true) },
		"linearizable*": func() linearizability.Checker { return Linearizable("k/", false) },
	}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			checker, ok := byName[d.Cmd]
			if !ok {
				d.Fatalf(t, "there is no checker %s", d.Cmd)
			}
			h := parse(t, d)
			var b strings.Builder
			for _, v := range checker().Check(h) {
				fmt.Fprintf(&b, "%s:", v.What)
				for _, op := range v.Ops {
					fmt.Fprintf(&b, " [%d]", slices.Index(h.Ops, op)+1)
				}
				b.WriteString("\n")
			}
			if b.Len() == 0 {
				return "accepted\n"
			}
			return b.String()
		})
	})
}

func parse(t *testing.T, d *datadriven.TestData) *linearizability.History {
	h := &linearizability.History{}
	open := map[int]*linearizability.Op{}
	now := time.Duration(0)
	h.Clock = func() time.Duration { return now }
	for line := range strings.Lines(d.Input) {
		f := strings.Fields(line)
		if f[0] == "@" {
			now = seconds(f[1])
			continue
		}
		client, err := strconv.Atoi(f[1])
		if err != nil {
			d.Fatalf(t, "%s: %v", line, err)
		}
		if f[0] == ">" {
			open[client] = h.Invoke(client, 1, nil)
			requestOf(open[client], f[2:])
			continue
		}
		op := open[client]
		if f[2] == "failed" {
			h.Return(op, linearizability.Failed, nil, strings.Join(f[3:], " "))
			continue
		}
		h.Return(op, linearizability.OK, nil, "")
		answerOf(op, number(f[3]), f[4:])
	}
	return h
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err) // the story is written wrongly
	}
	return n
}

func requestOf(op *linearizability.Op, f []string) {
	if watchRequest(op, f) || followRequest(op, f) || leaseRequest(op, f) {
		return
	}
	key := []byte(f[1]) // every other request has one
	switch f[0] {
	case "put":
		op.Request = &pb.PutRequest{Key: key, Value: spaced(f[2])}
	case "compact":
		op.Request = &pb.CompactionRequest{Revision: number(f[1])}
	case "del":
		op.Request = &pb.DeleteRangeRequest{Key: key, RangeEnd: []byte(strings.Join(f[2:], ""))}
	case "get", "span":
		r := &pb.RangeRequest{Key: key}
		if f[0] == "span" {
			r.RangeEnd, f = []byte(f[2]), f[1:]
		}
		for _, word := range f[2:] {
			if rev, ok := strings.CutPrefix(word, "at="); ok {
				r.Revision = number(rev)
			}
			if n, ok := strings.CutPrefix(word, "limit="); ok {
				r.Limit = number(n)
			}
			r.Serializable = r.Serializable || word == "serializable"
		}
		op.Request = r
	case "cas":
		op.Request = &pb.TxnRequest{
			Compare: []*pb.Compare{compare(key, number(f[2]))},
			Success: []*pb.RequestOp{putOp(key, spaced(f[3]))},
			Failure: []*pb.RequestOp{getOp(key)},
		}
	case "txn":
		t := &pb.TxnRequest{}
		for _, word := range f[1:] {
			if key, value, ok := strings.Cut(word, "="); ok {
				t.Success = append(t.Success, putOp([]byte(key), spaced(value)))
			} else if key, mod, ok := strings.Cut(word, "@"); ok {
				t.Compare = append(t.Compare, compare([]byte(key), number(mod)))
			} else {
				t.Success = append(t.Success, getOp([]byte(word)))
			}
		}
		op.Request = t
	default:
		panic("there is no request " + f[0])
	}
}

func spaced(s string) []byte { return []byte(strings.ReplaceAll(s, "_", " ")) }

func compare(key []byte, mod int64) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: mod}}
}

func putOp(key, value []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}
}

func getOp(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}
}

func answerOf(op *linearizability.Op, rev int64, f []string) {
	if watchAnswer(op, f) || followAnswer(op, f) || leaseAnswer(op, rev, f) {
		return
	}
	head := &pb.ResponseHeader{Revision: rev}
	var kvs []*mvccpb.KeyValue
	deleted := int64(0)
	for _, word := range f {
		if n, ok := strings.CutPrefix(word, "deleted="); ok {
			deleted = number(n)
		}
		if key, rest, ok := strings.Cut(word, "="); ok && key != "deleted" {
			kvs = append(kvs, storyVersion(key, rest))
		}
	}
	read := &pb.RangeResponse{Header: head, Kvs: kvs, Count: int64(len(kvs)), More: slices.Contains(f, "more")}
	switch r := op.Request.(type) {
	case *pb.CompactionRequest:
		op.Response = &pb.CompactionResponse{Header: head}
	case *pb.PutRequest:
		op.Response = &pb.PutResponse{Header: head}
	case *pb.DeleteRangeRequest:
		op.Response = &pb.DeleteRangeResponse{Header: head, Deleted: deleted}
	case *pb.RangeRequest:
		op.Response = read
	case *pb.TxnRequest:
		resp := &pb.TxnResponse{Header: head, Succeeded: slices.Contains(f, "yes")}
		branch := r.Failure
		if resp.Succeeded {
			branch = r.Success
		}
		for _, o := range branch {
			got := &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: head}}}
			if o.GetRequestRange() != nil {
				own := &pb.RangeResponse{Header: head}
				for _, kv := range kvs {
					if string(kv.Key) == string(o.GetRequestRange().Key) {
						own.Kvs, own.Count = append(own.Kvs, kv), own.Count+1
					}
				}
				got.Response = &pb.ResponseOp_ResponseRange{ResponseRange: own}
			}
			resp.Responses = append(resp.Responses, got)
		}
		op.Response = resp
	}
}
