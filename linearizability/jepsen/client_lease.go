package jepsen

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// lease carries out a request of etcd's Lease service. A keep-alive has a stream of its own: what one was answered is then known of it.
func (l *link) lease(ctx context.Context, req proto.Message) (proto.Message, error) {
	leases := pb.NewLeaseClient(l.conn)
	switch r := req.(type) {
	case *pb.LeaseGrantRequest:
		return answer(leases.LeaseGrant(ctx, r))
	case *pb.LeaseRevokeRequest:
		return answer(leases.LeaseRevoke(ctx, r))
	case *pb.LeaseTimeToLiveRequest:
		return answer(leases.LeaseTimeToLive(ctx, r))
	case *pb.LeaseLeasesRequest:
		return answer(leases.LeaseLeases(ctx, r))
	case *pb.LeaseKeepAliveRequest:
		ctx, cancel := context.WithCancel(ctx) // ends the stream
		defer cancel()
		in, err := leases.LeaseKeepAlive(ctx)
		if err != nil {
			return nil, err
		}
		_ = in.Send(r) // Recv tells why it could not be sent
		return answer(in.Recv())
	}
	return nil, fmt.Errorf("a %T is no request that can be carried out", req)
}
