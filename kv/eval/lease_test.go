package eval_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
)

// testRange is the range of newEnv.
const testRange base.RangeID = 9

// grant writes a lease as its home holds it.
func grant(t fataler, e engine.Engine, id int64) {
	t.Helper()
	raw, err := proto.Marshal(&kvpb.LeaseRecord{Id: id, Ttl: 10, GrantedRevision: 1})
	noError(t, err)
	b := e.NewBatch()
	noError(t, b.Set(keys.RangeLease(testRange, id), raw))
	noError(t, b.CommitNoSync())
	noError(t, b.Close())
}

// checkIndex compares the index of leases with what the keys' newest versions say.
func checkIndex(t fataler, r engine.Reader, env *eval.Env) {
	t.Helper()
	want := map[string]bool{}
	resp, err := eval.Range(r, env, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	noError(t, err)
	for _, kv := range resp.Kvs {
		if kv.Lease != 0 {
			want[string(keys.RangeLeaseKey(env.Range, kv.Lease, kv.Key))] = true
		}
	}
	span := keys.RangeLeaseKeysSpan(env.Range)
	it, err := r.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	noError(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		if !want[string(it.Key())] {
			t.Fatalf("%s is in the index, and not so", keys.Pretty(it.Key()))
		}
		delete(want, string(it.Key()))
	}
	noError(t, it.Error())
	noError(t, it.Close())
	for k := range want {
		t.Fatalf("%s is missing in the index", keys.Pretty([]byte(k)))
	}
}

// A lease's keys go in one revision, in the order of the keys, and none of another lease's with them.
func TestDeleteLeased(t *testing.T) {
	e := engine.NewMem()
	env := newEnv(base.KeyspaceDefault)
	grant(t, e, 3)
	grant(t, e, -4)
	b := e.NewIndexedBatch()
	p := eval.NewPass(b)
	p.Remember(eval.NewHeads(8))
	put := func(key string, lease int64) {
		t.Helper()
		raw, err := proto.Marshal(&pb.PutRequest{Key: []byte(key), Value: []byte("v"), Lease: lease})
		noError(t, err)
		_, err = p.Apply(env, &kvpb.Command{Body: &kvpb.Command_Put{Put: raw}})
		noError(t, err)
	}
	for _, k := range []string{"d", "b", "a\x00", "a", "moved"} {
		put(k, 3)
	}
	put("other", -4)
	put("moved", -4)
	put("none", 0)
	before := env.Counters.Revision
	var events []eval.Event
	env.Events = &events
	n, err := p.DeleteLeased(env, 3)
	noError(t, err)
	if n != 4 || env.Counters.Revision != before+1 {
		t.Fatalf("%d deleted, at %d after %d", n, env.Counters.Revision, before)
	}
	for i, want := range []string{"a", "a\x00", "b", "d"} {
		if ev := events[i]; string(ev.Key) != want || !ev.Record.Tombstone || ev.Record.Sub != uint32(i) || ev.Record.Mod != before+1 {
			t.Errorf("event %d is %q %+v", i, ev.Key, ev.Record)
		}
	}
	if n, err := p.DeleteLeased(env, 3); n != 0 || err != nil || env.Counters.Revision != before+1 {
		t.Fatalf("again: %d, %v, at %d", n, err, env.Counters.Revision)
	}
	checkIndex(t, b, env)
	held, next, err := eval.ReadLeaseKeys(b, testRange, -4, nil, 1)
	if err != nil || len(held) != 1 || string(held[0]) != "moved" || string(next) != "other" {
		t.Fatalf("the first page is %q, then %q, %v", held, next, err)
	}
	held, next, err = eval.ReadLeaseKeys(b, testRange, -4, next, 1)
	if err != nil || len(held) != 1 || string(held[0]) != "other" || next != nil {
		t.Fatalf("the last page is %q, then %q, %v", held, next, err)
	}
	noError(t, p.Close())
	noError(t, b.Close())
}

// Pages of leases are in the order of eight bytes, and none is lost between two.
func TestReadLeases(t *testing.T) {
	e := engine.NewMem()
	want := []int64{1, 2, 1 << 40, 1<<63 - 1, -1 << 63, -1}
	for _, id := range want {
		grant(t, e, id)
	}
	for limit := 1; limit <= len(want)+1; limit++ {
		var got []int64
		for from := int64(0); ; {
			page, next, err := eval.ReadLeases(e, testRange, from, limit)
			noError(t, err)
			for _, rec := range page {
				got = append(got, rec.Id)
			}
			if from = next; from == 0 {
				break
			}
		}
		for i := range want {
			if len(got) != len(want) || got[i] != want[i] {
				t.Fatalf("in pages of %d: %x", limit, got)
			}
		}
	}
	if !bytes.Equal(eval.LeaseHome(-1), bytes.Repeat([]byte{0xff}, 8)) {
		t.Error("the home of lease -1")
	}
}
