package serve

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
)

// heldBackend holds a proposal until it is told to answer.
type heldBackend struct {
	*fakeBackend
	begun, answer chan struct{}
}

func (b *heldBackend) Propose(ctx context.Context, _ base.KeyspaceID, _ []byte, _ *kvpb.Command) (proto.Message, error) {
	close(b.begun)
	select {
	case <-b.answer:
		return &pb.PutResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A call under way ends; a stream that would never end is cut.
func TestGracefulStop(t *testing.T) {
	b := &heldBackend{memberBackend(), make(chan struct{}), make(chan struct{})}
	s, conn := serveOn(t, listen(t), Config{Backend: b})
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	put := make(chan error, 1)
	go func() {
		_, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
		put <- err
	}()
	<-b.begun
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
		t.Fatal("stopped over a call under way")
	case err := <-put:
		t.Fatalf("the call ended by itself: %v", err)
	case b.answer <- struct{}{}:
	}
	if err := <-put; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream: %v", err)
	}
	<-stopped
}

func TestStopCutsGracefulStopShort(t *testing.T) {
	b := &heldBackend{memberBackend(), make(chan struct{}), make(chan struct{})}
	s, conn := serveOn(t, listen(t), Config{Backend: b})
	put := make(chan error, 1)
	go func() {
		_, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
		put <- err
	}()
	<-b.begun
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	s.Stop()
	<-stopped
	if err := <-put; status.Code(err) != codes.Unavailable {
		t.Errorf("the call that was cut: %v", err)
	}
}
