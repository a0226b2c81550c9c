package eval_test

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// model is a multi-version map as simple as it can be: a copy of everything for each revision. It follows etcd's own
// order of doing things (read a limited list, filter, sort, cut) where package eval takes shorter ways.
type model struct {
	single    bool
	leases    map[int64]bool
	revs      []int64 // ascending
	states    []state // as of revs
	compacted int64
	events    []*mvccpb.Event // with what was there before
}

type state map[string]*mvccpb.KeyValue

func newModel(single bool, leases ...int64) *model {
	m := &model{single: single, leases: map[int64]bool{}, revs: []int64{1}, states: []state{{}}, compacted: -1}
	for _, id := range leases {
		m.leases[id] = true
	}
	return m
}

func (m *model) current() int64 { return m.revs[len(m.revs)-1] }

func (m *model) at(rev int64) state {
	i := sort.Search(len(m.revs), func(i int) bool { return m.revs[i] > rev })
	if i == 0 {
		return nil
	}
	return m.states[i-1]
}

// modelTxn is a command that is being carried out.
type modelTxn struct {
	m       *model
	begin   state
	now     state
	rev     int64
	changes int
	touched []string // keys that were written, in order
}

func (m *model) begin(micros int64) *modelTxn {
	rev := m.current() + 1
	if !m.single && micros > rev {
		rev = micros
	}
	return &modelTxn{m: m, begin: m.at(m.current()), now: maps.Clone(m.at(m.current())), rev: rev}
}

func (t *modelTxn) current() int64 {
	if t.changes > 0 {
		return t.rev
	}
	return t.m.current()
}

func (t *modelTxn) end() {
	if t.changes > 0 {
		t.m.revs, t.m.states = append(t.m.revs, t.rev), append(t.m.states, t.now)
	}
	for i, key := range t.touched {
		if slices.Contains(t.touched[i+1:], key) {
			continue
		}
		ev := &mvccpb.Event{Kv: t.now[key], PrevKv: t.begin[key]}
		if ev.Kv == nil {
			ev.Type, ev.Kv = mvccpb.Event_DELETE, &mvccpb.KeyValue{Key: []byte(key), ModRevision: t.rev}
		}
		if ev.Kv.Version == 1 {
			ev.PrevKv = nil
		}
		t.m.events = append(t.m.events, ev)
	}
}

// changes are those of a span from a revision on.
func (m *model) changes(start, end []byte, from int64, prev bool) (out []*mvccpb.Event) {
	for _, ev := range m.events {
		key := ev.Kv.Key
		if ev.Kv.ModRevision < from || bytes.Compare(key, start) < 0 || len(end) > 0 && bytes.Compare(key, end) >= 0 {
			continue
		}
		ev = proto.CloneOf(ev)
		if !prev || ev.Kv.ModRevision-1 < m.compacted {
			ev.PrevKv = nil
		}
		out = append(out, ev)
	}
	return out
}

// apply carries out what goes through the log.
func (m *model) apply(req proto.Message, micros int64) (proto.Message, error) {
	t := m.begin(micros)
	switch r := req.(type) {
	case *pb.PutRequest:
		if err := t.check([]*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: r}}}); err != nil {
			return nil, err
		}
		defer t.end()
		return t.put(r), nil
	case *pb.DeleteRangeRequest:
		defer t.end()
		return t.del(r), nil
	case *pb.TxnRequest:
		return t.txn(r)
	case *pb.CompactionRequest:
		if r.Revision <= m.compacted {
			return nil, rpctypes.ErrGRPCCompacted
		}
		if r.Revision > m.current() {
			return nil, rpctypes.ErrGRPCFutureRev
		}
		m.compacted = r.Revision
		return &pb.CompactionResponse{Header: &pb.ResponseHeader{Revision: m.current()}}, nil
	}
	panic("no command")
}

// endLease deletes the keys of a lease, and says how many there were.
func (m *model) endLease(id, micros int64) int {
	t := m.begin(micros)
	defer t.end()
	for _, key := range slices.Sorted(maps.Keys(t.begin)) {
		if t.begin[key].Lease == id {
			delete(t.now, key)
			t.changes++
			t.touched = append(t.touched, key)
		}
	}
	return t.changes
}

func (t *modelTxn) put(r *pb.PutRequest) *pb.PutResponse {
	key := string(r.Key)
	prev := t.now[key]
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, Lease: r.Lease, CreateRevision: t.rev, ModRevision: t.rev, Version: 1}
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
	}
	if r.IgnoreValue {
		kv.Value = prev.Value
	}
	if r.IgnoreLease {
		kv.Lease = prev.Lease
	}
	t.now[key] = kv
	t.changes++
	t.touched = append(t.touched, key)
	resp := &pb.PutResponse{Header: &pb.ResponseHeader{Revision: t.rev}}
	if r.PrevKv {
		resp.PrevKv = prev
	}
	return resp
}

func (t *modelTxn) del(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	resp := &pb.DeleteRangeResponse{}
	for _, kv := range t.now.list(r.Key, r.RangeEnd) {
		delete(t.now, string(kv.Key))
		t.changes++
		t.touched = append(t.touched, string(kv.Key))
		resp.Deleted++
		if r.PrevKv {
			resp.PrevKvs = append(resp.PrevKvs, kv)
		}
	}
	resp.Header = &pb.ResponseHeader{Revision: t.current()}
	return resp
}

func (s state) list(key, end []byte) (kvs []*mvccpb.KeyValue) {
	for _, k := range slices.Sorted(maps.Keys(s)) {
		in := k == string(key)
		if len(end) > 0 {
			in = k >= string(key) && (string(end) == "\x00" || k < string(end))
		}
		if in {
			kvs = append(kvs, s[k])
		}
	}
	return kvs
}

func (m *model) read(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	t := m.begin(0)
	return t.read(r)
}

func (t *modelTxn) read(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if r.Revision > t.current() {
		return nil, rpctypes.ErrGRPCFutureRev
	}
	s := t.now
	if r.Revision > 0 {
		if r.Revision < t.m.compacted {
			return nil, rpctypes.ErrGRPCCompacted
		}
		if r.Revision <= t.m.current() {
			s = t.m.at(r.Revision)
		}
	}
	kvs := s.list(r.Key, r.RangeEnd)
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: t.current()}, Count: int64(len(kvs))}
	if r.CountOnly {
		return resp, nil
	}
	byKey := r.SortTarget == pb.RangeRequest_KEY
	filters := r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
	unordered := r.SortOrder == pb.RangeRequest_NONE || byKey && r.SortOrder == pb.RangeRequest_ASCEND
	if r.Limit > 0 && unordered && !filters && int64(len(kvs)) > r.Limit+1 {
		kvs = kvs[:r.Limit+1]
	}
	kvs = slices.DeleteFunc(slices.Clone(kvs), func(kv *mvccpb.KeyValue) bool {
		return r.MaxModRevision != 0 && kv.ModRevision > r.MaxModRevision || kv.ModRevision < r.MinModRevision ||
			r.MaxCreateRevision != 0 && kv.CreateRevision > r.MaxCreateRevision || kv.CreateRevision < r.MinCreateRevision
	})
	modelSort(kvs, r)
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs, resp.More = kvs[:r.Limit], true
	}
	for _, kv := range kvs {
		kv = proto.Clone(kv).(*mvccpb.KeyValue)
		if r.KeysOnly {
			kv.Value = nil
			if r.SortTarget != pb.RangeRequest_VALUE {
				kv.Lease = 0
			}
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	return resp, nil
}

func modelSort(kvs []*mvccpb.KeyValue, r *pb.RangeRequest) {
	less := map[pb.RangeRequest_SortTarget]func(a, b *mvccpb.KeyValue) int{
		pb.RangeRequest_KEY:     func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) },
		pb.RangeRequest_VERSION: func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.Version, b.Version) },
		pb.RangeRequest_CREATE:  func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) },
		pb.RangeRequest_MOD:     func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) },
		pb.RangeRequest_VALUE:   func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) },
	}[r.SortTarget]
	if r.SortOrder == pb.RangeRequest_DESCEND {
		slices.SortStableFunc(kvs, func(a, b *mvccpb.KeyValue) int { return less(b, a) })
		return
	}
	slices.SortStableFunc(kvs, less)
}

func (t *modelTxn) txn(r *pb.TxnRequest) (proto.Message, error) {
	var chosen []*pb.RequestOp
	t.choose(r, func(op *pb.RequestOp) { chosen = append(chosen, op) })
	if err := t.check(chosen); err != nil {
		return nil, err
	}
	resp := t.execute(r)
	resp.Header.Revision = t.current()
	t.end()
	return resp, nil
}

// choose tells of every operation that will be carried out, in order.
func (t *modelTxn) choose(r *pb.TxnRequest, do func(*pb.RequestOp)) {
	for _, op := range t.way(r) {
		if nested := op.GetRequestTxn(); nested != nil {
			t.choose(nested, do)
			continue
		}
		do(op)
	}
}

func (t *modelTxn) way(r *pb.TxnRequest) []*pb.RequestOp {
	if t.holds(r.Compare) {
		return r.Success
	}
	return r.Failure
}

// check asks whether the operations can be carried out in the state before them.
func (t *modelTxn) check(ops []*pb.RequestOp) error {
	deleted := state{}
	for _, op := range ops {
		if r := op.GetRequestRange(); r != nil && r.Revision != 0 {
			if r.Revision > t.m.current() {
				return rpctypes.ErrGRPCFutureRev
			}
			if r.Revision < t.m.compacted {
				return rpctypes.ErrGRPCCompacted
			}
		}
		if r := op.GetRequestDeleteRange(); r != nil {
			for _, kv := range t.begin.list(r.Key, r.RangeEnd) {
				deleted[string(kv.Key)] = kv
			}
		}
		if r := op.GetRequestPut(); r != nil {
			if r.Lease != 0 && !t.m.leases[r.Lease] {
				return rpctypes.ErrGRPCLeaseNotFound
			}
			if (r.IgnoreLease || r.IgnoreValue) && (t.begin[string(r.Key)] == nil || deleted[string(r.Key)] != nil) {
				return rpctypes.ErrGRPCKeyNotFound
			}
		}
	}
	return nil
}

func (t *modelTxn) execute(r *pb.TxnRequest) *pb.TxnResponse {
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: t.holds(r.Compare)}
	for _, op := range t.way(r) {
		answer := &pb.ResponseOp{}
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			a, err := t.read(o.RequestRange)
			if err != nil {
				panic(err) // it was checked
			}
			answer.Response = &pb.ResponseOp_ResponseRange{ResponseRange: a}
		case *pb.RequestOp_RequestPut:
			answer.Response = &pb.ResponseOp_ResponsePut{ResponsePut: t.put(o.RequestPut)}
		case *pb.RequestOp_RequestDeleteRange:
			answer.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: t.del(o.RequestDeleteRange)}
		case *pb.RequestOp_RequestTxn:
			answer.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: t.execute(o.RequestTxn)}
		}
		resp.Responses = append(resp.Responses, answer)
	}
	return resp
}

func (t *modelTxn) holds(compares []*pb.Compare) bool {
	for _, c := range compares {
		kvs := t.begin.list(c.Key, c.RangeEnd)
		if len(kvs) == 0 {
			if c.Target == pb.Compare_VALUE {
				return false
			}
			kvs = []*mvccpb.KeyValue{{}}
		}
		for _, kv := range kvs {
			d := map[pb.Compare_CompareTarget]int{
				pb.Compare_VERSION: cmp.Compare(kv.Version, c.GetVersion()),
				pb.Compare_CREATE:  cmp.Compare(kv.CreateRevision, c.GetCreateRevision()),
				pb.Compare_MOD:     cmp.Compare(kv.ModRevision, c.GetModRevision()),
				pb.Compare_VALUE:   bytes.Compare(kv.Value, c.GetValue()),
				pb.Compare_LEASE:   cmp.Compare(kv.Lease, c.GetLease()),
			}[c.Target]
			want := map[pb.Compare_CompareResult]bool{
				pb.Compare_EQUAL: d == 0, pb.Compare_NOT_EQUAL: d != 0, pb.Compare_GREATER: d > 0, pb.Compare_LESS: d < 0,
			}
			if !want[c.Result] {
				return false
			}
		}
	}
	return true
}

// overlaps is etcd's rule on keys that a transaction may put twice, or put and delete, said with lists and without haste.
func overlaps(ops []*pb.RequestOp) (puts []string, dels []*pb.DeleteRangeRequest, bad bool) {
	hit := func(key string) bool {
		return slices.Contains(puts, key) || slices.ContainsFunc(dels, func(d *pb.DeleteRangeRequest) bool {
			end := string(d.RangeEnd)
			if end == "" {
				return key == string(d.Key)
			}
			return key >= string(d.Key) && strings.Compare(key, end) < 0
		})
	}
	for _, op := range ops {
		if r := op.GetRequestDeleteRange(); r != nil {
			dels = append(dels, r)
		}
	}
	for _, op := range ops {
		r := op.GetRequestTxn()
		if r == nil {
			continue
		}
		p1, d1, bad1 := overlaps(r.Success)
		p2, d2, bad2 := overlaps(r.Failure)
		if bad1 || bad2 || slices.ContainsFunc(p1, hit) || slices.ContainsFunc(p2, hit) {
			return nil, nil, true
		}
		puts, dels = slices.Concat(puts, p1, p2), slices.Concat(dels, d1, d2)
	}
	for _, op := range ops {
		if r := op.GetRequestPut(); r != nil {
			if hit(string(r.Key)) {
				return nil, nil, true
			}
			puts = append(puts, string(r.Key))
		}
	}
	return puts, dels, false
}
