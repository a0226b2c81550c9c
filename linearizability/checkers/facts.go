package checkers

import (
	"bytes"
	"cmp"
	"slices"
	"sort"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// facts is a history taken apart: what was certainly written at which revision, what may have been, and what was seen.
type facts struct {
	writes []write            // of answered operations, by revision
	byKey  map[string][]write // the same, of each key
	maybe  map[string][]write // of operations whose outcome is not known, by key
	failed map[string][]write // of operations that certainly had no effect, by key
	spans  []write            // deletions of spans, answered or not
	seen   []sight
}

// write is one change of one key. Of an operation without an answer it is one that it would make in one of its branches.
type write struct {
	key, value string
	end        string // of a deletion of a span
	deleted    bool
	rev        int64 // 0: not known
	op         *linearizability.Op
}

// sight is an answer to a read of [key, end), at a revision.
type sight struct {
	key, end string
	rev      int64 // the state that was read: that of the answer's header, or the older one that was asked for
	kvs      []*mvccpb.KeyValue
	whole    bool // every key of the span is in kvs: no limit, no filter
	current  bool // it was to be the newest state, not an older one
	op       *linearizability.Op
}

// gather takes a history apart. Keys outside of prefix are left out.
func gather(h *linearizability.History, prefix string) *facts {
	f := &facts{byKey: map[string][]write{}, maybe: map[string][]write{}, failed: map[string][]write{}}
	for _, op := range h.Ops {
		if op.Outcome == linearizability.OK {
			f.answered(op, prefix)
			continue
		}
		into := f.maybe
		if op.Outcome == linearizability.Failed {
			into = f.failed
		}
		for _, w := range wouldWrite(op.Request) {
			w.op = op
			if w.end != "" && op.Outcome == linearizability.Unknown {
				f.spans = append(f.spans, w)
			}
			if w.end == "" && bytes.HasPrefix([]byte(w.key), []byte(prefix)) {
				into[w.key] = append(into[w.key], w)
			}
		}
	}
	slices.SortStableFunc(f.writes, func(a, b write) int { return cmp.Compare(a.rev, b.rev) })
	for _, w := range f.writes {
		f.byKey[w.key] = append(f.byKey[w.key], w)
	}
	return f
}

// wouldWrite lists the changes that a request makes if it is carried out, in either branch of a transaction.
func wouldWrite(req proto.Message) (out []write) {
	switch r := req.(type) {
	case *pb.PutRequest:
		out = append(out, write{key: string(r.Key), value: string(r.Value)})
	case *pb.DeleteRangeRequest:
		out = append(out, write{key: string(r.Key), end: string(r.RangeEnd), deleted: true})
	case *pb.TxnRequest:
		for _, o := range slices.Concat(r.Success, r.Failure) {
			switch {
			case o.GetRequestPut() != nil:
				out = append(out, wouldWrite(o.GetRequestPut())...)
			case o.GetRequestDeleteRange() != nil:
				out = append(out, wouldWrite(o.GetRequestDeleteRange())...)
			}
		}
	}
	return out
}

// answered adds what an answered operation did and saw.
func (f *facts) answered(op *linearizability.Op, prefix string) {
	switch r := op.Request.(type) {
	case *pb.TxnRequest:
		resp := op.Response.(*pb.TxnResponse)
		branch := r.Failure
		if resp.Succeeded {
			branch = r.Success
		}
		for i, o := range branch {
			if i >= len(resp.Responses) {
				return
			}
			got := resp.Responses[i]
			switch {
			case o.GetRequestPut() != nil:
				f.one(op, o.GetRequestPut(), got.GetResponsePut(), resp.Header.GetRevision(), prefix)
			case o.GetRequestDeleteRange() != nil:
				f.one(op, o.GetRequestDeleteRange(), got.GetResponseDeleteRange(), resp.Header.GetRevision(), prefix)
			case o.GetRequestRange() != nil:
				f.one(op, o.GetRequestRange(), got.GetResponseRange(), resp.Header.GetRevision(), prefix)
			}
		}
	default:
		f.one(op, op.Request, op.Response, revisionOf(op), prefix)
	}
}

func (f *facts) one(op *linearizability.Op, req, resp proto.Message, rev int64, prefix string) {
	switch r := req.(type) {
	case *pb.PutRequest:
		if bytes.HasPrefix(r.Key, []byte(prefix)) {
			f.writes = append(f.writes, write{key: string(r.Key), value: string(r.Value), rev: rev, op: op})
		}
	case *pb.DeleteRangeRequest:
		d := resp.(*pb.DeleteRangeResponse)
		switch {
		case !bytes.HasPrefix(r.Key, []byte(prefix)) || d.GetDeleted() == 0:
		case len(r.RangeEnd) > 0:
			f.spans = append(f.spans, write{key: string(r.Key), end: string(r.RangeEnd), deleted: true, rev: rev, op: op})
		default:
			f.writes = append(f.writes, write{key: string(r.Key), deleted: true, rev: rev, op: op})
		}
	case *pb.RangeRequest:
		got := resp.(*pb.RangeResponse)
		if !bytes.HasPrefix(r.Key, []byte(prefix)) || r.CountOnly {
			return
		}
		s := sight{key: string(r.Key), end: string(r.RangeEnd), rev: rev, kvs: got.GetKvs(), op: op, current: r.Revision == 0 && !r.Serializable}
		if r.Revision > 0 {
			s.rev = r.Revision
		}
		s.whole = !got.GetMore() && r.MinModRevision == 0 && r.MaxModRevision == 0 && r.MinCreateRevision == 0 && r.MaxCreateRevision == 0 && !r.KeysOnly
		// Within a transaction that writes, a read may or may not see its own writes, by the order of its operations.
		if t, ok := op.Request.(*pb.TxnRequest); ok && writesSomething(t, op.Response.(*pb.TxnResponse)) {
			return
		}
		f.seen = append(f.seen, s)
	}
}

func writesSomething(t *pb.TxnRequest, resp *pb.TxnResponse) bool {
	branch := t.Failure
	if resp.Succeeded {
		branch = t.Success
	}
	return slices.ContainsFunc(branch, func(o *pb.RequestOp) bool { return o.GetRequestRange() == nil })
}

// holds says whether a read's span has a key.
func (s *sight) holds(key string) bool {
	if s.end == "" {
		return key == s.key
	}
	return key >= s.key && (key < s.end || s.end == "\x00")
}

// revisionOf is the revision in an answer's header; 0 if there is none.
func revisionOf(op *linearizability.Op) int64 {
	if h, ok := op.Response.(interface{ GetHeader() *pb.ResponseHeader }); ok && op.Response != nil {
		return h.GetHeader().GetRevision()
	}
	return 0
}

// at finds the newest certain write of a key at or below a revision.
func (f *facts) at(key string, rev int64) (write, bool) {
	ws := f.byKey[key]
	i := sort.Search(len(ws), func(i int) bool { return ws[i].rev > rev })
	if i == 0 {
		return write{}, false
	}
	return ws[i-1], true
}

// changed says whether an answered operation certainly made a new revision.
func changed(op *linearizability.Op) bool {
	switch r := op.Request.(type) {
	case *pb.PutRequest:
		return true
	case *pb.DeleteRangeRequest:
		return op.Response.(*pb.DeleteRangeResponse).GetDeleted() > 0
	case *pb.TxnRequest:
		resp := op.Response.(*pb.TxnResponse)
		branch := r.Failure
		if resp.Succeeded {
			branch = r.Success
		}
		for i, o := range branch {
			if o.GetRequestPut() != nil || o.GetRequestDeleteRange() != nil && i < len(resp.Responses) && resp.Responses[i].GetResponseDeleteRange().GetDeleted() > 0 {
				return true
			}
		}
	}
	return false
}
