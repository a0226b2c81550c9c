package dispatch

import (
	"bytes"
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/spread"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

// Latches of ranges that are led here or on other nodes. A latch is its reader's node's: no node can end another's.

// errRefused ends a latch's tries where its range refuses it for now: others are not held meanwhile, perhaps by what it waits for.
var errRefused = errors.New("the latch was refused")

// latch has the range that holds a key latched, wherever its leader is.
func (d *Dispatcher) latch(ctx context.Context, ks base.KeyspaceID, a *spread.Ask) (*spread.Grant, error) {
	body, err := proto.Marshal(&rangepb.Latch{Id: encodeLatchID(a.ID), KeyspaceId: uint64(ks), Key: a.Key})
	if err != nil {
		return nil, err
	}
	granted, at := &rangepb.LatchGrant{}, base.NodeID(0)
	var refused *base.Throttled
	err = d.retry(ctx, ks, a.Key, func(desc *metapb.RangeDescriptor, node base.NodeID) error {
		id := base.RangeID(desc.RangeId)
		if at = node; node != d.cfg.Node {
			err := d.retriable(ctx, id, d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_LATCH, body, granted))
			if errors.As(err, &refused) {
				return errRefused
			}
			return err
		}
		m, err := wait(ctx, false, func(done store.Done) { d.cfg.Store.Latch(id, a.ID, ks, a.Key, d.deadline(ctx), done) })
		switch {
		case err == nil:
			granted = m.(*rangepb.LatchGrant)
		case errors.As(err, &refused):
			return errRefused
		}
		return err
	})
	if refused != nil {
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	return &spread.Grant{Node: at, Descriptor: granted.Descriptor_, Revision: granted.Revision}, nil
}

// retriable says of a request that may be made twice that it can be asked again, elsewhere, if it was not answered.
func (d *Dispatcher) retriable(ctx context.Context, id base.RangeID, err error) error {
	var amb *base.Ambiguous
	if errors.As(err, &amb) && ctx.Err() == nil {
		return &base.NotLeader{Range: id}
	}
	return err
}

// raiseLatched raises a range through its latch, at the node that granted it and nowhere else.
func (d *Dispatcher) raiseLatched(ctx context.Context, a *spread.Ask) error {
	id := base.RangeID(a.Grant.Descriptor.RangeId)
	cmd, err := proto.Marshal(a.Command(d.NowMicros()))
	if err != nil {
		return err
	}
	if a.Grant.Node == d.cfg.Node {
		_, err := d.proposeHere(ctx, raftgroup.Proposal{Range: id, Data: cmd, Latch: &a.ID})
		return err
	}
	body, err := proto.Marshal(&rangepb.Unlatch{Id: encodeLatchID(a.ID), Command: cmd})
	if err != nil {
		return err
	}
	return d.ask(ctx, a.Grant.Node, id, rangepb.RequestKind_REQUEST_KIND_UNLATCH, body, &kvpb.RaiseRevisionResponse{})
}

// free lets a latch go. Nobody waits for that: one that is not let go ends by itself.
func (d *Dispatcher) free(a *spread.Ask) {
	id := base.RangeID(a.Grant.Descriptor.RangeId)
	if a.Grant.Node == d.cfg.Node {
		d.cfg.Store.Unlatch(id, a.ID)
		return
	}
	body, err := proto.Marshal(&rangepb.Unlatch{Id: encodeLatchID(a.ID)})
	if err != nil {
		return
	}
	if o, err := d.outbox(a.Grant.Node); err == nil {
		_ = o.request(&rangepb.Request{Id: d.nextID.Add(1), RangeId: uint64(id), Kind: rangepb.RequestKind_REQUEST_KIND_UNLATCH, Body: body})
	}
}

func encodeLatchID(id raftgroup.LatchID) *rangepb.LatchID {
	return &rangepb.LatchID{BeganMicros: id.Began, Seq: id.Seq, Try: id.Try}
}

func decodeLatchID(from base.NodeID, id *rangepb.LatchID) raftgroup.LatchID {
	return raftgroup.LatchID{Began: id.GetBeganMicros(), Node: from, Seq: id.GetSeq(), Try: id.GetTry()}
}

// serveLatch serves another node's request for a latch.
func (d *Dispatcher) serveLatch(from base.NodeID, id base.RangeID, until base.Instant, q *rangepb.Request, done store.Done) {
	req := &rangepb.Latch{}
	if err := proto.Unmarshal(q.Body, req); err != nil {
		done(nil, status.Error(codes.InvalidArgument, "the request cannot be read: "+err.Error()))
		return
	}
	d.cfg.Store.Latch(id, decodeLatchID(from, req.Id), base.KeyspaceID(req.KeyspaceId), req.Key, until, done)
}

// serveUnlatch ends a latch of another node's. Through a latch go raises alone.
func (d *Dispatcher) serveUnlatch(from base.NodeID, id base.RangeID, until base.Instant, q *rangepb.Request, done store.Done) {
	req := &rangepb.Unlatch{}
	if err := proto.Unmarshal(q.Body, req); err != nil {
		done(nil, status.Error(codes.InvalidArgument, "the request cannot be read: "+err.Error()))
		return
	}
	latch := decodeLatchID(from, req.Id)
	if len(req.Command) == 0 {
		d.cfg.Store.Unlatch(id, latch)
		return
	}
	cmd := &kvpb.Command{}
	if err := proto.Unmarshal(req.Command, cmd); err != nil {
		done(nil, refusedCommand(err))
		return
	}
	if cmd.GetRaiseRevision() == nil {
		done(nil, refusedCommand(errors.New("through a latch goes nothing but a raise of the revision")))
		return
	}
	// Not a part of the frame: the log keeps it, and would keep the frame's memory with it.
	d.cfg.Store.Propose(raftgroup.Proposal{Range: id, Data: bytes.Clone(req.Command), Latch: &latch}, until, done)
}
