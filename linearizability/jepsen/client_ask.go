package jepsen

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/askpb"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
)

// errAnotherProcess: between the question who answers and the answer the connection came to lead to another process.
var errAnotherProcess = errors.New("another process answered in the middle")

// errNotServed ends a closing Ask that was refused: it is asked again.
var errNotServed = errors.New("it was refused")

// askNode carries out an Ask over a connection of its own. It is answered if the process said something in words of its own, and an
// error if the network did.
func askNode(ctx context.Context, req *askpb.AskRequest) (*askpb.AskResponse, error) {
	l, err := dial(ctx, req.Address, keyspace{base.KeyspaceID(req.KeyspaceId), req.Keyspace})
	if err != nil {
		return nil, err
	}
	defer l.close()
	cluster := clusterpb.NewClusterClient(l.conn)
	who, err := cluster.Identity(ctx, &clusterpb.IdentityRequest{})
	if err != nil {
		return nil, err
	}
	resp := &askpb.AskResponse{NodeId: who.NodeId, Incarnation: who.Incarnation}
	var trailer metadata.MD
	asking := metadata.AppendToOutgoingContext(ctx, base.KeyspaceHeader, req.Keyspace,
		base.RouteHeader, fmt.Sprintf("%d.%d", req.RangeId, req.Generation))
	_, err = l.kv.Range(asking, &pb.RangeRequest{Key: req.Key, Serializable: req.Serializable}, grpc.Trailer(&trailer))
	if resp.Served = err == nil; !resp.Served {
		f := failureIn(err)
		if f == nil {
			return nil, err
		}
		resp.Fenced, resp.Refusal = f.Fenced, status.Convert(err).Message()
	}
	if raw := trailer.Get(base.RouteTrailer); len(raw) > 0 {
		resp.Route = &clusterpb.Route{}
		if err := proto.Unmarshal([]byte(raw[0]), resp.Route); err != nil {
			return nil, err
		}
	}
	still, err := cluster.Identity(ctx, &clusterpb.IdentityRequest{})
	if err != nil {
		return nil, err
	}
	if still.NodeId != who.NodeId || still.Incarnation != who.Incarnation {
		return nil, errAnotherProcess
	}
	return resp, nil
}

// failureIn is what a node says of how a request failed; nil: no node said anything.
func failureIn(err error) *clusterpb.Failure {
	for _, d := range status.Convert(err).Details() {
		if f, ok := d.(*clusterpb.Failure); ok {
			return f
		}
	}
	return nil
}

// watch carries out a request that is none of the KV service's.
func (l *link) watch(ctx context.Context, req proto.Message) (proto.Message, error) {
	cluster := clusterpb.NewClusterClient(l.conn)
	switch r := req.(type) {
	case *clusterpb.ListNodesRequest:
		return answer(cluster.ListNodes(ctx, r))
	case *clusterpb.ListRangesRequest:
		return answer(cluster.ListRanges(ctx, r))
	case *askpb.AskRequest:
		return answer(askNode(ctx, r))
	}
	return l.lease(ctx, req)
}
