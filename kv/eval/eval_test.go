package eval_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
)

func put(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func read(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

func nest(ops ...*pb.RequestOp) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: ops}}}
}

func repeat[T any](n int, make func(i int) T) (all []T) {
	for i := range n {
		all = append(all, make(i))
	}
	return all
}

func TestLimits(t *testing.T) {
	one := func(int) *pb.RequestOp { return read("k") }
	compare := func(int) *pb.Compare { return &pb.Compare{Key: []byte("k")} }
	limits := eval.Limits{MaxTxnOps: 4, MaxRequestBytes: 100}
	large := &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 100)}
	fits := &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 90)}
	largeOp := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: large}}
	for name, c := range map[string]struct{ got, want error }{
		"as many as there may be":     {eval.CheckTxn(&pb.TxnRequest{Compare: repeat(4, compare), Success: repeat(4, one), Failure: repeat(4, one)}, limits), nil},
		"a comparison too many":       {eval.CheckTxn(&pb.TxnRequest{Compare: repeat(5, compare)}, limits), rpctypes.ErrGRPCTooManyOps},
		"an operation too many":       {eval.CheckTxn(&pb.TxnRequest{Success: repeat(5, one)}, limits), rpctypes.ErrGRPCTooManyOps},
		"on the other side":           {eval.CheckTxn(&pb.TxnRequest{Failure: repeat(5, one)}, limits), rpctypes.ErrGRPCTooManyOps},
		"a nested one has the rest":   {eval.CheckTxn(&pb.TxnRequest{Success: []*pb.RequestOp{nest(repeat(3, one)...)}}, limits), nil},
		"and no more":                 {eval.CheckTxn(&pb.TxnRequest{Success: []*pb.RequestOp{nest(repeat(4, one)...)}}, limits), rpctypes.ErrGRPCTooManyOps},
		"too many before empty keys":  {eval.CheckTxn(&pb.TxnRequest{Compare: repeat(5, func(int) *pb.Compare { return &pb.Compare{} })}, limits), rpctypes.ErrGRPCTooManyOps},
		"a put that fits":             {eval.CheckPut(fits, limits), nil},
		"a put that is too large":     {eval.CheckPut(large, limits), rpctypes.ErrGRPCRequestTooLarge},
		"a delete that is too large":  {eval.CheckDeleteRange(&pb.DeleteRangeRequest{Key: make([]byte, 101)}, limits), rpctypes.ErrGRPCRequestTooLarge},
		"a txn that is too large":     {eval.CheckTxn(&pb.TxnRequest{Success: []*pb.RequestOp{largeOp}}, limits), rpctypes.ErrGRPCRequestTooLarge},
		"a read may be of any size":   {eval.CheckTxn(&pb.TxnRequest{Success: []*pb.RequestOp{read(strings.Repeat("k", 200))}}, limits), nil},
		"the key comes before a size": {eval.CheckPut(&pb.PutRequest{Value: make([]byte, 101)}, limits), rpctypes.ErrGRPCEmptyKey},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

// TestManyOverlaps: a transaction as large as a request may be is checked in no time, however it is nested.
func TestManyOverlaps(t *testing.T) {
	leaf := func(i int) *pb.RequestOp { return put(fmt.Sprint(i)) }
	n := 0
	var tree func(depth int) *pb.RequestOp
	tree = func(depth int) *pb.RequestOp {
		if depth == 0 {
			n += 3
			return nest(leaf(n), leaf(n+1), &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
				RequestDeleteRange: &pb.DeleteRangeRequest{Key: fmt.Append(nil, "d", n)},
			}})
		}
		return nest(tree(depth-1), tree(depth-1), tree(depth-1))
	}
	root := tree(9)
	for range 80 {
		root = nest(root)
	}
	req := &pb.TxnRequest{Success: []*pb.RequestOp{root}}
	limits := eval.DefaultLimits()
	limits.MaxRequestBytes = proto.Size(req)
	noError(t, eval.CheckTxn(req, limits))
	req.Success = append(req.Success, put("30"))
	if err := eval.CheckTxn(req, limits); err != rpctypes.ErrGRPCDuplicateKey {
		t.Fatal(err)
	}
}

func TestReadOnly(t *testing.T) {
	for _, c := range []struct {
		ops  []*pb.RequestOp
		want bool
	}{
		{nil, true},
		{[]*pb.RequestOp{read("k"), nest(read("k"))}, true},
		{[]*pb.RequestOp{read("k"), put("k")}, false},
		{[]*pb.RequestOp{nest(read("k"), nest(put("k")))}, false},
		{[]*pb.RequestOp{{}}, false},
	} {
		for _, txn := range []*pb.TxnRequest{{Success: c.ops}, {Failure: c.ops}} {
			if eval.IsReadOnly(txn) != c.want || eval.IsWrite(txn) == c.want {
				t.Errorf("%v: want %v", txn, c.want)
			}
		}
	}
}

// A transaction that may write is not let through as a read.
func TestReadTxnRefusesWrites(t *testing.T) {
	e := engineKinds[0].open(t)
	if _, err := eval.ReadTxn(e, newEnv(base.KeyspaceDefault), &pb.TxnRequest{Failure: []*pb.RequestOp{put("k")}}); err == nil || eval.Refused(err) {
		t.Fatal(err)
	}
}

// TestDamage: whatever meets a damaged version says so, and takes it for no refusal.
func TestDamage(t *testing.T) {
	for _, kind := range engineKinds {
		e := kind.open(t)
		env := newEnv(base.KeyspaceDefault)
		env.Counters.Revision = 5
		for what, damage := range map[string]struct{ key, value []byte }{
			"value":    {keys.Data(nil, env.Keyspace, []byte("k"), 3), []byte{0xF0}},
			"revision": {keys.Data(nil, env.Keyspace, []byte("k"), 0), []byte{0x02}},
			"empty":    {keys.Data(nil, env.Keyspace, []byte("k"), 3), nil},
		} {
			wipe(t, e)
			b := e.NewBatch()
			noError(t, b.Set(damage.key, damage.value))
			noError(t, b.CommitNoSync())
			noError(t, b.Close())
			for name, err := range meet(t, e, env) {
				if corruption := (*base.Corruption)(nil); !errors.As(err, &corruption) || eval.Refused(err) {
					t.Errorf("%s: damaged %s: %s says %v", kind.name, what, name, err)
				}
			}
		}
	}
}

// meet has everything that looks at "k" look at it.
func meet(t *testing.T, e engine.Engine, env *eval.Env) map[string]error {
	key, end := []byte("k"), []byte("l")
	compare := func(c *pb.Compare) *pb.TxnRequest { return &pb.TxnRequest{Compare: []*pb.Compare{c}} }
	got := map[string]error{}
	_, got["get"] = eval.Range(e, env, &pb.RangeRequest{Key: key})
	_, got["range"] = eval.Range(e, env, &pb.RangeRequest{Key: key, RangeEnd: end})
	_, got["compare"] = eval.ReadTxn(e, env, compare(&pb.Compare{Key: key}))
	_, got["compare range"] = eval.ReadTxn(e, env, compare(&pb.Compare{Key: key, RangeEnd: end}))
	_, _, got["Get"] = eval.Get(e, env.Keyspace, key)
	for name, req := range map[string]proto.Message{
		"put":          &pb.PutRequest{Key: key},
		"delete":       &pb.DeleteRangeRequest{Key: key},
		"delete range": &pb.DeleteRangeRequest{Key: key, RangeEnd: end, PrevKv: true},
		"txn":          &pb.TxnRequest{Success: []*pb.RequestOp{put("k")}},
	} {
		b := e.NewIndexedBatch()
		before := env.Counters
		_, got[name] = eval.Apply(b, env, command(req, 0))
		if env.Counters != before {
			t.Errorf("%s: counters %v, before %v", name, env.Counters, before)
		}
		noError(t, b.Close())
	}
	return got
}

// TestUnreadable: a command that cannot be read is damage, not a refusal: the log is what all replicas agree on.
func TestUnreadable(t *testing.T) {
	e := engineKinds[0].open(t)
	bad := []byte{0xFF}
	for _, cmd := range []*kvpb.Command{
		{},
		{Body: &kvpb.Command_ChangeReplicas{}},
		{Body: &kvpb.Command_Put{Put: bad}},
		{Body: &kvpb.Command_DeleteRange{DeleteRange: bad}},
		{Body: &kvpb.Command_Txn{Txn: bad}},
		{Body: &kvpb.Command_Compaction{Compaction: bad}},
	} {
		b := e.NewIndexedBatch()
		_, err := eval.Apply(b, newEnv(base.KeyspaceDefault), cmd)
		if corruption := (*base.Corruption)(nil); !errors.As(err, &corruption) || eval.Refused(err) || !b.Empty() {
			t.Errorf("%v: %v", cmd, err)
		}
		noError(t, b.Close())
	}
}

// TestSmallSteps: a removal comes to its end, however small its steps are.
func TestSmallSteps(t *testing.T) {
	const versions = 20
	for _, kind := range engineKinds {
		e := kind.open(t)
		env := newEnv(base.KeyspaceDefault)
		for range versions {
			b := e.NewIndexedBatch()
			_, err := eval.Apply(b, env, command(&pb.PutRequest{Key: []byte("k")}, 0))
			noError(t, err)
			noError(t, b.CommitNoSync())
			noError(t, b.Close())
		}
		var p eval.Progress
		for steps := 0; !p.Done; steps++ {
			if steps > 2*versions {
				t.Fatalf("%s: the removal does not come to its end", kind.name)
			}
			b := e.NewBatch()
			var err error
			p, err = eval.CompactStep(e, b, keys.KeyspaceSpan(env.Keyspace), env.Counters.Revision, p.Cursor, 1)
			noError(t, err)
			noError(t, b.CommitNoSync())
			noError(t, b.Close())
		}
		if left := contents(t, e, env.Keyspace); len(left) != 1 {
			t.Fatalf("%s: %d versions are left", kind.name, len(left))
		}
	}
}

// TestPassPut: what meta/apply writes of its own goes through the same pass, under the same rule of revisions.
func TestPassPut(t *testing.T) {
	for _, kind := range engineKinds {
		e := kind.open(t)
		b := e.NewIndexedBatch()
		p := eval.NewPass(b)
		env := newEnv(base.KeyspaceMeta)
		env.End = []byte("m")
		if _, ok, err := p.Newest(env.Keyspace, []byte("k")); ok || err != nil {
			t.Fatal(ok, err)
		}
		env.NowMicros = 100
		rev, err := p.Put(env, []byte("k"), []byte("1"))
		if rev != 100 || err != nil {
			t.Fatal(rev, err)
		}
		if rev, err = p.Put(env, []byte("k"), []byte("2")); rev != 101 || err != nil {
			t.Fatal(rev, err)
		}
		rec, ok, err := p.Newest(env.Keyspace, []byte("k"))
		if string(rec.Value) != "2" || rec.Create != 100 || rec.Version != 2 || !ok || err != nil {
			t.Fatal(rec, ok, err)
		}
		if _, err := p.Put(env, []byte("n"), nil); err != eval.ErrOutOfSpan || env.Counters.Revision != 101 {
			t.Fatal(err, env.Counters)
		}
		noError(t, p.Close())
		noError(t, b.CommitNoSync())
		noError(t, b.Close())
		rec, ok, err = eval.Get(e, env.Keyspace, []byte("k"))
		if string(rec.Value) != "2" || !ok || err != nil {
			t.Fatal(rec, ok, err)
		}
	}
}

// TestLongPass: a pass sees its own writes, however many there are.
func TestLongPass(t *testing.T) {
	const n = 20_000
	e := engineKinds[0].open(t)
	b := e.NewIndexedBatch()
	p := eval.NewPass(b)
	env := newEnv(base.KeyspaceDefault)
	for round := range 2 {
		for i := range n {
			if round == 1 {
				i = n - 1 - i // what was written last is looked up before anything has the iterator opened anew
			}
			req := &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i), PrevKv: true}
			resp, err := p.Apply(env, command(req, 0))
			noError(t, err)
			if prev := resp.(*pb.PutResponse).PrevKv; prev.GetVersion() != int64(round) {
				t.Fatalf("round %d: before key %d there was %v", round, i, prev)
			}
		}
	}
	noError(t, p.Close())
	noError(t, b.Close())
}

// Several ranges may share a pass: each sees its own writes, those of this pass too, and remembers its own keys.
func TestPassOfSeveralRanges(t *testing.T) {
	for _, kind := range engineKinds {
		t.Run(kind.name, func(t *testing.T) {
			e := kind.open(t)
			envs := []*eval.Env{newEnv(4), newEnv(5), newEnv(6)}
			heads := []*eval.Heads{eval.NewHeads(2), eval.NewHeads(2), nil}
			for round := range 3 {
				b := e.NewIndexedBatch()
				p := eval.NewPass(b)
				for i := range 30 {
					at := i % len(envs)
					p.Remember(heads[at])
					resp, err := p.Apply(envs[at], command(&pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i%2), PrevKv: true}, 0))
					noError(t, err)
					want := int64(5*round + i/6) // of the key in this range before this put: each of six pairs in turn
					if got := resp.(*pb.PutResponse).PrevKv.GetVersion(); got != want {
						t.Fatalf("round %d, put %d follows version %d, not %d", round, i, got, want)
					}
				}
				noError(t, p.Close())
				noError(t, b.CommitNoSync())
				noError(t, b.Close())
			}
		})
	}
}
