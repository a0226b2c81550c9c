package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

// ask sends one request to another node and waits for its answer, which is put into out.
func (d *Dispatcher) ask(ctx context.Context, to base.NodeID, id base.RangeID, kind rangepb.RequestKind, body []byte, out proto.Message) error {
	if to == d.cfg.Node {
		return &base.NotLeader{Range: id}
	}
	rid := d.nextID.Add(1)
	r := &remote{to: to, id: id, ch: make(chan *rangepb.Response, 1)}
	o, err := d.outbox(to)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.pending[rid] = r
	d.mu.Unlock()
	req := &rangepb.Request{Id: rid, RangeId: uint64(id), Kind: kind, Body: body, TimeoutMicros: uint64(base.RequestTimeout.Microseconds())}
	if t, ok := ctx.Deadline(); ok {
		req.TimeoutMicros = uint64(max(0, time.Until(t).Microseconds()))
	}
	if err := o.request(req); err != nil {
		d.take(rid)
		return err
	}
	var resp *rangepb.Response
	select {
	case resp = <-r.ch:
	case <-ctx.Done():
		d.take(rid)
		return &base.Ambiguous{Cause: ctx.Err()}
	case <-d.ctx.Done():
		d.take(rid)
		return &base.Ambiguous{Cause: base.ErrStopped}
	}
	if resp.Error != nil {
		return decodeError(id, resp.Error)
	}
	if err := proto.Unmarshal(resp.Body, out); err != nil {
		return &base.Ambiguous{Cause: fmt.Errorf("answer of %s: %w", to, err)}
	}
	return nil
}

// take removes a request that waits; nil if somebody else has it.
func (d *Dispatcher) take(rid uint64) *remote {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.pending[rid]
	delete(d.pending, rid)
	return r
}

// takeOf removes a request that waits for one node's answer: nobody answers for another.
func (d *Dispatcher) takeOf(node base.NodeID, rid uint64) *remote {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.pending[rid]
	if r == nil || r.to != node {
		return nil
	}
	delete(d.pending, rid)
	return r
}

func (d *Dispatcher) outbox(to base.NodeID) (*outbox, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return nil, base.ErrStopped
	}
	o := d.outboxes[to]
	if o == nil {
		o = newOutbox(to, d.cfg.Transport.Send, d.notSent)
		d.outboxes[to] = o
		d.wg.Go(o.run)
	}
	return o, nil
}

// notSent ends requests that certainly did not leave this node: they may be tried elsewhere.
func (d *Dispatcher) notSent(reqs []*rangepb.Request, err error) {
	for _, q := range reqs {
		if r := d.take(q.Id); r != nil {
			nl := encodeError(&base.NotLeader{Range: r.id})
			nl.Message = err.Error()
			r.ch <- &rangepb.Response{Id: q.Id, Error: nl}
		}
	}
}

// PeerDown ends the requests that wait for a node which cannot be reached: whether it carried them out is not known.
func (d *Dispatcher) PeerDown(node base.NodeID, reason error) {
	d.mu.Lock()
	var ended []*remote
	for rid, r := range d.pending {
		if r.to == node {
			ended = append(ended, r)
			delete(d.pending, rid)
		}
	}
	d.mu.Unlock()
	for _, r := range ended {
		var err error = &base.Ambiguous{Cause: fmt.Errorf("%s: %w", node, reason)}
		if mutant.Is(mutant.BlindRetry) {
			err = &base.NotLeader{Range: r.id}
		}
		r.ch <- &rangepb.Response{Error: encodeError(err)}
	}
}

// HandleControl takes a frame of the control class from another node.
func (d *Dispatcher) HandleControl(from base.NodeID, raw []byte) error {
	var f rangepb.ControlFrame
	if err := proto.Unmarshal(raw, &f); err != nil {
		return fmt.Errorf("control frame from %s: %w", from, err)
	}
	for _, resp := range f.GetResponses().GetResponses() {
		if r := d.takeOf(from, resp.Id); r != nil {
			r.ch <- resp
		}
	}
	reqs := f.GetRequests().GetRequests()
	if len(reqs) == 0 {
		return nil
	}
	o, err := d.outbox(from)
	if err != nil {
		return nil // stopping: the asker sees the streams end
	}
	for _, q := range reqs {
		d.serve(o, q)
	}
	return nil
}

// serve begins to serve one request of another node. It does not wait for its end.
func (d *Dispatcher) serve(o *outbox, q *rangepb.Request) {
	id := base.RangeID(q.RangeId)
	timeout := time.Duration(min(q.TimeoutMicros, uint64(base.RequestTimeout.Microseconds()))) * time.Microsecond
	until := d.cfg.Store.Now().Add(timeout)
	done := func(m proto.Message, err error) {
		resp := &rangepb.Response{Id: q.Id}
		if err == nil {
			resp.Body, err = proto.Marshal(m)
		}
		var moved *base.RangeMoved
		if errors.As(err, &moved) {
			err = &base.RangeMoved{Range: moved.Range, Descriptors: d.routes.beside(moved.Descriptors), Absent: moved.Absent}
		}
		if err != nil {
			resp.Body, resp.Error = nil, encodeError(err)
		}
		o.respond(resp)
	}
	switch q.Kind {
	case rangepb.RequestKind_REQUEST_KIND_PLACE:
		d.goServe(done, func() (proto.Message, error) { return placed, d.placeHere(d.ctx, q.Body) })
		return
	case rangepb.RequestKind_REQUEST_KIND_END:
		done(placed, d.endHere(q.Body))
		return
	}
	if d.servePlain(q, done) {
		return
	}
	if !d.cfg.Store.Has(id) {
		done(nil, d.absent(id))
		return
	}
	d.serveRange(o, q, id, until, done)
}

// serveRange begins to serve a request to the range's replica, which is here.
func (d *Dispatcher) serveRange(o *outbox, q *rangepb.Request, id base.RangeID, until base.Instant, done func(proto.Message, error)) {
	switch q.Kind {
	case rangepb.RequestKind_REQUEST_KIND_PROPOSE:
		if err := checkCommand(q.Body); err != nil {
			done(nil, err)
			return
		}
		// Clone: the frame's memory would be kept alive by the log entry.
		d.cfg.Store.Propose(raftgroup.Proposal{Range: id, Data: slices.Clone(q.Body)}, until, d.timed(done))
	case rangepb.RequestKind_REQUEST_KIND_READ:
		d.serveRead(id, until, q, &pb.RangeRequest{}, done)
	case rangepb.RequestKind_REQUEST_KIND_READ_TXN:
		d.serveRead(id, until, q, &pb.TxnRequest{}, done)
	case rangepb.RequestKind_REQUEST_KIND_LATCH:
		d.serveLatch(o.to, id, until, q, done)
	case rangepb.RequestKind_REQUEST_KIND_UNLATCH:
		d.serveUnlatch(o.to, id, until, q, done)
	case rangepb.RequestKind_REQUEST_KIND_HEARTBEAT:
		done(d.heartbeatHere(q.Body))
	case rangepb.RequestKind_REQUEST_KIND_ALIGN:
		done(placed, d.alignHere(id, q.Body))
	case rangepb.RequestKind_REQUEST_KIND_CONFIRM:
		d.confirmHere(id, q.Body, until, done)
	case rangepb.RequestKind_REQUEST_KIND_PAGE:
		d.serveRead(id, until, q, &rangepb.PageRequest{}, done)
	case rangepb.RequestKind_REQUEST_KIND_CHANGES:
		d.serveChanges(id, until, q.Body, done)
	case rangepb.RequestKind_REQUEST_KIND_DIRECT:
		answer, err := d.directHere(id, q.Body)
		done(answer, err)
	case rangepb.RequestKind_REQUEST_KIND_EXPLAIN:
		d.goServe(done, func() (proto.Message, error) { return d.explainUntil(id, until, q.Body) })
	case rangepb.RequestKind_REQUEST_KIND_DESCRIPTOR:
		d.goServe(done, func() (proto.Message, error) { return d.descriptorHere(d.ctx, id, until) })
	case rangepb.RequestKind_REQUEST_KIND_CHECKSUM:
		d.goServe(done, func() (proto.Message, error) { return d.checksumRaw(id, until, q.Body) })
	case rangepb.RequestKind_REQUEST_KIND_LEASE:
		d.goServe(done, func() (proto.Message, error) { return d.leaseRaw(id, q.Body) })
	case rangepb.RequestKind_REQUEST_KIND_EXPORT:
		d.goServe(done, func() (proto.Message, error) { return d.exportRaw(id, until, q.Body) })
	default:
		done(nil, status.Error(codes.Unimplemented, "a kind of request that this version does not know"))
	}
}

// serveRead serves a read on a goroutine of its own: it may wait for the read index, and an evaluation may be long. Their
// number is bounded by that of the askers' clients.
func (d *Dispatcher) serveRead(id base.RangeID, until base.Instant, q *rangepb.Request, req proto.Message, done func(proto.Message, error)) {
	if err := proto.Unmarshal(q.Body, req); err != nil {
		done(nil, status.Error(codes.InvalidArgument, "the request cannot be read: "+err.Error()))
		return
	}
	if !d.begin() {
		done(nil, base.ErrStopped)
		return
	}
	go func() {
		defer d.wg.Done()
		out := emptyAnswer(req)
		if served, err := d.cfg.Store.ReadLeased(id, req, out); served {
			done(out, err)
			return
		}
		if _, err := wait(d.ctx, false, func(done store.Done) { d.cfg.Store.ReadIndex(id, until, done) }); err != nil {
			done(nil, err)
			return
		}
		done(out, d.cfg.Store.Read(id, req, out))
	}()
}

// goServe serves a request on a goroutine of its own.
func (d *Dispatcher) goServe(done func(proto.Message, error), f func() (proto.Message, error)) {
	if !d.begin() {
		done(nil, base.ErrStopped)
		return
	}
	go func() {
		defer d.wg.Done()
		done(f())
	}()
}

// begin counts a goroutine that Stop is to wait for; false if it no longer waits for any.
func (d *Dispatcher) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return false
	}
	d.wg.Add(1)
	return true
}

func emptyAnswer(req proto.Message) proto.Message {
	if _, txn := req.(*pb.TxnRequest); txn {
		return &pb.TxnResponse{}
	}
	return &pb.RangeResponse{}
}
