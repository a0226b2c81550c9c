package dispatch

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/meta/spread"
	"github.com/cairndb/cairn/meta/watch"
	"github.com/cairndb/cairn/node/store"
)

// What a node's watches ask for (RFC 5): what was written in a span, of any replica, for each is right up to where it is; that quiet
// ranges be closed; and what the revision is now.

// Changes returns a page of what was written in the part of the request's span that one range holds: of this node's replica, if it has
// one, or else of another's. It always ends between two revisions: what does not fit between nodes in one piece is fetched in several.
func (d *Dispatcher) Changes(ctx context.Context, req *rangepb.ChangesRequest) (*rangepb.ChangesResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(req.WaitMicros)*time.Microsecond+base.RequestTimeout)
	defer cancel()
	var whole *rangepb.ChangesResponse
	for ask := req; ; {
		page, err := d.changesPage(ctx, ask)
		if err != nil {
			return nil, err
		}
		if page.Compacted > ask.From {
			return page, nil // it was compacted between two pieces of a revision
		}
		if whole != nil {
			if !bytes.Equal(page.End, whole.End) {
				return nil, &base.Throttled{What: "changes of a span that was cut meanwhile", RetryAfter: base.ThrottleRetry}
			}
			page.Events = append(whole.Events, page.Events...)
		}
		if page.NextSub == 0 {
			return page, nil
		}
		whole, ask = page, proto.CloneOf(req)
		ask.From, ask.FromSub, ask.WaitMicros = page.Next, page.NextSub, 0
	}
}

// changesPage returns what fits between nodes in one piece.
func (d *Dispatcher) changesPage(ctx context.Context, req *rangepb.ChangesRequest) (out *rangepb.ChangesResponse, err error) {
	err = d.retry(ctx, base.KeyspaceID(req.KeyspaceId), req.Start, func(r *metapb.RangeDescriptor, _ base.NodeID) (err error) {
		id := base.RangeID(r.RangeId)
		if d.cfg.Store.Has(id) {
			out, err = d.changesHere(ctx, id, req)
			return err
		}
		nodes := route.Order(r, route.Own{Node: d.cfg.Node}) // any of them will do: they take turns
		node := nodes[(d.turn.Load()+uint64(d.cfg.Node))%uint64(len(nodes))]
		ask := proto.CloneOf(req)
		ask.Cut = true
		body, err := proto.Marshal(ask)
		if err != nil {
			return err
		}
		out = &rangepb.ChangesResponse{}
		err = d.retriable(ctx, id, d.ask(ctx, node, id, rangepb.RequestKind_REQUEST_KIND_CHANGES, body, out))
		if err != nil || out.Revision < req.From {
			d.turn.Add(1) // it may be one that was removed and does not know it
		}
		return err
	})
	return out, err
}

func (d *Dispatcher) changesHere(ctx context.Context, id base.RangeID, req *rangepb.ChangesRequest) (*rangepb.ChangesResponse, error) {
	if req.WaitMicros > 0 {
		_, err := wait(ctx, false, func(done store.Done) { d.cfg.Store.Await(id, req, d.waitUntil(req), done) })
		if ctx.Err() != nil { // also where what it waited for came in the same moment
			return nil, ctx.Err()
		}
		if errors.Is(err, base.ErrStopped) {
			return nil, err
		}
	}
	select {
	case d.pulls <- struct{}{}:
		defer func() { <-d.pulls }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return d.cfg.Store.Changes(id, req)
}

func (d *Dispatcher) waitUntil(req *rangepb.ChangesRequest) base.Instant {
	return d.cfg.Store.Now().Add(min(time.Duration(req.WaitMicros)*time.Microsecond, base.WatchPollTime))
}

// serveChanges serves another node. While it waits there is no goroutine for it.
func (d *Dispatcher) serveChanges(id base.RangeID, until base.Instant, raw []byte, done func(proto.Message, error)) {
	req := &rangepb.ChangesRequest{}
	if err := proto.Unmarshal(raw, req); err != nil {
		done(nil, status.Error(codes.InvalidArgument, "the request cannot be read: "+err.Error()))
		return
	}
	read := func() {
		d.goServe(done, func() (proto.Message, error) {
			ctx, cancel := context.WithTimeout(d.ctx, until.Sub(d.cfg.Store.Now()))
			defer cancel()
			now := proto.CloneOf(req)
			now.WaitMicros = 0
			return d.changesHere(ctx, id, now)
		})
	}
	if req.WaitMicros == 0 {
		read()
		return
	}
	d.cfg.Store.Await(id, req, min(until, d.waitUntil(req)), func(_ proto.Message, err error) {
		if errors.Is(err, base.ErrStopped) {
			done(nil, err)
			return
		}
		read()
	})
}

// Close raises quiet ranges to the present, and to what they are to be above, where another clock wrote that is ahead of this node's:
// whatever comes later in them has a higher revision. Each range gets one entry. One that cannot be raised is left out; the error is
// one of theirs, if none could be.
func (d *Dispatcher) Close(ctx context.Context, ks base.KeyspaceID, quiet []watch.Quiet) error {
	ctx, cancel := context.WithTimeout(ctx, base.RequestTimeout)
	defer cancel()
	var (
		mu     sync.Mutex
		failed error
		closed int
		wg     sync.WaitGroup
	)
	slots := make(chan struct{}, base.WatchClosesAtOnce)
	now := d.NowMicros()
	ended := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed = err
		} else {
			closed++
		}
	}
	raises := map[uint64]*spread.Ask{} // by range: one may hold several of the keys by now
	for _, q := range quiet {
		r, err := d.descriptor(ctx, ks, q.Key)
		if err != nil {
			ended(err)
			continue
		}
		a := raises[r.RangeId]
		if a == nil {
			a = &spread.Ask{Kind: spread.Raise, Key: q.Key, Revision: now}
			raises[r.RangeId] = a
		}
		a.Revision = max(a.Revision, int64(q.Above))
	}
	for _, a := range raises {
		slots <- struct{}{}
		wg.Go(func() {
			_, err := d.proposeAt(ctx, ks, a.Key, a.Command(now))
			ended(err)
			<-slots
		})
	}
	wg.Wait()
	if closed > 0 {
		return nil
	}
	return failed
}

// Now returns a revision such that whatever was answered before the call in [start, end) is not above it, and whatever is written
// after the call is; an empty end is the end of the keyspace.
func (d *Dispatcher) Now(ctx context.Context, ks base.KeyspaceID, start, end []byte) (base.Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, base.RequestTimeout)
	defer cancel()
	req := &pb.RangeRequest{Key: start, RangeEnd: end, Limit: 1}
	if len(start) == 0 {
		req.Key = []byte{0} // below every key
	}
	if len(end) == 0 {
		req.RangeEnd = []byte{0}
	}
	for {
		ask, err := pageRequest(req, 1)
		if err != nil {
			return 0, err
		}
		ask.RevisionOnly = true
		out := &pb.RangeResponse{}
		across := false
		err = d.retry(ctx, ks, req.Key, func(r *metapb.RangeDescriptor, node base.NodeID) error {
			if across = endsWithin(r, req.RangeEnd); across {
				return nil
			}
			if d.cfg.Store.Has(base.RangeID(r.RangeId)) {
				node = d.cfg.Node
			}
			return d.readAt(ctx, r, node, ask, out)
		})
		var several *base.SeveralRanges
		switch {
		case errors.As(err, &several):
			continue // it was cut since it was looked up, and is known now as it is
		case err != nil:
			return 0, err
		case !across:
			return base.Revision(out.GetHeader().GetRevision()), nil
		}
		rev, err := d.fix(ctx, ks, req)
		return base.Revision(rev), err
	}
}
