package dispatch

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/store"
)

// placed answers that it is done.
var placed = &emptypb.Empty{}

// Place makes a node's replica of a new range. It may be repeated.
func (d *Dispatcher) Place(ctx context.Context, node base.NodeID, r *metapb.RangeDescriptor) error {
	return d.tell(ctx, node, r, rangepb.RequestKind_REQUEST_KIND_PLACE, func(raw []byte) error { return d.placeHere(ctx, raw) })
}

// End ends a node's replica of a range that is dropped, for good. It may be repeated.
func (d *Dispatcher) End(ctx context.Context, node base.NodeID, r *metapb.RangeDescriptor) error {
	return d.tell(ctx, node, r, rangepb.RequestKind_REQUEST_KIND_END, d.endHere)
}

func (d *Dispatcher) tell(ctx context.Context, node base.NodeID, r *metapb.RangeDescriptor, kind rangepb.RequestKind, here func([]byte) error) error {
	raw, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	if node == d.cfg.Node {
		return here(raw)
	}
	return d.ask(ctx, node, base.RangeID(r.RangeId), kind, raw, &emptypb.Empty{})
}

func (d *Dispatcher) placeHere(ctx context.Context, raw []byte) error {
	r, err := desc.Decode(raw)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if d.cfg.MayPlace == nil {
		return status.Error(codes.FailedPrecondition, "this node makes no ranges")
	}
	if err := d.cfg.MayPlace(ctx, r); err != nil {
		return err
	}
	return d.cfg.Store.Place(r)
}

func (d *Dispatcher) endHere(raw []byte) error {
	r, err := desc.Decode(raw)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if base.KeyspaceID(r.KeyspaceId) < base.FirstFreeID {
		return status.Errorf(codes.FailedPrecondition, "%s is a range of every cluster's", base.RangeID(r.RangeId))
	}
	d.Forget(r)
	d.cfg.Store.Drop(base.RangeID(r.RangeId))
	return nil
}

// Descriptor is the range that holds a key, as a replica that has applied all that is committed knows it.
func (d *Dispatcher) Descriptor(ctx context.Context, ks base.KeyspaceID, key []byte) (*metapb.RangeDescriptor, error) {
	var out *metapb.RangeDescriptor
	err := d.retry(ctx, ks, key, func(asked *metapb.RangeDescriptor, node base.NodeID) error {
		id := base.RangeID(asked.RangeId)
		out = &metapb.RangeDescriptor{} // a new one for each try: the cache, or a replica, has the last one
		if node == d.cfg.Node {
			found, err := d.descriptorHere(ctx, id, d.deadline(ctx))
			if err != nil {
				return err
			}
			out = found.(*metapb.RangeDescriptor)
		} else if err := d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_DESCRIPTOR, nil, out); err != nil {
			var amb *base.Ambiguous
			if errors.As(err, &amb) && ctx.Err() == nil {
				return &base.NotLeader{Range: id} // it has no effect: ask again, elsewhere
			}
			return err
		}
		if !desc.Contains(out, ks, key) {
			return &base.RangeMoved{Range: id, Descriptors: d.routes.beside([]*metapb.RangeDescriptor{out})}
		}
		return nil
	})
	return out, err
}

func (d *Dispatcher) descriptorHere(ctx context.Context, id base.RangeID, until base.Instant) (proto.Message, error) {
	if _, err := wait(ctx, false, func(done store.Done) { d.cfg.Store.ReadIndex(id, until, done) }); err != nil {
		return nil, err
	}
	v := d.cfg.Store.View(id)
	if v == nil {
		return nil, &base.RangeMoved{Range: id}
	}
	return v.Descriptor, nil
}

// Align returns when a range's replicas are voters on the same nodes as another's, and nowhere else. The range's leader moves them.
func (d *Dispatcher) Align(ctx context.Context, r, with *metapb.RangeDescriptor) error {
	raw, err := proto.Marshal(with)
	if err != nil {
		return err
	}
	ks := base.KeyspaceID(r.KeyspaceId)
	tick := time.NewTicker(base.AlignPoll)
	defer tick.Stop()
	for {
		if now, err := d.Descriptor(ctx, ks, r.Start); err != nil || desc.SameNodes(now, with) {
			return err
		}
		err := d.retry(ctx, ks, r.Start, func(asked *metapb.RangeDescriptor, node base.NodeID) error {
			id := base.RangeID(asked.RangeId)
			if node == d.cfg.Node {
				return d.alignHere(id, raw)
			}
			return d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_ALIGN, raw, &emptypb.Empty{})
		})
		var amb *base.Ambiguous
		if err != nil && !errors.As(err, &amb) { // it may be asked twice
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (d *Dispatcher) alignHere(id base.RangeID, raw []byte) error {
	with, err := desc.Decode(raw)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	st, ok := d.cfg.Store.State(id)
	switch {
	case !ok || st.LeaderNode != d.cfg.Node:
		return &base.NotLeader{Range: id, HintNode: st.LeaderNode, HintReplica: st.Leader}
	case d.cfg.Align == nil:
		return status.Error(codes.FailedPrecondition, "this node moves no replicas")
	}
	d.cfg.Align(id, with)
	return nil
}

// Confirm returns when a node's replica of a range has applied a generation of it, durably. It may be repeated.
func (d *Dispatcher) Confirm(ctx context.Context, node base.NodeID, id base.RangeID, generation base.Generation) error {
	var retry route.Retry
	for {
		err := d.confirmOnce(ctx, node, id, generation)
		var amb *base.Ambiguous
		if err == nil || ctx.Err() != nil {
			return err
		}
		if errors.As(err, &amb) {
			err = &base.NotLeader{Range: id} // it has no effect: ask again
		}
		var next route.Try
		if retry, next = retry.After(err); next.GiveUp {
			return err
		}
		timer := time.NewTimer(max(next.Wait, base.RetryMin))
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-d.ctx.Done():
			timer.Stop()
			return base.ErrStopped
		}
		timer.Stop()
	}
}

func (d *Dispatcher) confirmOnce(ctx context.Context, node base.NodeID, id base.RangeID, generation base.Generation) error {
	body := binary.BigEndian.AppendUint64(nil, uint64(generation))
	if node != d.cfg.Node {
		return d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_CONFIRM, body, &emptypb.Empty{})
	}
	_, err := wait(ctx, false, func(done store.Done) { d.confirmHere(id, body, d.deadline(ctx), done) })
	return err
}

func (d *Dispatcher) confirmHere(id base.RangeID, body []byte, until base.Instant, done store.Done) {
	if len(body) != 8 {
		done(nil, status.Error(codes.InvalidArgument, "a generation is eight bytes"))
		return
	}
	d.cfg.Store.Confirm(id, base.Generation(binary.BigEndian.Uint64(body)), until, done)
}
