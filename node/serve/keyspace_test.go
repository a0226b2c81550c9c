package serve

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
)

// TestKeyspaceOfARequest: the metadata says which keyspace is meant, or the listener, or it is default; and nobody is led to another
// keyspace than the one that he named.
func TestKeyspaceOfARequest(t *testing.T) {
	for _, c := range []struct {
		bound bool
		names []string
		want  base.KeyspaceID
		code  codes.Code
	}{
		{false, nil, base.KeyspaceDefault, codes.OK},
		{false, []string{"shards"}, 100, codes.OK},
		{false, []string{"nope"}, 0, codes.NotFound},
		{false, []string{"nope", "shards"}, 100, codes.OK}, // the last one, as it was set last
		{true, nil, 100, codes.OK},
		{true, []string{"shards"}, 100, codes.OK},
		{true, []string{"nope"}, 0, codes.NotFound},
	} {
		b, l := memberBackend(), listen(t)
		cfg := Config{Backend: b, Membership: fakeMembership{}}
		if c.bound {
			cfg.Bound = map[int]string{l.Addr().(*net.TCPAddr).Port: "shards"}
		}
		_, conn := serveOn(t, l, cfg)
		ctx := context.Context(t.Context())
		for _, n := range c.names {
			ctx = metadata.AppendToOutgoingContext(ctx, base.KeyspaceHeader, n)
		}
		_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		if status.Code(err) != c.code || (c.code == codes.OK) != (len(b.spaces) == 1 && b.spaces[0] == c.want) {
			t.Errorf("bound %v, named %q: %v, %v", c.bound, c.names, b.spaces, err)
		}
	}
}
