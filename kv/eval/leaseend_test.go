package eval_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
)

// Whatever number of keys a lease holds, and wherever they lie among others, its end does to each what the deletion of that key would: a
// tombstone with its place in the one revision, an event with the version before, and a new life with the next put, be it in the
// batch of the end or later.
func TestDeleteManyLeased(t *testing.T) {
	for _, kind := range engineKinds {
		t.Run(kind.name, func(t *testing.T) {
			e := kind.open(t)
			rapid.Check(t, func(t *rapid.T) {
				wipe(t, e)
				m := &many{T: t, e: e, env: newEnv(base.KeyspaceDefault), of: map[string]int64{}, version: map[string]int64{}}
				m.fill()
				m.end()
			})
		})
	}
}

type many struct {
	*rapid.T
	e   engine.Engine
	env *eval.Env
	p   *eval.Pass
	// The lease of each key that was put, 0 without, and how often it was put in its life.
	of, version map[string]int64
}

func (m *many) begin() engine.Batch {
	b := m.e.NewIndexedBatch()
	m.p = eval.NewPass(b)
	return b
}

func (m *many) commit(b engine.Batch) {
	noError(m, m.p.Close())
	noError(m, b.CommitNoSync())
	noError(m, b.Close())
}

func (m *many) put(key string, lease int64) {
	raw, err := proto.Marshal(&pb.PutRequest{Key: []byte(key), Value: []byte("of " + key), Lease: lease})
	noError(m, err)
	_, err = m.p.Apply(m.env, &kvpb.Command{Body: &kvpb.Command_Put{Put: raw}})
	noError(m, err)
	m.of[key] = lease
	m.version[key]++
}

// fill puts keys, of which a run is dense or thin in those of lease 3, some more than once.
func (m *many) fill() {
	grant(m, m.e, 3)
	grant(m, m.e, 4)
	b := m.begin()
	at := 0
	for range rapid.IntRange(1, 4).Draw(m.T, "runs") {
		one := rapid.SampledFrom([]int{1, 1, 2, 7, 40}).Draw(m.T, "one in")
		for range rapid.IntRange(0, 150).Draw(m.T, "keys") {
			key, lease := fmt.Sprintf("k%05d", at), int64(at%3/2*4)
			if at%one == 0 {
				lease = 3
			}
			for range rapid.SampledFrom([]int{1, 1, 1, 3}).Draw(m.T, "versions") {
				m.put(key, lease)
			}
			at++
		}
		if rapid.Bool().Draw(m.T, "commit") {
			m.commit(b)
			b = m.begin()
		}
	}
	m.commit(b)
}

// end ends lease 3.
func (m *many) end() {
	var events []eval.Event
	m.env.Events, m.env.WantPrev = &events, rapid.Bool().Draw(m.T, "prev")
	heads := eval.NewHeads(64)
	b := m.begin()
	m.p.Remember(heads)
	m.put("k00000", 3)
	m.put("zz", 3)
	events = nil
	before := m.env.Counters.Revision
	n, err := m.p.DeleteLeased(m.env, 3)
	noError(m, err)
	want := 0
	for _, lease := range m.of {
		if lease == 3 {
			want++
		}
	}
	if n != want || len(events) != want || m.env.Counters.Revision != before+1 {
		m.Fatalf("%d deleted and %d told of %d, at %d after %d", n, len(events), want, m.env.Counters.Revision, before)
	}
	for i, ev := range events {
		ok := ev.Record.Tombstone && ev.Record.Mod == before+1 && ev.Record.Sub == uint32(i) && m.of[string(ev.Key)] == 3 &&
			(i == 0 || string(events[i-1].Key) < string(ev.Key)) && (ev.Prev != nil) == m.env.WantPrev
		if !ok || ev.Prev != nil && (string(ev.Prev.Value) != "of "+string(ev.Key) || ev.Prev.Lease != 3) {
			m.Fatalf("event %d: %+v, before it %+v", i, ev, ev.Prev)
		}
	}
	m.env.Events = nil
	m.check(b, len(m.of)-want)
	m.again()
	m.check(b, len(m.of))
	m.commit(b)
	m.check(m.e, len(m.of))
}

// check holds what is there against what was put.
func (m *many) check(r engine.Reader, want int) {
	checkIndex(m, r, m.env)
	resp, err := eval.Range(r, m.env, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	noError(m, err)
	if len(resp.Kvs) != want {
		m.Fatalf("%d keys exist, not %d", len(resp.Kvs), want)
	}
	for _, kv := range resp.Kvs {
		if k := string(kv.Key); kv.Lease != m.of[k] || kv.Version != m.version[k] {
			m.Fatalf("%q is of lease %d, version %d, and not of %d, version %d", k, kv.Lease, kv.Version, m.of[k], m.version[k])
		}
	}
}

// again puts every key that went: it begins a new life.
func (m *many) again() {
	for key, lease := range m.of {
		if lease == 3 {
			m.version[key] = 0
			m.put(key, lease)
		}
	}
}
