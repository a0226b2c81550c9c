package keyspace

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
)

// splitTries bounds how often a split is proposed again because the range had changed meanwhile.
const splitTries = 5

// Split cuts the range that holds key in two. dryRun only says what would become of it.
func (m *Manager) Split(ctx context.Context, name string, key []byte, dryRun bool) (left, right *metapb.RangeDescriptor, err error) {
	ks, err := m.findAny(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if !ks.Splits() {
		return nil, nil, status.Errorf(codes.FailedPrecondition, "%s is one range for ever: only a sharded keyspace is split", name)
	}
	if len(key) == 0 {
		return nil, nil, status.Error(codes.InvalidArgument, "no key: give the first key of the right part")
	}
	var id uint64
	for try := 1; ; try++ {
		d, err := m.settled(ctx, ks, key)
		if err != nil {
			return nil, nil, err
		}
		if string(d.Start) == string(key) {
			return nil, nil, status.Errorf(codes.FailedPrecondition, "%s begins at %q already", base.RangeID(d.RangeId), key)
		}
		if dryRun {
			return desc.Split(d, key, ^base.RangeID(0))
		}
		if id == 0 {
			if id, err = m.next(ctx, rangeCounter); err != nil {
				return nil, nil, err
			}
		}
		left, right, err = m.splitAt(ctx, d, key, base.RangeID(id), true)
		var stale *base.StaleGeneration
		if errors.As(err, &stale) && try < splitTries {
			continue // it was split at another key, or its replicas changed
		}
		if err == nil {
			m.splits.Add(1)
		}
		return left, right, err
	}
}

// Splits is how many ranges were cut by Split since the node was started.
func (m *Manager) Splits() uint64 { return m.splits.Load() }

// SplitNow cuts the range d, of just that generation, at key.
func (m *Manager) SplitNow(ctx context.Context, d *metapb.RangeDescriptor, key []byte) error {
	id, err := m.next(ctx, rangeCounter)
	if err == nil {
		_, _, err = m.splitAt(ctx, d, key, base.RangeID(id), false)
	}
	return err
}

// splitAt cuts a range of just that generation. What is cut by hand is not merged back as soon as it is found to be small.
func (m *Manager) splitAt(ctx context.Context, d *metapb.RangeDescriptor, key []byte, right base.RangeID, byHand bool) (l, r *metapb.RangeDescriptor, err error) {
	cmd, err := apply.Split(d, key, right)
	if err != nil {
		return nil, nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	cmd.GetSplit().Sticky = byHand
	msg, err := m.cfg.Cluster.Propose(ctx, base.KeyspaceID(d.KeyspaceId), d.Start, cmd)
	if err != nil {
		return nil, nil, err
	}
	resp, ok := msg.(*kvpb.SplitResponse)
	if !ok {
		return nil, nil, fmt.Errorf("keyspace: a split was answered with a %T", msg)
	}
	return resp.Left, resp.Right, nil
}

// findAny is Find, for Cairn's own keyspaces too.
func (m *Manager) findAny(ctx context.Context, name string) (base.KeyspaceID, error) {
	for ks := base.KeyspaceRoot; ks <= base.KeyspaceDefault; ks++ {
		if ks.String() == name {
			return ks, nil
		}
	}
	return m.Find(ctx, name)
}
