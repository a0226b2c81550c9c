package eval_test

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
)

// The benchmarks work on a store of benchKeys keys of 16 bytes with values of 128 bytes, like those of facts.md.
const benchKeys = 100_000

func benchKey(i int) []byte { return fmt.Appendf(nil, "key%013d", i%benchKeys) }

func fill(b *testing.B, e engine.Engine) *eval.Env {
	env := newEnv(base.KeyspaceDefault)
	cmds := make([]*kvpb.Command, benchKeys)
	for i := range cmds {
		cmds[i] = command(&pb.PutRequest{Key: benchKey(i), Value: make([]byte, 128)}, 0)
	}
	applyAll(b, e, env, cmds)
	noError(b, e.Flush())
	return env
}

func applyAll(b *testing.B, e engine.Engine, env *eval.Env, cmds []*kvpb.Command) {
	batch := e.NewIndexedBatch()
	p := eval.NewPass(batch)
	for _, cmd := range cmds {
		if _, err := p.Apply(env, cmd); err != nil {
			b.Fatal(err)
		}
	}
	noError(b, p.Close())
	noError(b, batch.CommitNoSync())
	noError(b, batch.Close())
}

// onEngines runs a benchmark on every engine, filled. Its report is per operation of b.N.
func onEngines(b *testing.B, run func(b *testing.B, e engine.Engine, env *eval.Env)) {
	for _, kind := range engineKinds {
		b.Run(kind.name, func(b *testing.B) {
			e := kind.open(b)
			env := fill(b, e)
			b.ReportAllocs()
			b.ResetTimer()
			run(b, e, env)
		})
	}
}

// BenchmarkPut is a put at apply, in passes of different lengths.
func BenchmarkPut(b *testing.B) {
	for _, pass := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("pass=%d", pass), func(b *testing.B) {
			onEngines(b, func(b *testing.B, e engine.Engine, env *eval.Env) {
				cmds := make([]*kvpb.Command, pass)
				for n := 0; n < b.N; n += pass {
					b.StopTimer()
					for i := range cmds {
						cmds[i] = command(&pb.PutRequest{Key: benchKey((n + i) * 7919), Value: make([]byte, 128)}, 0)
					}
					b.StartTimer()
					applyAll(b, e, env, cmds)
				}
			})
		})
	}
}

// BenchmarkTxn is Kubernetes' update: if the key is as it was last seen, put it, else read it.
func BenchmarkTxn(b *testing.B) {
	onEngines(b, func(b *testing.B, e engine.Engine, env *eval.Env) {
		cmds := make([]*kvpb.Command, 16)
		for n := 0; n < b.N; n += len(cmds) {
			b.StopTimer()
			for i := range cmds {
				key := benchKey((n + i) * 7919)
				cmds[i] = command(&pb.TxnRequest{
					Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_GREATER}},
					Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: make([]byte, 128)}}}},
					Failure: []*pb.RequestOp{read(string(key))},
				}, 0)
			}
			b.StartTimer()
			applyAll(b, e, env, cmds)
		}
	})
}

func benchRange(b *testing.B, request func(i int) *pb.RangeRequest, count int64) {
	onEngines(b, func(b *testing.B, e engine.Engine, env *eval.Env) {
		for i := range b.N {
			resp, err := eval.Range(e, env, request(i))
			if err != nil || resp.Count != count {
				b.Fatal(resp, err)
			}
		}
	})
}

// BenchmarkGet reads one key.
func BenchmarkGet(b *testing.B) {
	benchRange(b, func(i int) *pb.RangeRequest { return &pb.RangeRequest{Key: benchKey(i * 7919)} }, 1)
}

// BenchmarkRange1000 reads a thousand keys.
func BenchmarkRange1000(b *testing.B) {
	benchRange(b, func(i int) *pb.RangeRequest {
		at := i * 1000 % (benchKeys - 1000)
		return &pb.RangeRequest{Key: benchKey(at), RangeEnd: benchKey(at + 1000)}
	}, 1000)
}

// BenchmarkPage reads a page of 1 MiB, from the first key on; its report is per page.
func BenchmarkPage(b *testing.B) {
	onEngines(b, func(b *testing.B, e engine.Engine, env *eval.Env) {
		keys := 0
		for b.Loop() {
			resp, err := eval.Page(e, env, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, base.PageBytes)
			if err != nil || !resp.More {
				b.Fatal(resp, err)
			}
			keys += len(resp.Kvs)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(keys), "ns/key")
	})
}

// BenchmarkCount counts every key of the store.
func BenchmarkCount(b *testing.B) {
	benchRange(b, func(int) *pb.RangeRequest {
		return &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}
	}, benchKeys)
}

// BenchmarkCheckTxn is what every transaction pays before it is proposed.
func BenchmarkCheckTxn(b *testing.B) {
	txn := &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("k"), Target: pb.Compare_MOD}},
		Success: []*pb.RequestOp{put("k")}, Failure: []*pb.RequestOp{read("k")},
	}
	limits := eval.DefaultLimits()
	b.ReportAllocs()
	for b.Loop() {
		noError(b, eval.CheckTxn(txn, limits))
	}
}

// BenchmarkLeased is a put with a lease, or without one.
func BenchmarkLeased(b *testing.B) {
	for _, lease := range []int64{0, 3} {
		b.Run(fmt.Sprintf("put/lease=%d", lease), func(b *testing.B) {
			onEngines(b, func(b *testing.B, e engine.Engine, env *eval.Env) {
				grant(b, e, 3)
				cmds := make([]*kvpb.Command, 16)
				for n := 0; n < b.N; n += len(cmds) {
					for i := range cmds {
						cmds[i] = command(&pb.PutRequest{Key: benchKey((n + i) * 7919), Value: make([]byte, 128), Lease: lease}, 0)
					}
					applyAll(b, e, env, cmds)
				}
			})
		})
	}
}
