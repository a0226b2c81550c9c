package client

import (
	"context"
	"errors"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/internal/base"
)

// errSlow: a watch is off a stream that it shared, as its caller did not take what came.
var errSlow = errors.New("the watch is slower than what comes")

// watcher is one watch: what was received for its caller and not taken yet, and the revision from which it goes on. Everything
// below next is in the queue or was handed out; that is all that outlives a stream.
type watcher struct {
	kv    KV
	o     WatchOptions
	alone bool  // on a stream that it shares with nobody; of the caller's goroutine
	id    int64 // on its stream; under watches.mu

	news chan struct{} // there is something to take
	room chan struct{} // something was taken

	mu      sync.Mutex
	next    int64 // 0: not known yet, from now on
	queue   []Update
	bytes   int             // of the queue, about
	partial []*mvccpb.Event // of a response whose end has not come
	created bool            // on this stream
	off     error           // why it is off its stream; nil: it is on it
}

// begin makes the watch ready for another stream.
func (w *watcher) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partial, w.created, w.off = nil, false, nil
}

// wasOn says whether the stream that it was on had the watch.
func (w *watcher) wasOn() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.created
}

// take waits for the next update. The error is why there is none any more on this stream; what was queued before it comes first.
func (w *watcher) take(ctx context.Context) (Update, error) {
	for {
		w.mu.Lock()
		if len(w.queue) > 0 {
			u := w.queue[0]
			w.queue[0] = Update{}
			w.queue = w.queue[1:]
			w.bytes -= size(u)
			w.mu.Unlock()
			wake(w.room)
			return u, nil
		}
		off := w.off
		w.mu.Unlock()
		if off != nil {
			return Update{}, off
		}
		select {
		case <-w.news:
		case <-ctx.Done():
			return Update{}, ctx.Err()
		}
	}
}

// wake tells whoever waits on c, or will.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// end takes the watch off its stream.
func (w *watcher) end(err error) {
	w.mu.Lock()
	if w.off == nil {
		w.off = err
	}
	w.mu.Unlock()
	wake(w.news)
}

// begun is told that the node has the watch, at a revision of the keyspace: what is written after it will come.
func (w *watcher) begun(revision int64) {
	w.mu.Lock()
	w.created = true
	if w.next == 0 {
		w.next = revision + 1
		w.put(Update{Revision: revision})
	}
	w.mu.Unlock()
	wake(w.news)
}

// progress is told that all up to a revision has been received.
func (w *watcher) progress(revision int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.created || revision < w.next {
		return
	}
	w.next = revision + 1
	if !w.o.Progress {
		return
	}
	if n := len(w.queue); n > 0 && len(w.queue[n-1].Events) == 0 {
		w.queue[n-1].Revision = revision
		return
	}
	w.put(Update{Revision: revision})
	wake(w.news)
}

// receive takes the events of a response, which ends behind a revision unless it is a fragment. It returns how much waits.
func (w *watcher) receive(r *pb.WatchResponse) (waiting int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := r.Events
	if r.Fragment || len(w.partial) > 0 {
		w.partial = append(w.partial, r.Events...)
		if r.Fragment {
			return w.bytes
		}
		events, w.partial = w.partial, nil
	}
	for len(events) > 0 {
		u := Update{Revision: events[0].Kv.ModRevision}
		for len(events) > 0 && events[0].Kv.ModRevision == u.Revision {
			u.Events = append(u.Events, event(events[0]))
			events = events[1:]
		}
		w.put(u)
		w.next = u.Revision + 1
	}
	wake(w.news)
	return w.bytes
}

func (w *watcher) put(u Update) {
	w.queue = append(w.queue, u)
	w.bytes += size(u)
}

// size is about what an update takes in memory.
func size(u Update) int {
	n := base.ClientUpdateBytes
	for _, e := range u.Events {
		n += base.ClientUpdateBytes + len(e.Key) + len(e.Value)
		if e.Prev != nil {
			n += base.ClientUpdateBytes + len(e.Prev.Key) + len(e.Prev.Value)
		}
	}
	return n
}

// hasRoom waits until the caller has taken enough, or the stream ends.
func (w *watcher) hasRoom(ctx context.Context) {
	for {
		w.mu.Lock()
		room := w.bytes <= base.ClientWatchBytes || w.off != nil
		w.mu.Unlock()
		if room {
			return
		}
		select {
		case <-w.room:
		case <-ctx.Done():
			return
		}
	}
}
