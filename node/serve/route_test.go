package serve

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/join"
)

// Who says which range it took the key to be in is told what it did not know, and only that; etcd's clients are told nothing.
func TestRouteTrailer(t *testing.T) {
	desc := &metapb.RangeDescriptor{RangeId: 7, KeyspaceId: 4, Generation: 3, Replicas: []*metapb.Replica{{NodeId: 1}, {NodeId: 2}}}
	for _, c := range []struct {
		hint   string // empty: an etcd client
		leader base.NodeID
		want   string
	}{
		{"", 2, "nothing"},
		{"7.3", 1, "nothing"},
		{"7.4", 1, "nothing"},
		{"7.2", 1, "r7 gen 3, led by n1 here, 2 addresses"},
		{"6.9", 1, "r7 gen 3, led by n1 here, 2 addresses"},
		{"0.0", 1, "r7 gen 3, led by n1 here, 2 addresses"},
		{"nonsense", 1, "r7 gen 3, led by n1 here, 2 addresses"},
		{"7.3", 2, "r7 gen 3, led by n2 elsewhere, 2 addresses"},
		{"7.3", 0, "r7 gen 3, led by n0 elsewhere, 2 addresses"},
	} {
		b := memberBackend()
		b.members = []*metapb.NodeRecord{{NodeId: 1, Address: "a:1"}, {NodeId: 2, Address: "a:2"}, {NodeId: 3, Address: "a:3"}}
		b.where = Where{Range: desc, Leader: c.leader}
		ctx := context.Background()
		if c.hint != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, base.RouteHeader, c.hint)
		}
		var trailer metadata.MD
		if _, err := pb.NewKVClient(serveFake(t, b)).Range(ctx, &pb.RangeRequest{Key: []byte("a")}, grpc.Trailer(&trailer)); err != nil {
			t.Fatal(err)
		}
		got := "nothing"
		if raw := trailer.Get(base.RouteTrailer); len(raw) > 0 {
			r := &clusterpb.Route{}
			if err := proto.Unmarshal([]byte(raw[0]), r); err != nil {
				t.Fatal(err)
			}
			got = fmt.Sprintf("r%d gen %d, led by n%d %s, %d addresses", r.Range.RangeId, r.Range.Generation, r.LeaderNode,
				map[bool]string{true: "here", false: "elsewhere"}[r.Leads], len(r.Nodes))
		}
		if got != c.want {
			t.Errorf("%q, leader %d: told %s, want %s", c.hint, c.leader, got, c.want)
		}
	}
}

// What the node says of a failed write: certainly not done, not known, or refused. Whatever is not listed is not known.
func TestFailures(t *testing.T) {
	const (
		ambiguous = clusterpb.FailureKind_FAILURE_KIND_AMBIGUOUS
		notDone   = clusterpb.FailureKind_FAILURE_KIND_NOT_DONE
		refused   = clusterpb.FailureKind_FAILURE_KIND_REFUSED
	)
	for _, c := range []struct {
		err  error
		want clusterpb.FailureKind
	}{
		{&base.NotLeader{Range: 4}, notDone},
		{&base.RangeMoved{Range: 4}, notDone},
		{&route.NoRange{}, notDone},
		{base.ErrStopped, notDone},
		{join.ErrNotInitialised, notDone},
		{&base.Ambiguous{Cause: &base.NotLeader{}}, ambiguous},
		{&base.Ambiguous{Cause: base.ErrStopped}, ambiguous},
		{&base.Ambiguous{Cause: rpctypes.ErrGRPCCompacted}, ambiguous},
		{context.DeadlineExceeded, ambiguous},
		{context.Canceled, ambiguous},
		{errServerTimeout, ambiguous},
		{errors.New("x"), ambiguous},
		{status.Error(codes.Unavailable, "x"), ambiguous},
		{&base.Corruption{Cause: errors.New("x")}, ambiguous},
		{rpctypes.ErrGRPCCompacted, refused},
		{rpctypes.ErrFutureRev, refused},
		{&base.StaleGeneration{}, refused},
		{&base.Throttled{}, clusterpb.FailureKind_FAILURE_KIND_THROTTLED},
		{&base.SeveralRanges{}, clusterpb.FailureKind_FAILURE_KIND_SEVERAL_RANGES},
		{&base.NoKeyspace{Name: "x"}, clusterpb.FailureKind_FAILURE_KIND_NO_KEYSPACE},
	} {
		for _, err := range []error{c.err, wrap(c.err)} {
			if got := failureOf(err).Kind; got != c.want {
				t.Errorf("%v is said to be %v, want %v", err, got, c.want)
			}
		}
	}
}

// The failure travels with the status to those who ask for it; a step of a longer work says nothing of the whole.
func TestFailureTravels(t *testing.T) {
	b := memberBackend()
	b.err = &base.NotLeader{Range: 4}
	conn := serveFake(t, b)
	asks := metadata.AppendToOutgoingContext(context.Background(), base.RouteHeader, "0.0")
	for _, c := range []struct {
		name string
		ctx  context.Context
		call func(context.Context) error
		want string
	}{
		{"put", asks, func(ctx context.Context) error {
			_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("a")})
			return err
		}, "FAILURE_KIND_NOT_DONE"},
		{"etcd's put", context.Background(), func(ctx context.Context) error {
			_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("a")})
			return err
		}, ""},
		{"create", asks, func(ctx context.Context) error {
			_, err := clusterpb.NewClusterClient(conn).CreateKeyspace(ctx, &clusterpb.CreateKeyspaceRequest{Name: "x"})
			return err
		}, "FAILURE_KIND_AMBIGUOUS"},
	} {
		got := ""
		for _, d := range status.Convert(c.call(c.ctx)).Details() {
			got = d.(*clusterpb.Failure).Kind.String()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
