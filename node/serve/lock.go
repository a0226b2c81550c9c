package serve

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/lockpb"
)

// lockService is etcd's Lock service, and tells the fencing token beside. docs/fencing.md says what it is for.
type lockService struct {
	lockpb.UnimplementedLockServer
	contestService
}

func lockHeader(h *pb.ResponseHeader) *lockpb.ResponseHeader {
	return &lockpb.ResponseHeader{ClusterId: h.GetClusterId(), MemberId: h.GetMemberId(), Revision: h.GetRevision(), RaftTerm: h.GetRaftTerm()}
}

// Lock waits until the lease's key is the oldest.
func (s *lockService) Lock(ctx context.Context, req *lockpb.LockRequest) (*lockpb.LockResponse, error) {
	lease, err := s.session(ctx, req.Lease)
	if err != nil {
		return nil, err
	}
	c, err := s.contest(ctx, req.Name, lease)
	if err != nil {
		return nil, err
	}
	header, _, owns, err := c.enter(ctx, nil)
	if err == nil && !owns {
		if err = c.wait(ctx); err == nil {
			header, err = c.held(ctx) // the lease may have ended while it waited
		}
		if err != nil {
			c.leave(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	return &lockpb.LockResponse{Header: lockHeader(header), Key: c.key, Rev: c.rev}, nil
}

// Unlock deletes the key.
func (s *lockService) Unlock(ctx context.Context, req *lockpb.UnlockRequest) (*lockpb.UnlockResponse, error) {
	resp, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: req.Key})
	if err != nil {
		return nil, err
	}
	return &lockpb.UnlockResponse{Header: lockHeader(resp.Header)}, nil
}
