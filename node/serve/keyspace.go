package serve

import (
	"context"
	"net"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/internal/base"
)

// keyspace is the one that a request is for: what its metadata names, or what its listener is bound to, or `default`.
func (c *Config) keyspace(ctx context.Context) (base.KeyspaceID, error) {
	if names := metadata.ValueFromIncomingContext(ctx, base.KeyspaceHeader); len(names) > 0 {
		return c.Backend.Keyspace(ctx, names[len(names)-1])
	}
	if len(c.Bound) == 0 {
		return base.KeyspaceDefault, nil
	}
	if p, ok := peer.FromContext(ctx); ok && p.LocalAddr != nil {
		if name, ok := c.Bound[portOf(p.LocalAddr)]; ok {
			return c.Backend.Keyspace(ctx, name)
		}
	}
	return base.KeyspaceDefault, nil
}

// keyspaceToWrite is keyspace for a write, which alarms may forbid; grows: it makes the data larger.
func (c *Config) keyspaceToWrite(ctx context.Context, grows bool) (base.KeyspaceID, error) {
	if err := c.Backend.Admit(grows); err != nil {
		return 0, err
	}
	return c.keyspace(ctx)
}

func portOf(a net.Addr) int {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.Port
	}
	return 0
}

// CreateKeyspace makes a keyspace.
func (s *clusterService) CreateKeyspace(ctx context.Context, req *clusterpb.CreateKeyspaceRequest) (*clusterpb.CreateKeyspaceResponse, error) {
	rec, err := s.cfg.Backend.CreateKeyspace(ctx, req.Name, req.Single)
	return &clusterpb.CreateKeyspaceResponse{Keyspace: rec}, err
}

// DropKeyspace deletes one.
func (s *clusterService) DropKeyspace(ctx context.Context, req *clusterpb.DropKeyspaceRequest) (*clusterpb.DropKeyspaceResponse, error) {
	n, err := s.cfg.Backend.DropKeyspace(ctx, req.Name)
	return &clusterpb.DropKeyspaceResponse{Ranges: uint64(n)}, err
}

// ListKeyspaces lists those that somebody made.
func (s *clusterService) ListKeyspaces(ctx context.Context, _ *clusterpb.ListKeyspacesRequest) (*clusterpb.ListKeyspacesResponse, error) {
	recs, err := s.cfg.Backend.Keyspaces(ctx)
	return &clusterpb.ListKeyspacesResponse{Keyspaces: recs}, err
}

// ListRanges lists the ranges that the index knows.
func (s *clusterService) ListRanges(ctx context.Context, req *clusterpb.ListRangesRequest) (*clusterpb.ListRangesResponse, error) {
	ranges, err := s.cfg.Backend.Ranges(ctx, req.Keyspace)
	return &clusterpb.ListRangesResponse{Ranges: ranges}, err
}

// SplitRange cuts a range in two.
func (s *clusterService) SplitRange(ctx context.Context, req *clusterpb.SplitRangeRequest) (*clusterpb.SplitRangeResponse, error) {
	left, right, err := s.cfg.Backend.SplitRange(ctx, req.Keyspace, req.Key, req.DryRun)
	return &clusterpb.SplitRangeResponse{Left: left, Right: right}, err
}

// MergeRange has a range take over its right neighbour.
func (s *clusterService) MergeRange(ctx context.Context, req *clusterpb.MergeRangeRequest) (*clusterpb.MergeRangeResponse, error) {
	merged, err := s.cfg.Backend.MergeRange(ctx, req.Keyspace, req.Key, req.DryRun)
	return &clusterpb.MergeRangeResponse{Merged: merged}, err
}
