package serve

import (
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
)

// watching is all streams of watches that a server has: they are ended when the node may not serve any more, and those that want a
// leader when there is none.
type watching struct {
	mu      sync.Mutex
	streams map[*watchStream]struct{}
	looking bool // for leaders
}

func (x *watching) add(w *watchStream) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.streams == nil {
		x.streams = make(map[*watchStream]struct{})
	}
	x.streams[w] = struct{}{}
	if w.leader && !x.looking {
		x.looking = true
		w.s.streams.Go(func() { x.look(w.s) })
	}
}

func (x *watching) remove(w *watchStream) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.streams, w)
}

// end ends all of them.
func (x *watching) end(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for w := range x.streams {
		w.End(err)
	}
}

// look ends the streams that want a leader and have had none for several elections. It returns when there are none that do.
func (x *watching) look(s *Server) {
	tick := time.NewTicker(base.ElectionTicks * base.TickInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ending:
			return
		}
		streams, goOn := x.wanting()
		if !goOn {
			return
		}
		led := map[base.KeyspaceID]bool{} // of those that are one range
		for _, w := range streams {
			if w.led(led) {
				w.missed = 0
			} else if w.missed++; w.missed >= base.WatchLeaderless {
				w.End(rpctypes.ErrGRPCNoLeader)
			}
		}
	}
}

func (x *watching) wanting() (out []*watchStream, goOn bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for w := range x.streams {
		if w.leader {
			out = append(out, w)
		}
	}
	x.looking = len(out) > 0
	return out, x.looking
}

// led says whether the ranges have leaders that a stream's watches begin in.
func (w *watchStream) led(known map[base.KeyspaceID]bool) bool {
	if !w.ks.Splits() {
		led, ok := known[w.ks]
		if !ok {
			led = w.s.cfg.Backend.HasLeader(w.ks, nil)
			known[w.ks] = led
		}
		return led
	}
	w.mu.Lock()
	keys := w.keys
	w.mu.Unlock()
	for _, key := range keys {
		if !w.s.cfg.Backend.HasLeader(w.ks, key) {
			return false
		}
	}
	return true
}
