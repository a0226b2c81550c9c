package eval_test

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
)

// TestModel holds evaluation against the model: random commands in passes of random length, removals after compactions
// in steps of random size, and reads of every kind. A second replica applies each command in a pass of its own and
// answers nobody; it must come to the same bytes.
func TestModel(t *testing.T) {
	for _, kind := range engineKinds {
		t.Run(kind.name, func(t *testing.T) {
			e, other := kind.open(t), kind.open(t)
			rapid.Check(t, func(t *rapid.T) {
				wipe(t, e)
				wipe(t, other)
				newRun(t, e, other).all()
			})
		})
	}
}

// randomRun is one run of TestModel.
type randomRun struct {
	*rapid.T
	e, other engine.Engine
	env, oth *eval.Env
	m        *model
	now      int64
	draw     generator
	heads    *eval.Heads // of the first replica; the other looks everything up
	events   []eval.Event
}

func newRun(t *rapid.T, e, other engine.Engine) *randomRun {
	ks := base.KeyspaceDefault
	if rapid.Bool().Draw(t, "sharded") {
		ks = 77
	}
	r := &randomRun{T: t, e: e, other: other, env: newEnv(ks), oth: newEnv(ks), m: newModel(ks.Single(), 3), draw: generator{t}}
	grant(t, e, 3)
	grant(t, other, 3)
	r.oth.WantResponse = false
	r.env.Events, r.env.WantPrev = &r.events, rapid.Bool().Draw(t, "with what was before")
	r.heads = eval.NewHeads(rapid.IntRange(1, 4).Draw(t, "heads"))
	return r
}

func (r *randomRun) all() {
	for range rapid.IntRange(1, 12).Draw(r.T, "passes") {
		r.pass()
		for range rapid.IntRange(0, 3).Draw(r.T, "reads") {
			r.read()
		}
		for range rapid.IntRange(1, 6).Draw(r.T, "catch-ups") {
			r.changes()
		}
	}
	checkIndex(r, r.e, r.env)
	checkIndex(r, r.other, r.oth)
	mine, others := contents(r, r.e, r.env.Keyspace), contents(r, r.other, r.env.Keyspace)
	if r.m.compacted < 0 && len(mine) != len(others) {
		r.Fatalf("%d versions here, %d on the other replica", len(mine), len(others))
	}
	theirs := map[string]string{}
	for _, p := range others {
		theirs[p.key] = p.value
	}
	for _, p := range mine {
		if theirs[p.key] != p.value {
			r.Fatalf("%s: %x here, %x on the other replica", keys.Pretty([]byte(p.key)), p.value, theirs[p.key])
		}
	}
	if r.env.Counters != r.oth.Counters {
		r.Fatalf("counters %v here, %v on the other replica", r.env.Counters, r.oth.Counters)
	}
}

// pass applies some commands, and then removes what a compaction let go.
func (r *randomRun) pass() {
	b := r.e.NewIndexedBatch()
	p := eval.NewPass(b)
	p.Remember(r.heads)
	for range rapid.IntRange(1, 8).Draw(r.T, "commands") {
		r.now += int64(rapid.IntRange(0, 3).Draw(r.T, "micros"))
		if rapid.IntRange(0, 9).Draw(r.T, "end of the lease") == 0 {
			r.endLease(p, 3)
			continue
		}
		r.command(p)
	}
	noError(r, p.Close())
	noError(r, b.CommitNoSync())
	noError(r, b.Close())
	if rapid.Bool().Draw(r.T, "remove") {
		r.remove()
	}
}

func (r *randomRun) command(p *eval.Pass) {
	req := r.draw.write(r.m)
	if txn, ok := req.(*pb.TxnRequest); ok {
		_, _, bad1 := overlaps(txn.Success)
		_, _, bad2 := overlaps(txn.Failure)
		if err := eval.CheckTxn(txn, eval.DefaultLimits()); (err == rpctypes.ErrGRPCDuplicateKey) != (bad1 || bad2) {
			r.Fatalf("%v of\n%v", err, txn)
		}
	}
	if check(req) != nil {
		return
	}
	cmd := command(req, r.now)
	r.events = nil
	before := len(r.m.events)
	got, err := p.Apply(r.env, cmd)
	want, wantErr := r.m.apply(req, r.now)
	r.same(req, got, err, want, wantErr)
	r.sameEvents(r.events, slices.Clone(r.m.events[before:]), r.env.WantPrev)
	if rev := int64(r.env.Counters.Revision); rev != r.m.current() {
		r.Fatalf("revision %d after\n%v\nwant %d", rev, req, r.m.current())
	}

	b := r.other.NewIndexedBatch()
	answer, otherErr := eval.Apply(b, r.oth, cmd)
	if answer != nil || otherErr != err {
		r.Fatalf("the other replica answers %v, %v to\n%v\nwant %v", answer, otherErr, req, err)
	}
	noError(r, b.CommitNoSync())
	noError(r, b.Close())
}

// endLease deletes the keys of a lease.
func (r *randomRun) endLease(p *eval.Pass, id int64) {
	r.env.NowMicros, r.oth.NowMicros = r.now, r.now
	before := len(r.m.events)
	want := r.m.endLease(id, r.now)
	r.events = nil
	b := r.other.NewIndexedBatch()
	other := eval.NewPass(b)
	for env, p := range map[*eval.Env]*eval.Pass{r.env: p, r.oth: other} {
		n, err := p.DeleteLeased(env, id)
		noError(r, err)
		if n != want || int64(env.Counters.Revision) != r.m.current() {
			r.Fatalf("%d keys of the lease are deleted at %d, want %d at %d", n, env.Counters.Revision, want, r.m.current())
		}
	}
	r.sameEvents(r.events, slices.Clone(r.m.events[before:]), r.env.WantPrev)
	noError(r, other.Close())
	noError(r, b.CommitNoSync())
	noError(r, b.Close())
}

// remove lets the first replica do what it may after a compaction. It may stop before the end.
func (r *randomRun) remove() {
	compacted := base.Revision(r.m.compacted)
	for p := (eval.Progress{}); !p.Done; {
		b := r.e.NewBatch()
		var err error
		p, err = eval.CompactStep(r.e, b, keys.KeyspaceSpan(r.env.Keyspace), compacted, p.Cursor, rapid.IntRange(1, 9).Draw(r.T, "budget"))
		noError(r, err)
		noError(r, b.CommitNoSync())
		noError(r, b.Close())
		if rapid.IntRange(0, 9).Draw(r.T, "stop") == 0 {
			return
		}
	}
	r.removed(compacted)
}

// removed checks that nothing is left that no read can ask for.
func (r *randomRun) removed(compacted base.Revision) {
	covered := ""
	for _, p := range contents(r, r.e, r.env.Keyspace) {
		prefix := p.key[:keys.Split([]byte(p.key))]
		rev, _ := keys.DataRevision([]byte(p.key))
		rec, err := eval.DecodeRecord(rev, []byte(p.value))
		noError(r, err)
		if rev > compacted {
			continue
		}
		if prefix == covered || rec.Tombstone && rev < compacted {
			r.Fatalf("%s is still there after a compaction at %d", keys.Pretty([]byte(p.key)), compacted)
		}
		covered = prefix
	}
}

func (r *randomRun) read() {
	if rapid.Bool().Draw(r.T, "txn") {
		req := r.draw.txn(r.m, 2, true)
		got, err := eval.ReadTxn(r.e, r.env, req)
		want, wantErr := r.m.apply(req, r.now)
		r.same(req, got, err, want, wantErr)
		return
	}
	req := r.draw.read(r.m)
	got, err := eval.Range(r.e, r.env, req)
	want, wantErr := r.m.read(req)
	r.same(req, got, err, want, wantErr)
	if wantErr == nil && eval.InKeyOrder(req) && !req.CountOnly {
		r.pages(req)
	}
}

// pages reads a span page by page: together they are the whole, and their counts are the count.
func (r *randomRun) pages(req *pb.RangeRequest) {
	whole := proto.CloneOf(req)
	whole.Limit = 0
	want, err := r.m.read(whole)
	noError(r, err)
	page, most := proto.CloneOf(req), rapid.IntRange(0, 400).Draw(r.T, "page bytes")
	got := &pb.RangeResponse{Header: want.Header}
	for {
		resp, err := eval.Page(r.e, r.env, page, most)
		noError(r, err)
		got.Kvs, got.Count = append(got.Kvs, resp.Kvs...), got.Count+resp.Count
		size := 0
		for _, kv := range resp.Kvs[:max(0, len(resp.Kvs)-1)] {
			size += eval.PairBytes(kv)
		}
		if req.Limit > 0 && len(resp.Kvs) > int(req.Limit) || size >= max(1, most) {
			r.Fatalf("%d pairs are too many for a page of %d bytes and of %v", len(resp.Kvs), most, req)
		}
		if !resp.More {
			break
		}
		page.Key = append(bytes.Clone(resp.Kvs[len(resp.Kvs)-1].Key), 0)
	}
	r.same(whole, got, nil, want, nil)
}

func (r *randomRun) same(req, got proto.Message, err error, want proto.Message, wantErr error) {
	if err != wantErr {
		r.Fatalf("%v to\n%v\nwant %v", err, req, wantErr)
	}
	if err == nil && !proto.Equal(got, want) {
		r.Fatalf("to\n%v\ngot  %v\nwant %v", req, got, want)
	}
}

// generator draws requests over few keys, so that they meet.
type generator struct{ t *rapid.T }

func (g generator) key() []byte {
	return []byte(rapid.SampledFrom([]string{"a", "a\x00", "b", "b\x00\xff", "c", "d\xff", "\x00"}).Draw(g.t, "key"))
}

func (g generator) end() []byte {
	return []byte(rapid.SampledFrom([]string{"", "", "\x00", "a\x00", "b", "c", "e", "\xff"}).Draw(g.t, "end"))
}

func (g generator) flag(name string) bool { return rapid.IntRange(0, 3).Draw(g.t, name) == 0 }

func (g generator) rev(m *model, name string) int64 {
	return rapid.Int64Range(-2, 3).Draw(g.t, name) + rapid.SampledFrom([]int64{0, m.compacted, m.current(), m.current() / 2}).Draw(g.t, name)
}

func (g generator) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), PrevKv: g.flag("prev"), IgnoreValue: g.flag("ignore value"), IgnoreLease: g.flag("ignore lease")}
	if !r.IgnoreValue {
		r.Value = []byte(rapid.SampledFrom([]string{"", "v", "w", "a longer value than the others"}).Draw(g.t, "value"))
	}
	if !r.IgnoreLease {
		r.Lease = rapid.SampledFrom([]int64{0, 0, 0, 3, 3, 4}).Draw(g.t, "lease")
	}
	return r
}

func (g generator) del() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: g.key(), RangeEnd: g.end(), PrevKv: g.flag("prev")}
}

func (g generator) read(m *model) *pb.RangeRequest {
	r := &pb.RangeRequest{
		Key: g.key(), RangeEnd: g.end(), Limit: rapid.Int64Range(-1, 4).Draw(g.t, "limit"),
		KeysOnly: g.flag("keys only"), CountOnly: g.flag("count only"),
	}
	if g.flag("past") {
		r.Revision = g.rev(m, "revision")
	}
	if g.flag("order") {
		r.SortOrder = pb.RangeRequest_SortOrder(rapid.Int32Range(0, 2).Draw(g.t, "order"))
		r.SortTarget = pb.RangeRequest_SortTarget(rapid.Int32Range(0, 4).Draw(g.t, "target"))
	}
	for _, bound := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if rapid.IntRange(0, 9).Draw(g.t, "bounded") == 0 {
			*bound = max(0, g.rev(m, "bound"))
		}
	}
	return r
}

func (g generator) compare(m *model) *pb.Compare {
	c := &pb.Compare{
		Key: g.key(), Result: pb.Compare_CompareResult(rapid.Int32Range(0, 3).Draw(g.t, "result")),
		Target: pb.Compare_CompareTarget(rapid.Int32Range(0, 4).Draw(g.t, "target")),
	}
	if g.flag("range") {
		c.RangeEnd = g.end()
	}
	switch c.Target {
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: []byte(rapid.SampledFrom([]string{"", "v", "w"}).Draw(g.t, "value"))}
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: rapid.Int64Range(0, 3).Draw(g.t, "version")}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.rev(m, "revision")}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.rev(m, "revision")}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: rapid.SampledFrom([]int64{0, 3}).Draw(g.t, "lease")}
	}
	return c
}

func (g generator) txn(m *model, depth int, readOnly bool) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range rapid.IntRange(0, 2).Draw(g.t, "compares") {
		t.Compare = append(t.Compare, g.compare(m))
	}
	for _, ops := range []*[]*pb.RequestOp{&t.Success, &t.Failure} {
		for range rapid.IntRange(0, 3).Draw(g.t, "operations") {
			*ops = append(*ops, g.op(m, depth, readOnly))
		}
	}
	return t
}

func (g generator) op(m *model, depth int, readOnly bool) *pb.RequestOp {
	kind := rapid.SampledFrom([]string{"range", "txn", "put", "put", "del"}).Draw(g.t, "operation")
	switch {
	case kind == "txn" && depth > 0:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(m, depth-1, readOnly)}}
	case kind == "put" && !readOnly:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}}
	case kind == "del" && !readOnly:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.del()}}
	}
	r := g.read(m)
	if rapid.IntRange(0, 3).Draw(g.t, "now") > 0 {
		r.Revision = 0 // one refused range refuses all of a transaction
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func (g generator) write(m *model) proto.Message {
	switch rapid.IntRange(0, 9).Draw(g.t, "command") {
	case 0:
		return &pb.CompactionRequest{Revision: g.rev(m, "revision")}
	case 1, 2:
		return g.del()
	case 3, 4, 5:
		return g.put()
	}
	return g.txn(m, 2, false)
}
