package jepsen

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Ranges that are had elsewhere: relocations to drawn nodes, and leaderships that are handed over, of the ranges that clients use.

const (
	// movesAtOnce are the workers; each waits for what it asked for, some of which it takes back.
	movesAtOnce = 2
	// moveTime is how long a relocation is waited for before it is taken back: a decider may find a better use for the time.
	moveTime = 20 * time.Second
	// moveRest is how long the heal waits for what is under way before it takes it back. A window of a short run is hardly longer than a
	// relocation: what it began is to end, or a run may have moved nothing.
	moveRest = 5 * time.Second
)

// moves relocates and transfers until the heal, which waits for what is under way, and takes back what does not end.
func moves(ctx context.Context, c *Cluster, r *base.Rand) (string, func(context.Context) error, error) {
	work, end := context.WithCancel(context.WithoutCancel(ctx)) // it outlives the beginning
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range movesAtOnce {
		r := base.NewRand(r.Uint64())
		wg.Go(func() {
			for pause(work, stop, stormEvery) {
				if r.Int63n(3) == 0 {
					c.transferOnce(work, r)
				} else {
					c.moveOnce(work, r)
				}
			}
		})
	}
	heal := func(ctx context.Context) error {
		close(stop)
		late := time.AfterFunc(moveRest, end)
		wg.Wait()
		late.Stop()
		end()
		return c.endMoves(ctx)
	}
	return fmt.Sprintf("%d at a time move ranges and leaderships", movesAtOnce), heal, nil
}

// endMoves takes back every relocation that goes on.
func (c *Cluster) endMoves(ctx context.Context) error {
	ops, err := c.running(ctx)
	for _, op := range ops {
		if op.Kind == metapb.OperationKind_OPERATION_KIND_RELOCATE {
			err = errors.Join(err, c.cancelOp(ctx, op.OpId))
		}
	}
	return err
}

// drawRange draws one of the clients' ranges, as the index has it now.
func (c *Cluster) drawRange(ctx context.Context, r *base.Rand) (*metapb.RangeDescriptor, error) {
	var all []*clusterpb.IndexedRange
	err := c.ask(ctx, c.anybody(r), changeTime, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		resp, err := cl.ListRanges(ctx, &clusterpb.ListRangesRequest{})
		all = slices.DeleteFunc(resp.GetRanges(), func(x *clusterpb.IndexedRange) bool {
			return base.KeyspaceID(x.Descriptor_.GetKeyspaceId()) < base.KeyspaceDefault
		})
		return err
	})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[r.Int63n(int64(len(all)))].Descriptor_, nil
}

// anybody draws a node to be asked.
func (c *Cluster) anybody(r *base.Rand) int { return int(r.Int63n(int64(len(c.Nodes)))) }

// moveOnce wants a range on drawn nodes, led by one of them or by anybody, and counts what came of it.
func (c *Cluster) moveOnce(ctx context.Context, r *base.Rand) {
	d, err := c.drawRange(ctx, r)
	if d == nil || err != nil {
		return
	}
	ask, cancel := context.WithTimeout(ctx, changeTime)
	all, err := c.members(ask)
	cancel()
	if err != nil {
		return
	}
	var able []uint64
	for _, m := range all {
		if active(m.Record) && !m.Record.Cordoned {
			able = append(able, m.Record.NodeId)
		}
	}
	if len(able) < zones {
		return
	}
	for i := range zones { // the first three of a shuffle
		j := i + int(r.Int63n(int64(len(able)-i)))
		able[i], able[j] = able[j], able[i]
	}
	op := &metapb.Operation{Kind: metapb.OperationKind_OPERATION_KIND_RELOCATE, RangeId: d.GetRangeId(), Voters: able[:zones]}
	if r.Int63n(2) == 0 {
		op.Leader = able[r.Int63n(zones)]
	}
	wait, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	id, err := c.begin(wait, op)
	if err == nil && r.Int63n(5) == 0 { // in the middle, or before it has begun
		c.noteMove(Changes{Moves: 1}, c.cancelOp(wait, id))
		return
	}
	var got *metapb.Operation
	if err == nil {
		got, err = c.watch(wait, id, ended)
	}
	if err == nil && got.State == metapb.OperationState_OPERATION_STATE_DONE {
		c.movedWhere(ctx, d.GetRangeId(), op, got)
	}
	c.noteMove(Changes{Moves: 1}, err)
	if err != nil && id != 0 && ctx.Err() == nil {
		undo, cancel := context.WithTimeout(ctx, changeTime)
		defer cancel()
		_ = c.cancelOp(undo, id) // the heal does, if this cannot
	}
}

// movedWhere looks whether the range was where it was wanted when that was said to be done: once it is done another decision may
// move it on, under a higher generation. So only a descriptor that has none of those nodes is wrong for certain.
func (c *Cluster) movedWhere(ctx context.Context, id uint64, want, got *metapb.Operation) {
	var now *metapb.RangeDescriptor
	err := c.ask(ctx, 0, changeTime, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		resp, err := cl.ListRanges(ctx, &clusterpb.ListRangesRequest{})
		for _, r := range resp.GetRanges() {
			if r.Descriptor_.GetRangeId() == id {
				now = r.Descriptor_
			}
		}
		return err
	})
	if err != nil || now == nil {
		return // nobody could say, or a neighbour has taken it over
	}
	if !slices.ContainsFunc(now.Replicas, func(r *metapb.Replica) bool { return slices.Contains(want.Voters, r.NodeId) }) {
		c.broke("moved means there", "range %d was moved to %v (%s), and is %v", id, want.Voters, got.Outcome, now.Replicas)
	}
}

// transferOnce hands the leadership of a range to a drawn voter.
func (c *Cluster) transferOnce(ctx context.Context, r *base.Rand) {
	d, err := c.drawRange(ctx, r)
	if d == nil || err != nil {
		return
	}
	to := d.Replicas[r.Int63n(int64(len(d.Replicas)))].NodeId
	err = c.ask(ctx, c.anybody(r), changeTime, func(ctx context.Context, cl clusterpb.ClusterClient) error {
		_, err := cl.TransferRange(ctx, &clusterpb.TransferRangeRequest{RangeId: d.GetRangeId(), ToNode: to})
		return err
	})
	c.noteMove(Changes{Transfers: 1}, err)
}

// noteMove counts a change by how it ended.
func (c *Cluster) noteMove(done Changes, err error) {
	var no *declined
	switch code := status.Code(err); {
	case err == nil:
	case errors.As(err, &no), code == codes.FailedPrecondition, code == codes.Aborted, code == codes.InvalidArgument, code == codes.NotFound:
		done = Changes{Refused: 1}
	default:
		done = Changes{Unanswered: 1}
	}
	c.shard.note(done)
}
