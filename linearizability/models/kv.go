package models

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/linearizability"
)

// MaxKeys is how many keys one group of KV may have: its state is a value that can be compared.
const MaxKeys = 6

// state is the keys of one group at one moment. rev is the lowest that the keyspace's revision can be then; writes of other
// groups raise it too, so it may be higher. The revision of a key that an unanswered request wrote is not known (0) until
// an answer shows it.
type state struct {
	rev   int64
	place int64 // of the last write whose place was told
	n     int
	keys  [MaxKeys]entry // in order
}

type entry struct {
	key, value           string
	create, mod, version int64
}

func (s *state) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.keys[:s.n], key, func(e entry, k string) int { return cmp.Compare(e.key, k) })
}

func (s *state) put(key, value string, rev int64) bool {
	i, ok := s.find(key)
	if !ok {
		if s.n == MaxKeys {
			return false
		}
		copy(s.keys[i+1:s.n+1], s.keys[i:s.n])
		s.keys[i] = entry{key: key, create: rev}
		s.n++
	}
	s.keys[i].value, s.keys[i].mod = value, rev
	s.keys[i].version++
	return true
}

func (s *state) deleteSpan(key, end string) (deleted int64) {
	kept := 0
	for i := range s.n {
		if inSpan(s.keys[i].key, key, end) {
			deleted++
			continue
		}
		s.keys[kept] = s.keys[i]
		kept++
	}
	for i := kept; i < s.n; i++ {
		s.keys[i] = entry{}
	}
	s.n = kept
	return deleted
}

func inSpan(k, key, end string) bool {
	if end == "" {
		return k == key
	}
	return k >= key && (k < end || end == "\x00")
}

// Input is one operation. Seen is, of one without an answer, the revision at which others saw what it wrote: it took
// effect at that one. 0: nobody saw it, and it may have taken effect at any or none.
type Input struct {
	Op   *linearizability.Op
	Seen int64
	// Place, if above 0, is the operation's place among the writes: it takes effect after those with a lower one.
	Place int64
}

// KV is the whole KV service over groups of few keys: ranges, puts, deletions, transactions with comparisons, with every
// answer's revisions. Operations of different groups have only the revision in common, which group by group can only be
// seen to grow. group names the group of an operation; ops that are not OK must be writes whose outcome is not known.
//
// The input of an operation is an Input; the output is not used.
func KV() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []interface{} { return []interface{}{state{}} },
		Step: func(st, in, _ interface{}) []interface{} {
			s, i := st.(state), in.(Input)
			if i.Place > 0 {
				if i.Place <= s.place {
					return nil
				}
				s.place = i.Place
			}
			switch {
			case i.Op.Outcome == linearizability.OK:
				return answered(s, i.Op.Request, i.Op.Response)
			case i.Seen != 0 && i.Seen <= s.rev:
				return nil
			}
			return unanswered(s, i.Op.Request, i.Seen)
		},
		Equal:             func(a, b interface{}) bool { return a.(state) == b.(state) },
		DescribeOperation: func(in, _ interface{}) string { return describe(in.(Input).Op) },
	}
	return m.ToModel()
}

func describe(op *linearizability.Op) string {
	s := fmt.Sprintf("%s %v → ", strings.TrimPrefix(string(proto.MessageName(op.Request)), "etcdserverpb."), op.Request)
	if op.Outcome == linearizability.OK {
		return s + fmt.Sprint(op.Response)
	}
	return s + op.Outcome.String()
}

// unanswered carries a request out whose answer nobody saw, at a revision that is 0 if nobody knows it.
func unanswered(s state, req proto.Message, rev int64) []interface{} {
	s.rev = max(s.rev, rev)
	switch r := req.(type) {
	case *pb.PutRequest:
		if !s.put(string(r.Key), string(r.Value), rev) {
			return nil
		}
	case *pb.DeleteRangeRequest:
		s.deleteSpan(string(r.Key), string(r.RangeEnd))
	case *pb.TxnRequest:
		var out []interface{}
		yes, no := compareAll(&s, r.Compare)
		for _, b := range []struct {
			may bool
			ops []*pb.RequestOp
		}{{yes, r.Success}, {no, r.Failure}} {
			if next := s; b.may && writeBranch(&next, b.ops, rev) {
				out = append(out, next)
			}
		}
		return out
	}
	return []interface{}{s}
}

// writeBranch makes a branch's changes at a revision.
func writeBranch(s *state, ops []*pb.RequestOp, rev int64) bool {
	for _, o := range ops {
		if p := o.GetRequestPut(); p != nil && !s.put(string(p.Key), string(p.Value), rev) {
			return false
		}
		if d := o.GetRequestDeleteRange(); d != nil {
			s.deleteSpan(string(d.Key), string(d.RangeEnd))
		}
	}
	return true
}

// compareAll says whether the comparisons can hold, and whether they can fail: both, where a revision is not known.
func compareAll(s *state, cs []*pb.Compare) (yes, no bool) {
	yes = true
	for _, c := range cs {
		y, n := compareOne(s, c)
		yes, no = yes && y, no || n
	}
	return yes, no
}

func compareOne(s *state, c *pb.Compare) (yes, no bool) {
	var e entry
	if i, ok := s.find(string(c.Key)); ok {
		e = s.keys[i]
	} else if c.Target == pb.Compare_VALUE {
		return false, true // as etcd does: nothing is not a value
	}
	var order int
	known := true
	switch c.Target {
	case pb.Compare_VALUE:
		order = cmp.Compare(e.value, string(c.GetValue()))
	case pb.Compare_VERSION:
		order = cmp.Compare(e.version, c.GetVersion())
	case pb.Compare_MOD:
		order, known = cmp.Compare(e.mod, c.GetModRevision()), e.mod != 0 || e.version == 0
	case pb.Compare_CREATE:
		order, known = cmp.Compare(e.create, c.GetCreateRevision()), e.create != 0 || e.version == 0
	default:
		return true, true
	}
	if !known {
		return true, true
	}
	holds := map[pb.Compare_CompareResult]bool{
		pb.Compare_EQUAL: order == 0, pb.Compare_NOT_EQUAL: order != 0, pb.Compare_GREATER: order > 0, pb.Compare_LESS: order < 0,
	}[c.Result]
	return holds, !holds
}

// answered says in which states the answer can be right.
func answered(s state, req, resp proto.Message) []interface{} {
	rev := resp.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().GetRevision()
	next := s
	ok := false
	switch r := req.(type) {
	case *pb.RangeRequest:
		ok = rev >= s.rev && next.reads(r, resp.(*pb.RangeResponse), rev)
	case *pb.PutRequest:
		ok = rev > s.rev && next.put(string(r.Key), string(r.Value), rev)
	case *pb.DeleteRangeRequest:
		deleted := next.deleteSpan(string(r.Key), string(r.RangeEnd))
		ok = deleted == resp.(*pb.DeleteRangeResponse).Deleted && (rev > s.rev || deleted == 0 && rev == s.rev)
	case *pb.TxnRequest:
		ok = next.txn(r, resp.(*pb.TxnResponse), rev)
	case *pb.CompactionRequest:
		ok = rev >= s.rev
	}
	if !ok {
		return nil
	}
	next.rev = rev
	return []interface{}{next}
}

// txn holds a transaction's answer against the state: its branch, and in order what each operation saw.
func (s *state) txn(r *pb.TxnRequest, resp *pb.TxnResponse, rev int64) bool {
	yes, no := compareAll(s, r.Compare)
	branch := r.Failure
	if resp.Succeeded {
		branch = r.Success
	}
	if resp.Succeeded && !yes || !resp.Succeeded && !no || len(resp.Responses) != len(branch) {
		return false
	}
	before, wrote := s.rev, false
	for i, o := range branch {
		switch got := resp.Responses[i]; {
		case o.GetRequestRange() != nil:
			if !s.reads(o.GetRequestRange(), got.GetResponseRange(), rev) {
				return false
			}
		case o.GetRequestPut() != nil:
			wrote = true
			if !s.put(string(o.GetRequestPut().Key), string(o.GetRequestPut().Value), rev) {
				return false
			}
		case o.GetRequestDeleteRange() != nil:
			d := o.GetRequestDeleteRange()
			deleted := s.deleteSpan(string(d.Key), string(d.RangeEnd))
			if wrote = wrote || deleted > 0; deleted != got.GetResponseDeleteRange().GetDeleted() {
				return false
			}
		}
	}
	return rev > before || !wrote && rev == before
}

// reads holds what was read of the newest state against it, and learns revisions that were not known. A read of an older
// revision says nothing of this state.
func (s *state) reads(r *pb.RangeRequest, resp *pb.RangeResponse, rev int64) bool {
	if r.Revision > 0 && r.Revision < rev || r.Serializable {
		return true
	}
	var in []int
	for i := range s.n {
		if inSpan(s.keys[i].key, string(r.Key), string(r.RangeEnd)) {
			in = append(in, i)
		}
	}
	if resp.Count != int64(len(in)) {
		return false
	}
	if r.CountOnly {
		return true
	}
	if len(resp.Kvs) != len(in) {
		return r.Limit > 0 && int64(len(resp.Kvs)) == r.Limit && resp.More && s.match(in[:len(resp.Kvs)], resp.Kvs, r.KeysOnly, rev)
	}
	return s.match(in, resp.Kvs, r.KeysOnly, rev)
}

func (s *state) match(in []int, kvs []*mvccpb.KeyValue, keysOnly bool, rev int64) bool {
	for j, kv := range kvs {
		e := &s.keys[in[j]]
		if string(kv.Key) != e.key || !keysOnly && string(kv.Value) != e.value || kv.Version != e.version || kv.ModRevision > rev {
			return false
		}
		if e.mod != 0 && e.mod != kv.ModRevision || e.create != 0 && e.create != kv.CreateRevision {
			return false
		}
		e.mod, e.create = kv.ModRevision, kv.CreateRevision
	}
	return true
}
