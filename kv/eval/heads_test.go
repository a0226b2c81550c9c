package eval

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
)

// A pass that remembers heads answers and writes as one that looks everything up, however small its memory.
func TestHeadsChangeNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		with, without := engine.NewMem(), engine.NewMem()
		heads := NewHeads(rapid.IntRange(1, 8).Draw(rt, "limit"))
		env := [2]Env{}
		for i := range env {
			env[i] = Env{Keyspace: base.KeyspaceDefault, Counters: FirstCounters(), WantResponse: true}
		}
		for range rapid.IntRange(1, 40).Draw(rt, "commands") {
			cmd := drawWrite(rt)
			var got [2]string
			for i, e := range []engine.Engine{with, without} {
				b := e.NewIndexedBatch()
				p := NewPass(b)
				if i == 0 {
					p.Remember(heads)
				}
				resp, err := p.Apply(&env[i], cmd)
				got[i] = fmt.Sprint(resp, err)
				if err := p.Close(); err != nil {
					rt.Fatal(err)
				}
				if err := b.CommitNoSync(); err != nil {
					rt.Fatal(err)
				}
			}
			if got[0] != got[1] || env[0].Counters != env[1].Counters {
				rt.Fatalf("%v\nwith heads:    %s\nwithout heads: %s", cmd, got[0], got[1])
			}
		}
		var all [2]string
		for i, e := range []engine.Engine{with, without} {
			resp, err := Range(e, &env[i], &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
			all[i] = fmt.Sprint(resp, err)
		}
		if all[0] != all[1] {
			rt.Fatalf("with heads:    %s\nwithout heads: %s", all[0], all[1])
		}
	})
}

func drawWrite(t *rapid.T) *kvpb.Command {
	key := []byte(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key"))
	put := &pb.PutRequest{Key: key, Value: []byte(rapid.SampledFrom([]string{"x", "y"}).Draw(t, "value")), PrevKv: rapid.Bool().Draw(t, "prev")}
	if rapid.IntRange(0, 9).Draw(t, "ignore") == 0 {
		put.Value, put.IgnoreValue = nil, true
	}
	encode := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return &kvpb.Command{Body: &kvpb.Command_DeleteRange{DeleteRange: encode(&pb.DeleteRangeRequest{Key: key})}}
	case 1:
		return &kvpb.Command{Body: &kvpb.Command_DeleteRange{DeleteRange: encode(&pb.DeleteRangeRequest{Key: key, RangeEnd: []byte("z")})}}
	case 2:
		return &kvpb.Command{Body: &kvpb.Command_Txn{Txn: encode(&pb.TxnRequest{Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("e"), RangeEnd: []byte("z")}}},
			{Request: &pb.RequestOp_RequestPut{RequestPut: put}},
		}})}}
	}
	return &kvpb.Command{Body: &kvpb.Command_Put{Put: encode(put)}}
}
