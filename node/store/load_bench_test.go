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
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/watch"
	"github.com/cairndb/cairn/raftgroup"
)

func encodePut(b *testing.B, key []byte) []byte {
	put, err := proto.Marshal(&pb.PutRequest{Key: key, Value: make([]byte, 128)})
	must(b, err)
	cmd, err := proto.Marshal(&kvpb.Command{Body: &kvpb.Command_Put{Put: put}})
	must(b, err)
	return cmd
}

// benchStore alone holds a range of a sharded keyspace with keys in it, over an engine in memory.
func benchStore(b *testing.B) *Store {
	eng := engine.NewMem()
	batch := eng.NewBatch()
	must(b, CreateReplica(batch, desctest.First(leftRange, splitSpace), 1))
	must(b, batch.CommitNoSync())
	ready := make(chan struct{}, 1)
	s, err := New(Config{Engine: eng, Node: 1, Incarnation: 1, OnChange: func(c raftgroup.StateChange) {
		if c.Role == raftgroup.Leader {
			select {
			case ready <- struct{}{}:
			default:
			}
		}
	}, OnCold: func(*metapb.RangeDescriptor) {}})
	must(b, err)
	must(b, s.Start(simTransport{}))
	b.Cleanup(s.Stop)
	<-ready
	benchPuts(b, s, 100)
	for deadline := time.Now().Add(10 * time.Second); ; {
		served, err := s.ReadLeased(leftRange, &pb.RangeRequest{Key: []byte("key000001")}, &pb.RangeResponse{})
		must(b, err)
		if served {
			return s
		}
		if time.Now().After(deadline) {
			b.Fatal("no lease")
		}
	}
}

func benchPuts(b *testing.B, s *Store, n int) {
	const window = 256
	slots := make(chan struct{}, window)
	for i := range n {
		slots <- struct{}{}
		s.Propose(raftgroup.Proposal{Range: leftRange, Data: encodePut(b, fmt.Appendf(nil, "key%06d", i%1000))}, base.Never, func(_ proto.Message, err error) {
			if err != nil {
				b.Error(err)
			}
			<-slots
		})
	}
	for range window {
		slots <- struct{}{}
	}
}

// BenchmarkReadLeased is a get at the leader of a range, by as many goroutines as there are cores.
func BenchmarkReadLeased(b *testing.B) {
	s := benchStore(b)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		req, resp := &pb.RangeRequest{Key: []byte("key000001")}, &pb.RangeResponse{}
		for p.Next() {
			if served, err := s.ReadLeased(leftRange, req, resp); !served || err != nil {
				b.Fatalf("served: %t, %v", served, err)
			}
		}
	})
}

// BenchmarkProposed is a put through the log of a range of one replica, 256 at a time: unwatched, and where its events are wanted.
func BenchmarkProposed(b *testing.B) {
	for _, want := range []struct {
		name string
		watch.Want
	}{
		{"unwatched", watch.Want{Range: leftRange}},
		{"watched", watch.Want{Range: leftRange, Events: true}},
		{"watched-prev", watch.Want{Range: leftRange, Events: true, Prev: true}},
	} {
		b.Run(want.name, func(b *testing.B) {
			s := benchStore(b)
			s.Watch(want.Want)
			b.ReportAllocs()
			b.ResetTimer()
			benchPuts(b, s, b.N)
		})
	}
}

// BenchmarkReadLeasedHot is the same of a range that is hot, so that the keys of some reads are looked at.
func BenchmarkReadLeasedHot(b *testing.B) {
	s := benchStore(b)
	req, resp := &pb.RangeRequest{Key: []byte("key000001")}, &pb.RangeResponse{}
	tick := time.NewTicker(base.LoadInterval)
	defer tick.Stop()
	for hot := false; !hot; {
		select {
		case <-tick.C:
			s.Loads(1)
		default:
		}
		_, err := s.ReadLeased(leftRange, req, resp)
		must(b, err)
		t := s.replica(leftRange).load.Load()
		hot = t.due.Load() != noTouch
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		req, resp := &pb.RangeRequest{Key: []byte("key000001")}, &pb.RangeResponse{}
		for p.Next() {
			if served, err := s.ReadLeased(leftRange, req, resp); !served || err != nil {
				b.Fatalf("served: %t, %v", served, err)
			}
		}
	})
}
