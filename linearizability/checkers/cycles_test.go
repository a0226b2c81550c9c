package checkers

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// shelf is a store of lists in groups, whose clients' requests overlap, and which does each at one moment.
type shelf struct {
	h      linearizability.History
	r      *base.Rand
	rev    int64
	groups [shelfGroups]int // which generation of lists each has now
	kvs    map[string]*mvccpb.KeyValue
}

const (
	shelfGroups  = 4
	shelfLists   = 3
	shelfClients = 10
	shelfLength  = 8 // of a list, when its group begins anew
)

// fill makes a history of so many operations.
func (s *shelf) fill(ops int) *linearizability.History {
	s.kvs = make(map[string]*mvccpb.KeyValue)
	var open [shelfClients]*linearizability.Op
	for len(s.h.Ops) < ops {
		c := int(s.r.Int63n(shelfClients))
		if open[c] == nil {
			open[c] = s.h.Invoke(c, 1, s.request(len(s.h.Ops)))
			continue
		}
		resp := s.do(open[c].Request)
		switch s.r.Int63n(50) {
		case 0:
			s.h.Return(open[c], linearizability.Unknown, nil, "lost")
		default:
			s.h.Return(open[c], linearizability.OK, resp, "")
		}
		open[c] = nil
	}
	return &s.h
}

// request reads a group, or appends to some of its lists what stands on what they are, if they still are when it is done.
func (s *shelf) request(n int) proto.Message {
	g := s.r.Int63n(shelfGroups)
	group := fmt.Sprintf("k/%d.%d/", g, s.groups[g])
	if s.r.Int63n(2) == 0 {
		return &pb.RangeRequest{Key: []byte(group), RangeEnd: []byte(strings.TrimSuffix(group, "/") + "0")}
	}
	t := &pb.TxnRequest{}
	for i := range shelfLists {
		if s.r.Int63n(2) == 0 {
			continue
		}
		key := fmt.Sprint(group, i)
		var mod int64
		var value []byte
		if kv := s.kvs[key]; kv != nil {
			mod, value = kv.ModRevision, kv.Value
		}
		t.Compare = append(t.Compare, compare([]byte(key), mod))
		if s.r.Int63n(3) > 0 {
			t.Success = append(t.Success, putOp([]byte(key), fmt.Appendf(nil, "%s %d", value, n)))
		}
		if strings.Count(string(value), " ") == shelfLength {
			s.groups[g]++
		}
	}
	return t
}

func (s *shelf) do(req proto.Message) proto.Message {
	head := func() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: s.rev} }
	if r, ok := req.(*pb.RangeRequest); ok {
		out := &pb.RangeResponse{Header: head()}
		for i := range shelfLists {
			if kv := s.kvs[fmt.Sprint(string(r.Key), i)]; kv != nil {
				out.Kvs = append(out.Kvs, kv)
			}
		}
		return out
	}
	t := req.(*pb.TxnRequest)
	for _, c := range t.Compare {
		if kv := s.kvs[string(c.Key)]; kv.GetModRevision() != c.GetModRevision() {
			return &pb.TxnResponse{Header: head()}
		}
	}
	out := &pb.TxnResponse{Succeeded: true}
	s.rev++
	for _, o := range t.Success {
		p := o.GetRequestPut()
		s.kvs[string(p.Key)] = &mvccpb.KeyValue{Key: p.Key, Value: p.Value, ModRevision: s.rev}
		out.Responses = append(out.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}})
	}
	out.Header = head()
	return out
}

// What is right is accepted, and an answer that is older than another that had been given is found by what it shows alone:
// without revisions.
func TestCyclesFindsStaleReads(t *testing.T) {
	stale := 0
	for seed := range uint64(200) {
		h := (&shelf{r: base.NewRand(seed)}).fill(300)
		if found, _ := cycles(h, "k/"); len(found) > 0 {
			t.Fatalf("seed %d: %s", seed, found[0].What)
		}
		old, now := overtaken(h)
		if old == nil {
			continue
		}
		stale++
		now.Response = old.Response
		found, _ := cycles(h, "k/")
		if len(found) != 1 || !strings.HasPrefix(found[0].What, "G-") || len(found[0].Ops) > 3 {
			t.Errorf("seed %d: client %d reads what client %d read, which is over: %v", seed, now.Client, old.Client, found)
		}
	}
	if stale < 150 {
		t.Errorf("only %d stale reads were tried", stale)
	}
}

// overtaken finds two reads of one group, of which the second began after somebody was answered who had appended what the first
// did not see.
func overtaken(h *linearizability.History) (old, now *linearizability.Op) {
	reads := make(map[string]*linearizability.Op)
	wrote := make(map[string]*linearizability.Op)
	for _, op := range h.Ops {
		if op.Outcome != linearizability.OK {
			continue
		}
		switch r := op.Request.(type) {
		case *pb.TxnRequest:
			if resp := op.Response.(*pb.TxnResponse); resp.Succeeded && len(r.Success) > 0 {
				key := string(r.Success[0].GetRequestPut().Key)
				wrote[key[:strings.LastIndexByte(key, '/')+1]] = op
			}
		case *pb.RangeRequest:
			key := string(r.Key)
			if w := wrote[key]; w != nil && reads[key] != nil && reads[key].Returned < w.Invoked && w.Returned < op.Invoked {
				return reads[key], op
			}
			reads[key] = op
		}
	}
	return nil, nil
}

// Ten times the history takes ten times the steps, where nothing is wrong, and where everything stands in one circle: the first
// operation reads what the last ones append.
func TestCyclesIsLinear(t *testing.T) {
	steps := func(ops int, wrong bool) float64 {
		h := (&shelf{r: base.NewRand(1)}).fill(ops)
		if wrong {
			for i, first := 0, (*linearizability.Op)(nil); first == nil; i++ {
				if r, ok := h.Ops[i].Request.(*pb.RangeRequest); ok {
					first = h.Ops[i]
					last := lastRead(h)
					first.Outcome, first.Response, r.Key, r.RangeEnd = linearizability.OK, last.Response, last.Request.(*pb.RangeRequest).Key, last.Request.(*pb.RangeRequest).RangeEnd
				}
			}
		}
		found, work := cycles(h, "k/")
		if (len(found) == 1) != wrong {
			t.Fatalf("%d found, wrong: %v", len(found), wrong)
		}
		return float64(work) / float64(ops)
	}
	for _, wrong := range []bool{false, true} {
		few, many := steps(10_000, wrong), steps(100_000, wrong)
		t.Logf("wrong: %v: %.1f and %.1f steps an operation", wrong, few, many)
		if many > few*1.05 || few < 5 {
			t.Errorf("%.1f steps an operation of 10,000, %.1f of 100,000", few, many)
		}
	}
}

// lastRead is the last read that saw a list.
func lastRead(h *linearizability.History) *linearizability.Op {
	for i := len(h.Ops) - 1; ; i-- {
		if r, ok := h.Ops[i].Response.(*pb.RangeResponse); ok && len(r.Kvs) > 0 {
			return h.Ops[i]
		}
	}
}

// A million operations, as a long run makes them.
func BenchmarkCycles(b *testing.B) {
	h := (&shelf{r: base.NewRand(1)}).fill(1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		found, work := cycles(h, "k/")
		if len(found) > 0 {
			b.Fatal(found[0].What)
		}
		b.ReportMetric(float64(work)/float64(len(h.Ops)), "steps/operation")
	}
}
