package client

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Keyspaces and ranges are looked after by any node. These calls take several steps there: one whose answer was lost, or that a
// node could not finish, is Ambiguous, and may be made again, after which it goes on where it was.

// CreateKeyspace makes a keyspace, and returns when it can be used. A single one is one range for ever, with etcd's revisions.
func (c *Client) CreateKeyspace(ctx context.Context, name string, single bool) (*metapb.KeyspaceRecord, error) {
	var resp *clusterpb.CreateKeyspaceResponse
	err := c.administer(ctx, writes, func(ctx context.Context, s clusterpb.ClusterClient, opts ...grpc.CallOption) (err error) {
		resp, err = s.CreateKeyspace(ctx, &clusterpb.CreateKeyspaceRequest{Name: name, Single: single}, opts...)
		return err
	})
	return resp.GetKeyspace(), err
}

// DropKeyspace deletes a keyspace and all that is in it, and says how many ranges it had.
func (c *Client) DropKeyspace(ctx context.Context, name string) (ranges uint64, err error) {
	var resp *clusterpb.DropKeyspaceResponse
	err = c.administer(ctx, writes, func(ctx context.Context, s clusterpb.ClusterClient, opts ...grpc.CallOption) (err error) {
		resp, err = s.DropKeyspace(ctx, &clusterpb.DropKeyspaceRequest{Name: name}, opts...)
		return err
	})
	return resp.GetRanges(), err
}

// ListKeyspaces lists the keyspaces that somebody made, by name.
func (c *Client) ListKeyspaces(ctx context.Context) ([]*metapb.KeyspaceRecord, error) {
	var resp *clusterpb.ListKeyspacesResponse
	err := c.administer(ctx, reads, func(ctx context.Context, s clusterpb.ClusterClient, opts ...grpc.CallOption) (err error) {
		resp, err = s.ListKeyspaces(ctx, &clusterpb.ListKeyspacesRequest{}, opts...)
		return err
	})
	return resp.GetKeyspaces(), err
}

// ListRanges lists the ranges of a keyspace, of all if it is empty, as the index knows them: it may lag behind for a moment.
func (c *Client) ListRanges(ctx context.Context, keyspace string) ([]*clusterpb.IndexedRange, error) {
	var resp *clusterpb.ListRangesResponse
	err := c.administer(ctx, reads, func(ctx context.Context, s clusterpb.ClusterClient, opts ...grpc.CallOption) (err error) {
		resp, err = s.ListRanges(ctx, &clusterpb.ListRangesRequest{Keyspace: keyspace}, opts...)
		return err
	})
	return resp.GetRanges(), err
}

// SplitRange cuts the range that holds key in two; key is the first of the right part.
func (c *Client) SplitRange(ctx context.Context, keyspace, key string) (left, right *metapb.RangeDescriptor, err error) {
	var resp *clusterpb.SplitRangeResponse
	err = c.administer(ctx, writes, func(ctx context.Context, s clusterpb.ClusterClient, opts ...grpc.CallOption) (err error) {
		resp, err = s.SplitRange(ctx, &clusterpb.SplitRangeRequest{Keyspace: keyspace, Key: []byte(key)}, opts...)
		return err
	})
	return resp.GetLeft(), resp.GetRight(), err
}

// MergeRange has the range that holds key take over its right neighbour.
func (c *Client) MergeRange(ctx context.Context, keyspace, key string) (merged *metapb.RangeDescriptor, err error) {
	var resp *clusterpb.MergeRangeResponse
	err = c.administer(ctx, writes, func(ctx context.Context, s clusterpb.ClusterClient, opts ...grpc.CallOption) (err error) {
		resp, err = s.MergeRange(ctx, &clusterpb.MergeRangeRequest{Keyspace: keyspace, Key: []byte(key)}, opts...)
		return err
	})
	return resp.GetMerged(), err
}

// administer asks any node.
func (c *Client) administer(ctx context.Context, e effect, f func(context.Context, clusterpb.ClusterClient, ...grpc.CallOption) error) error {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.RequestTimeout)
		defer cancel()
	}
	return c.retry(ctx, func(t *tries) error {
		n, err := c.choose(ctx, place{}, t.last)
		if err != nil {
			return err
		}
		defer c.conns.give(n)
		t.last = n.addr
		var from peer.Peer
		err = f(metadata.AppendToOutgoingContext(ctx, base.RouteHeader, place{}.hint()), clusterpb.NewClusterClient(n.cc), grpc.Peer(&from))
		if err == nil {
			return nil
		}
		return outcome(err, from.Addr != nil, e)
	})
}
