package serve

import (
	"context"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
)

// BenchmarkPut is what the way in and out costs: small puts of many clients over some connections, against a node
// that answers at once.
func BenchmarkPut(b *testing.B) {
	const conns, clients = 8, 256
	backend := &benchBackend{memberBackend()}
	l := listen(b)
	s, err := NewServer(Config{Backend: backend, Membership: fakeMembership{}})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.AlsoHTTP(putHandler); err != nil { // as every node does
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	defer func() {
		s.Stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}()
	var kvs []pb.KVClient
	for range conns {
		conn, err := join.Dial(l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer func(c *grpc.ClientConn) { _ = c.Close() }(conn)
		kvs = append(kvs, pb.NewKVClient(conn))
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			req := &pb.PutRequest{Key: make([]byte, 16), Value: make([]byte, 128)}
			for i := c; i < b.N; i += clients {
				if _, err := kvs[c%conns].Put(b.Context(), req); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// benchBackend answers puts and remembers nothing.
type benchBackend struct{ *fakeBackend }

func (*benchBackend) Propose(context.Context, base.KeyspaceID, []byte, *kvpb.Command) (proto.Message, error) {
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: fakeRevision}}, nil
}

// BenchmarkCounts is what it costs each call that it is counted.
func BenchmarkCounts(b *testing.B) {
	s, err := NewServer(Config{Backend: memberBackend(), Membership: fakeMembership{}})
	if err != nil {
		b.Fatal(err)
	}
	s.counts.know(s.Server)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			s.counts.begin(pb.KV_Put_FullMethodName).end(nil)
		}
	})
}
