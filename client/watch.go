package client

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
)

// WatchOptions say what a Watch hands out.
type WatchOptions struct {
	Span
	From     int64 // the first revision; 0: what is written from now on
	PrevKV   bool  // each event with what the key was before, as long as that is not compacted
	NoPut    bool  // deletions only
	NoDelete bool  // writes only
	// Progress asks for updates without events too: they say how far the watch has come while nothing happened to its keys.
	Progress bool
}

// Update is all that one revision changed in the span of a watch: a transaction is never cut. One without events says that all up to
// Revision was handed out.
type Update struct {
	Revision int64
	Events   []Event // in the order in which they were written
}

// Event is what happened to one key. Of a key that was deleted only Key and ModRevision are set.
type Event struct {
	KeyValue
	Deleted bool
	Prev    *KeyValue // as it was before, if WatchOptions.PrevKV asks for it; nil: there was none, or it is compacted
}

// Compacted: a watch needs what is no longer kept. Below Revision there is nothing; read the span as it is now, and watch from there.
// errors.Is finds ErrCompacted in it.
type Compacted struct{ Revision int64 }

func (e *Compacted) Error() string {
	return fmt.Sprintf("what the watch asks for was compacted: the earliest revision that is kept is %d", e.Revision)
}
func (e *Compacted) Unwrap() error { return ErrCompacted }

// Watch hands out what happens to a span: each revision that changes it exactly once, in their order, whatever becomes of the nodes, and of
// the ranges that hold the span. It goes on until its caller wants no more, ctx ends or an error comes, which is then the last
// thing that comes.
//
//	for u, err := range c.Watch(ctx, client.WatchOptions{Span: client.Prefix("shards/"), From: page.Revision + 1}) {
//		if err != nil {
//			return err // a *client.Compacted: read anew
//		}
//		for _, e := range u.Events {
//			…
//		}
//	}
//
// A watch from now on begins with an update without events: what is written after its Revision will come.
//
// A watch whose node is lost goes on at another, from the revision behind the last that it has received. Many watches share a
// stream to a node. One whose caller is slower than what comes, so that base.ClientWatchBytes wait for it, is taken off that stream, and goes on
// on one of its own, where it slows down nobody else: what it does not take stays at the node.
func (k KV) Watch(ctx context.Context, o WatchOptions) iter.Seq2[Update, error] {
	return func(yield func(Update, error) bool) {
		w := &watcher{kv: k, o: o, next: o.From, news: make(chan struct{}, 1), room: make(chan struct{}, 1)}
		if err := w.run(ctx, yield); err != nil && !errors.Is(err, errEnough) {
			yield(Update{}, err)
		}
	}
}

// run keeps the watch on a stream until it ends for good.
func (w *watcher) run(ctx context.Context, yield func(Update, error) bool) error {
	wait, last := base.ReconnectMin, ""
	for {
		w.begin()
		s, err := w.kv.c.watches.join(ctx, w, last)
		if err == nil {
			err = w.handOut(ctx, yield)
			w.kv.c.watches.leave(s, w)
			last = s.n.addr
		}
		switch {
		case errors.Is(err, errSlow):
			w.alone, last = true, ""
			continue // from where its queue has ended
		case errors.Is(err, errEnough):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case !passing(err):
			return err
		}
		w.alone = false
		if w.wasOn() && !errors.Is(err, rpctypes.ErrNoLeader) {
			wait = base.ReconnectMin
		}
		pause(ctx, wait)
		wait = min(2*wait, base.ReconnectMax)
	}
}

// passing says whether a watch may go on elsewhere, or later. A stream has no effect, so that all may that is not a refusal.
func passing(err error) bool {
	var (
		unavailable *Unavailable
		throttled   *Throttled
	)
	if errors.As(err, &unavailable) || errors.As(err, &throttled) {
		return true
	}
	st, ok := status.FromError(err)
	return ok && (st.Code() == codes.Internal || st.Code() == codes.Unknown) // gRPC's words for a stream that broke in a strange way
}

// handOut yields what comes until the watch is off its stream.
func (w *watcher) handOut(ctx context.Context, yield func(Update, error) bool) error {
	for {
		u, err := w.take(ctx)
		if err != nil {
			return err
		}
		if !yield(u, nil) {
			return errEnough
		}
	}
}

// request is how the watch is asked for now.
func (w *watcher) request(id int64) *pb.WatchRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	key, end := w.o.wire()
	if w.o.End == w.o.Start+"\x00" {
		end = nil
	}
	r := &pb.WatchCreateRequest{
		Key: key, RangeEnd: end, StartRevision: w.next, PrevKv: w.o.PrevKV, WatchId: id, Fragment: true,
		ProgressNotify: true, // also where the caller does not want to know: who goes on from there needs nothing older
	}
	if w.o.NoPut {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if w.o.NoDelete {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NODELETE)
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}

func event(e *mvccpb.Event) Event {
	out := Event{KeyValue: keyValue(e.Kv), Deleted: e.Type == mvccpb.Event_DELETE}
	if e.PrevKv != nil {
		prev := keyValue(e.PrevKv)
		out.Prev = &prev
	}
	return out
}
