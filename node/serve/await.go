package serve

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// awaited is the sink of a watch that somebody in the process waits for. What waits in it is bounded by the node: it sends no more
// than base.WatchStreamBytes that were not taken.
type awaited struct {
	ready chan struct{} // capacity 1: there is something

	mu   sync.Mutex
	outs []watch.Out
	err  error
}

// Outs implements WatchSink.
func (a *awaited) Outs(outs []watch.Out) {
	a.mu.Lock()
	a.outs = append(a.outs, outs...)
	a.mu.Unlock()
	a.signal()
}

// End implements WatchSink.
func (a *awaited) End(err error) {
	a.mu.Lock()
	a.err = err
	a.mu.Unlock()
	a.signal()
}

func (a *awaited) signal() {
	select {
	case a.ready <- struct{}{}:
	default:
	}
}

func (a *awaited) take() ([]watch.Out, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	outs := a.outs
	a.outs = nil
	return outs, a.err
}

// await watches until take wants no more of the events, or ctx ends. It is rpctypes.ErrGRPCCompacted if some can be had no more.
func (c *Config) await(ctx context.Context, spec watch.Spec, take func(*watch.Out) (more bool, err error)) error {
	a := &awaited{ready: make(chan struct{}, 1)}
	stream, err := c.Backend.OpenWatches(a)
	if err != nil {
		return err
	}
	defer stream.Close()
	stream.Create(0, spec)
	for {
		select {
		case <-a.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		outs, ended := a.take()
		for i := range outs {
			o := &outs[i]
			stream.Sent(o.Bytes)
			more, err := true, canceled(o)
			if o.Kind == watch.Events {
				more, err = take(o)
			}
			if err != nil || !more {
				return err
			}
		}
		if ended != nil {
			return ended
		}
	}
}

// canceled is why a watch has ended; nil: it has not.
func canceled(o *watch.Out) error {
	switch {
	case o.Kind != watch.Canceled:
		return nil
	case o.Compacted > 0:
		return rpctypes.ErrGRPCCompacted
	}
	return status.Error(codes.Unavailable, "the watch ended: "+o.Reason)
}

// ofKey is a watch of one key.
func ofKey(ks base.KeyspaceID, key []byte, from int64) watch.Spec {
	return watch.Spec{Keyspace: ks, Start: key, End: append(key[:len(key):len(key)], 0), From: base.Revision(from)}
}
