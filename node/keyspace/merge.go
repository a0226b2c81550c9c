package keyspace

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/merge"
)

// Merge has the range that holds key take over its right neighbour, whose replicas are brought to the same nodes first. dryRun only
// says what would become of the two.
func (m *Manager) Merge(ctx context.Context, name string, key []byte, dryRun bool) (*metapb.RangeDescriptor, error) {
	ks, err := m.findAny(ctx, name)
	if err != nil {
		return nil, err
	}
	if !ks.Splits() {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is one range for ever: only a sharded keyspace's are merged", name)
	}
	left, right, err := m.pair(ctx, ks, key)
	if err != nil {
		return nil, err
	}
	if dryRun {
		whole := desc.Clone(left)
		whole.End, whole.Generation = right.End, max(left.Generation, right.Generation)+2
		return whole, nil
	}
	if !desc.SameNodes(left, right) {
		if err := m.cfg.Cluster.Align(ctx, right, left); err != nil {
			return nil, err
		}
		if left, right, err = m.pair(ctx, ks, key); err != nil {
			return nil, err
		}
	}
	whole, err := m.MergeNow(ctx, left, right)
	if err != nil {
		return nil, status.Errorf(codes.Aborted, "%s and %s were not merged, and are as they were or will be in a moment: %v",
			base.RangeID(left.RangeId), base.RangeID(right.RangeId), err)
	}
	return whole, nil
}

// pair is the range that holds a key, and its right neighbour.
func (m *Manager) pair(ctx context.Context, ks base.KeyspaceID, key []byte) (left, right *metapb.RangeDescriptor, err error) {
	if left, err = m.settled(ctx, ks, key); err != nil {
		return nil, nil, err
	}
	if len(left.End) == 0 {
		return nil, nil, status.Errorf(codes.FailedPrecondition, "%s is the last of its keyspace: it has no right neighbour", base.RangeID(left.RangeId))
	}
	right, err = m.settled(ctx, ks, left.End)
	return left, right, err
}

// settled is the range that holds a key, once no merge of it is under way, and no step of a change of its replicas: what is left to do of a
// merge that was decided is done here, and one that is not is waited for, as long as whoever drives it may take, and as its leader waits
// before it takes it up. A joint configuration is left by itself in a moment.
func (m *Manager) settled(ctx context.Context, ks base.KeyspaceID, key []byte) (*metapb.RangeDescriptor, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*base.MergePatience)
	defer cancel()
	tick := time.NewTicker(base.AlignPoll)
	defer tick.Stop()
	for {
		d, err := m.cfg.Cluster.Descriptor(ctx, ks, key)
		switch {
		case err != nil || !desc.IsFrozen(d) && d.Absorbing == 0 && !desc.Joint(d):
			return d, err
		case d.Absorbing != 0:
			if _, err := m.FinishMerge(ctx, d); err == nil {
				continue
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, status.Errorf(codes.Unavailable, "a merge of %s, or a change of its replicas, is not ended yet: see cairn range ls, and try again", base.RangeID(d.RangeId))
		}
	}
}

// MergeNow merges two neighbours, of just those generations.
func (m *Manager) MergeNow(ctx context.Context, left, right *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	return m.drive(ctx, merge.Begin(left, right))
}

// ResumeMerge ends the merge for which a range stands frozen; nil if it goes on by itself.
func (m *Manager) ResumeMerge(ctx context.Context, right *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	return m.drive(ctx, merge.Resume(right))
}

// FinishMerge lets a range that has taken another over change again.
func (m *Manager) FinishMerge(ctx context.Context, left *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	return m.drive(ctx, merge.Finish(left))
}

// drive carries a merge's steps out.
func (m *Manager) drive(ctx context.Context, run *merge.Run) (*metapb.RangeDescriptor, error) {
	for {
		switch step := run.Next(); {
		case step.Propose != nil:
			run.Answered(m.cfg.Cluster.Propose(ctx, step.Propose.Keyspace, step.Propose.Key, step.Propose.Command))
		case step.Confirm != nil:
			run.Confirmed(m.confirm(ctx, step.Confirm))
		case step.Look != nil:
			run.Found(m.cfg.Cluster.Descriptor(ctx, step.Look.Keyspace, step.Look.Key))
		default:
			return step.Done.Merged, step.Done.Err
		}
	}
}

// confirm asks all nodes at once, and waits for as many as are needed.
func (m *Manager) confirm(ctx context.Context, c *merge.Confirm) int {
	ctx, cancel := context.WithTimeout(ctx, base.MergeConfirmTime)
	defer cancel()
	var confirmed atomic.Int64
	atOnce(c.Nodes, func(n base.NodeID) error {
		err := m.cfg.Cluster.Confirm(ctx, n, c.Range, c.Generation)
		if err == nil && confirmed.Add(1) >= int64(c.Need) {
			cancel()
		}
		return err
	})
	return int(confirmed.Load())
}
