package serve

import (
	"bytes"
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/electionpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// electionService is etcd's Election service: a contest whose owner leads, and shows a value.
type electionService struct {
	electionpb.UnimplementedElectionServer
	contestService
}

// etcd's words.
var (
	errNoLeaderGiven = errors.New(`"leader" field must be provided`)
	errNotElected    = errors.New("election: not leader")
	errNobodyLeads   = errors.New("election: no leader")
)

func electionHeader(h *pb.ResponseHeader) *electionpb.ResponseHeader {
	return &electionpb.ResponseHeader{ClusterId: h.GetClusterId(), MemberId: h.GetMemberId(), Revision: h.GetRevision(), RaftTerm: h.GetRaftTerm()}
}

func electionKV(kv *mvccpb.KeyValue) *electionpb.KeyValue {
	return &electionpb.KeyValue{
		Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version, Value: kv.Value, Lease: kv.Lease,
	}
}

// resumed is the contest of a leader that was elected before.
func (s *electionService) resumed(ctx context.Context, l *electionpb.LeaderKey) (*contest, error) {
	c, err := s.contest(ctx, l.Name, l.Lease)
	if err == nil {
		c.key, c.rev = l.Key, l.Rev
	}
	return c, err
}

// Campaign waits until the lease's key is the oldest.
func (s *electionService) Campaign(ctx context.Context, req *electionpb.CampaignRequest) (*electionpb.CampaignResponse, error) {
	lease, err := s.session(ctx, req.Lease)
	if err != nil {
		return nil, err
	}
	c, err := s.contest(ctx, req.Name, lease)
	if err != nil {
		return nil, err
	}
	header, was, owns, err := c.enter(ctx, req.Value)
	if err == nil && was != nil && !bytes.Equal(was.Value, req.Value) {
		header, err = c.proclaim(ctx, req.Value)
	}
	if err == nil && !owns {
		if err = c.wait(ctx); err == nil {
			header, err = c.held(ctx)
		}
		if err != nil {
			c.leave(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	return &electionpb.CampaignResponse{
		Header: electionHeader(header),
		Leader: &electionpb.LeaderKey{Name: req.Name, Key: c.key, Rev: c.rev, Lease: lease},
	}, nil
}

// proclaim changes the value, if the key is the one that was written.
func (c *contest) proclaim(ctx context.Context, value []byte) (*pb.ResponseHeader, error) {
	resp, err := c.kv.txnWithin(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{c.created(pb.Compare_EQUAL, c.rev)},
		Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: c.key, Value: value, Lease: c.lease})},
	})
	if err == nil && !resp.Succeeded {
		err = errNotElected
	}
	return resp.GetHeader(), err
}

// Proclaim changes the value that the leader shows.
func (s *electionService) Proclaim(ctx context.Context, req *electionpb.ProclaimRequest) (*electionpb.ProclaimResponse, error) {
	if req.Leader == nil {
		return nil, errNoLeaderGiven
	}
	lease, err := s.session(ctx, req.Leader.Lease)
	if err != nil {
		return nil, err
	}
	c, err := s.resumed(ctx, req.Leader)
	if err != nil {
		return nil, err
	}
	c.lease = lease
	header, err := c.proclaim(ctx, req.Value)
	if err != nil {
		return nil, err
	}
	return &electionpb.ProclaimResponse{Header: electionHeader(header)}, nil
}

// Resign gives leadership up. Who does not lead any more has nothing to give up: that is no error, as in etcd.
func (s *electionService) Resign(ctx context.Context, req *electionpb.ResignRequest) (*electionpb.ResignResponse, error) {
	if req.Leader == nil {
		return nil, errNoLeaderGiven
	}
	c, err := s.resumed(ctx, req.Leader)
	if err != nil {
		return nil, err
	}
	resp, err := c.resign(ctx)
	if err != nil {
		return nil, err
	}
	return &electionpb.ResignResponse{Header: electionHeader(resp.Header)}, nil
}

// Leader is who leads now.
func (s *electionService) Leader(ctx context.Context, req *electionpb.LeaderRequest) (*electionpb.LeaderResponse, error) {
	c, err := s.contest(ctx, req.Name, 0)
	if err != nil {
		return nil, err
	}
	resp, err := s.kv.rangeWithin(ctx, c.oldest())
	switch {
	case err != nil:
		return nil, err
	case len(resp.Kvs) == 0:
		return nil, errNobodyLeads
	}
	return &electionpb.LeaderResponse{Header: electionHeader(resp.Header), Kv: electionKV(resp.Kvs[0])}, nil
}

// Observe tells of every leader, and of every value that one shows, in order. Of one that led and resigned before it was looked at
// nothing is told.
func (s *electionService) Observe(req *electionpb.LeaderRequest, stream grpc.ServerStreamingServer[electionpb.LeaderResponse]) error {
	ctx := stream.Context()
	c, err := s.contest(ctx, req.Name, 0)
	if err != nil {
		return err
	}
	send := func(h *pb.ResponseHeader, kv *mvccpb.KeyValue) error {
		return stream.Send(&electionpb.LeaderResponse{Header: electionHeader(h), Kv: electionKV(kv)})
	}
	for {
		resp, err := s.kv.rangeWithin(ctx, c.oldest())
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 {
			err = c.somebody(ctx, resp.Header.Revision+1)
		} else if err = send(resp.Header, resp.Kvs[0]); err == nil {
			err = c.follow(ctx, resp.Kvs[0].Key, resp.Header.Revision+1, send)
		}
		if err != nil {
			return err
		}
	}
}

// somebody returns when a key is written under the prefix.
func (c *contest) somebody(ctx context.Context, from int64) error {
	spec := watch.Spec{Keyspace: c.ks, Start: c.prefix, End: prefixEnd(c.prefix), From: base.Revision(from), NoDelete: true}
	return again(c.kv.cfg.await(ctx, spec, func(*watch.Out) (bool, error) { return false, nil }))
}

// follow tells what a leader shows until its key is deleted.
func (c *contest) follow(ctx context.Context, key []byte, from int64, send func(*pb.ResponseHeader, *mvccpb.KeyValue) error) error {
	return again(c.kv.cfg.await(ctx, ofKey(c.ks, key, from), func(o *watch.Out) (bool, error) {
		for _, e := range o.Events {
			if e.Delete {
				return false, nil
			}
			ev := &mvccpb.Event{}
			if err := proto.Unmarshal(e.Wire, ev); err != nil {
				return false, &base.Corruption{Where: "an event of a watch", Cause: err}
			}
			if err := send(c.kv.cfg.fillHeader(c.ks, &pb.ResponseHeader{Revision: int64(o.Revision)}), ev.Kv); err != nil {
				return false, err
			}
		}
		return true, nil
	}))
}

// again: what was compacted away is not told; who leads now is looked up.
func again(err error) error {
	if errors.Is(err, rpctypes.ErrGRPCCompacted) {
		return nil
	}
	return err
}
