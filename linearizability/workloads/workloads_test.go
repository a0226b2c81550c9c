package workloads

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

func complaints(w linearizability.Workload, h *linearizability.History) (found []linearizability.Violation) {
	for _, c := range w.Checkers() {
		found = append(found, c.Check(h)...)
	}
	return found
}

// Each workload writes under contention, and none of its checkers complains of a history that is right.
func TestRightHistories(t *testing.T) {
	for _, k := range Kinds() {
		if k.Watches || k.Follows || k.Leases {
			continue // TestWatchers, TestFollowers, TestSessions
		}
		t.Run(k.Name, func(t *testing.T) {
			for seed := range uint64(25) {
				w := k.New("p/", 0)
				h := play(w, seed, 4, 300, true)
				for _, v := range complaints(w, h) {
					t.Fatalf("seed %d: %s: %s", seed, v.Checker, v.What)
				}
				writes := 0
				for _, op := range h.Ops {
					if resp, ok := op.Response.(*pb.TxnResponse); ok && resp.Succeeded || op.Outcome == linearizability.OK && isWrite(op.Request) {
						writes++
					}
				}
				if writes < len(h.Ops)/10 || len(h.Ops) < 250 {
					t.Fatalf("seed %d: %d writes in %d operations", seed, writes, len(h.Ops))
				}
			}
		})
	}
}

func isWrite(req proto.Message) bool {
	switch req.(type) {
	case *pb.PutRequest, *pb.DeleteRangeRequest:
		return true
	}
	return false
}

// damage changes one answer into one that is wrong, and says how; "" if the operation has nothing to damage.
func damage(h *linearizability.History, op *linearizability.Op, r *base.Rand, cut func([]byte) []byte) string {
	resp, ok := op.Response.(*pb.RangeResponse)
	if req, isRange := op.Request.(*pb.RangeRequest); !ok || !isRange || req.Serializable || len(resp.Kvs) == 0 {
		return ""
	}
	resp = proto.CloneOf(resp)
	op.Response = resp
	i := int(r.Int63n(int64(len(resp.Kvs))))
	switch r.Int63n(4) {
	case 0:
		resp.Kvs = append(append([]*mvccpb.KeyValue{}, resp.Kvs[:i]...), resp.Kvs[i+1:]...)
		resp.Count--
		return "a key is missing from a read"
	case 1:
		resp.Kvs[i].Value = []byte("7#nobody")
		return "a value that nobody wrote"
	case 2:
		resp.Kvs[i].ModRevision--
		return "a value under a revision that is not its own"
	default:
		if op.Request.(*pb.RangeRequest).Revision > 0 {
			return "" // it says where the store has come to, which is no promise
		}
		resp.Header.Revision -= 1 + r.Int63n(5)
		if resp.Header.Revision >= newestBefore(h, op, cut) {
			return ""
		}
		return "an answer of a revision that is over"
	}
}

// newestBefore is the highest revision that was answered before an operation began; of what can be cut: on its side of the cuts.
func newestBefore(h *linearizability.History, op *linearizability.Op, cut func([]byte) []byte) (rev int64) {
	for _, o := range h.Ops {
		if cut != nil && !bytes.Equal(cut(keyOf(o.Request)), cut(keyOf(op.Request))) {
			continue
		}
		if r, ok := o.Request.(*pb.RangeRequest); ok && r.Revision > 0 {
			continue
		}
		if o.Outcome == linearizability.OK && o.Returned < op.Invoked {
			rev = max(rev, o.Response.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().GetRevision())
		}
	}
	return rev
}

// keyOf is the key of a request on one key.
func keyOf(req proto.Message) []byte {
	if t, ok := req.(*pb.TxnRequest); ok && len(t.Compare) == 0 {
		return t.Success[0].GetRequestPut().Key // a setup's
	} else if ok {
		return t.Compare[0].Key
	}
	return req.(interface{ GetKey() []byte }).GetKey()
}

// One wrong answer in a right history is found, whatever the workload and the way of being wrong. (Where outcomes are not
// known, it could be right by chance.)
func TestWrongHistories(t *testing.T) {
	for _, k := range Kinds() {
		if k.Watches || k.Follows || k.Leases {
			continue // TestWatchers, TestFollowers, TestSessions
		}
		t.Run(k.Name, func(t *testing.T) {
			found := map[string]int{}
			for seed := range uint64(150) {
				w := k.New("p/", 0)
				h, r := play(w, seed, 4, 150, false), base.NewRand(seed)
				what := ""
				for tries := 0; what == "" && tries < 200; tries++ {
					what = damage(h, h.Ops[r.Int63n(int64(len(h.Ops)))], r, k.Cut)
				}
				if what == "" {
					continue
				}
				if len(complaints(w, h)) == 0 {
					t.Errorf("seed %d: nobody complains of %s", seed, what)
				}
				found[what]++
			}
			if len(found) < 3 {
				t.Errorf("only %v was tried", found)
			}
			t.Log(fmt.Sprint(found))
		})
	}
}
