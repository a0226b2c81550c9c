package web

import (
	"context"
	"net"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"

	gw "go.etcd.io/etcd/api/v3/etcdserverpb/gw"

	"github.com/cairndb/cairn/api/electionpb"
	"github.com/cairndb/cairn/api/lockpb"
	"github.com/cairndb/cairn/internal/base"
)

// newGateway is etcd's own gateway, generated from its protocol: JSON in and out, each request one call. What marshals is set as etcd
// sets it: field names as in the .proto files, nothing of what is empty, 64-bit integers as strings, keys and values in base64.
func newGateway(cfg *Config) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.HTTPBodyMarshaler{Marshaler: &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		}}),
		runtime.WithMetadata(cfg.keyspace),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		gw.RegisterKVHandler, gw.RegisterWatchHandler, gw.RegisterLeaseHandler, gw.RegisterClusterHandler, gw.RegisterMaintenanceHandler,
		gw.RegisterAuthHandler, lockpb.RegisterLockHandler, electionpb.RegisterElectionHandler,
	} {
		if err := register(context.Background(), mux, cfg.Conn); err != nil {
			return nil, err
		}
	}
	return mux, nil
}

// keyspace says which keyspace a request means whose client came to an address that is bound to one. A client may name another one
// in the header Grpc-Metadata-Cairn-Keyspace.
func (c *Config) keyspace(_ context.Context, r *http.Request) metadata.MD {
	if r.Header.Get(runtime.MetadataHeaderPrefix+base.KeyspaceHeader) != "" {
		return nil
	}
	if at, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		if name := c.Keyspace(at.Port); name != "" {
			return metadata.Pairs(base.KeyspaceHeader, name)
		}
	}
	return nil
}
