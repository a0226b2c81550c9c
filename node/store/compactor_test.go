package store

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/kv/keys"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/raftgroup"
)

// alone is a store that is a cluster by itself, on an engine.
func alone(t *testing.T, eng engine.Engine, incarnation base.Incarnation) *Store {
	t.Helper()
	s, err := New(Config{Engine: eng, Node: 1, Incarnation: incarnation, OnFatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func founded(t testing.TB) *engine.Mem {
	t.Helper()
	eng := engine.NewMem()
	id := &metapb.StoreIdentity{ClusterId: 7, NodeId: 1, StoreUuid: make([]byte, 16), Format: FormatVersion}
	if err := Bootstrap(eng, id, &metapb.NodeRecord{NodeId: 1}); err != nil {
		t.Fatal(err)
	}
	return eng
}

// command proposes to the default keyspace until there is a leader, and returns the answer.
func command(t *testing.T, s *Store, cmd *kvpb.Command) (proto.Message, error) {
	t.Helper()
	data, err := proto.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		m   proto.Message
		err error
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		ch := make(chan answer, 1)
		s.Propose(raftgroup.Proposal{Range: base.RangeDefault, Data: data}, Now().Add(5*time.Second), func(m proto.Message, err error) {
			ch <- answer{m, err}
		})
		a := <-ch
		if _, again := a.err.(*base.NotLeader); !again || time.Now().After(deadline) {
			return a.m, a.err
		}
	}
}

func put(t *testing.T, s *Store, key, value string) {
	t.Helper()
	raw, err := proto.Marshal(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command(t, s, &kvpb.Command{Body: &kvpb.Command_Put{Put: raw}}); err != nil {
		t.Fatal(err)
	}
}

func versions(t *testing.T, eng engine.Engine) int {
	t.Helper()
	span := keys.KeyspaceSpan(base.KeyspaceDefault)
	it, err := eng.NewIter(engine.IterOptions{Lower: span.Start, Upper: span.End})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	return n
}

// A compaction removes in the background what no read can see, also when a restart cut it short.
func TestCompactionRemovesVersions(t *testing.T) {
	eng := founded(t)
	s := alone(t, eng, 1)
	for i := range 50 {
		put(t, s, fmt.Sprint("key", i%5), fmt.Sprint(i))
	}
	if n := versions(t, eng); n != 50 {
		t.Fatalf("%d versions, want 50", n)
	}
	s.compactor.cancel() // as if the process had died before it began
	raw, err := proto.Marshal(&pb.CompactionRequest{Revision: 51})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command(t, s, &kvpb.Command{Body: &kvpb.Command_Compaction{Compaction: raw}}); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	s = alone(t, eng, 2)
	defer s.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for versions(t, eng) != 5 {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%d versions are left, want the newest of each of 5 keys", versions(t, eng))
		}
	}
	out := &pb.RangeResponse{}
	if err := s.Read(base.RangeDefault, &pb.RangeRequest{Key: []byte("key3")}, out); err != nil || string(out.Kvs[0].Value) != "48" {
		t.Errorf("%v, %v", out, err)
	}
	if err := s.Read(base.RangeDefault, &pb.RangeRequest{Key: []byte("key3"), Revision: 20}, out); err == nil {
		t.Error("a compacted revision was read")
	}
}

// A step that was begun for a state which a snapshot has replaced meanwhile writes nothing: it would delete a tombstone
// that the snapshot brought together with the older versions under it.
func TestCompactionStopsAtAnInstall(t *testing.T) {
	eng := founded(t)
	s := alone(t, eng, 1)
	defer s.Stop()
	put(t, s, "key", "old")
	put(t, s, "key", "new")
	before := s.replica(base.RangeDefault)
	b := eng.NewBatch()
	must(t, b.Set(keys.RangeCounters(base.RangeDefault), eval.Counters{Revision: 3, Compacted: 3}.Marshal()))
	must(t, b.CommitNoSync())
	if err := s.load(base.RangeDefault); err != nil { // what an install does when its tables are in
		t.Fatal(err)
	}
	view := s.View(base.RangeDefault)
	if _, gone, err := s.compactor.stepOne(base.RangeDefault, before, view, nil); !gone || err != nil {
		t.Errorf("a step for a state that was replaced: gone %v, %v", gone, err)
	}
	if n := versions(t, eng); n != 2 {
		t.Errorf("%d versions, want both", n)
	}
	wider := *view
	wider.Descriptor = desc.Clone(view.Descriptor)
	wider.Descriptor.End = []byte("z") // as it was before a merge
	if _, gone, err := s.compactor.stepOne(base.RangeDefault, s.replica(base.RangeDefault), &wider, nil); !gone || err != nil {
		t.Errorf("a step for a span that has changed: gone %v, %v", gone, err)
	}
	if _, gone, err := s.compactor.stepOne(base.RangeDefault, s.replica(base.RangeDefault), view, nil); gone || err != nil {
		t.Errorf("a step for the present state: gone %v, %v", gone, err)
	}
	if n := versions(t, eng); n != 1 {
		t.Errorf("%d versions, want the newest", n)
	}
}
