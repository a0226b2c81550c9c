package watch

import (
	"time"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
)

// run is the loop: it tells the hub what has happened, steps it, and has done what comes of that.
func (w *Watches) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var p pace
	for {
		select {
		case <-w.in.signal:
		case <-timer.C:
		case <-w.ctx.Done():
			w.endStreams()
			return
		}
		mail := w.in.take()
		for _, it := range mail.items {
			if it.applied != nil {
				w.hub.Applied(it.applied)
			} else {
				it.do(w.hub)
			}
		}
		for id, bytes := range mail.sent {
			w.hub.Sent(id, bytes)
			w.sent(id, bytes)
		}
		now := w.cfg.Now()
		eff := w.hub.Step(now)
		wake, open := p.next(now, w.carryOut(&eff), eff.Wake)
		if open {
			w.in.open()
		}
		if wake == 0 {
			timer.Stop()
		} else {
			timer.Reset(max(0, wake.Sub(now)))
		}
	}
}

// carryOut has done what a step wants. It returns what send does.
func (w *Watches) carryOut(eff *watch.Effects) (alone int) {
	alone = w.send(eff.Out)
	for _, e := range eff.Ends {
		if s := w.streams[e.Stream]; s != nil {
			s.sink.End(e.Err)
		}
	}
	for _, want := range eff.Wants {
		w.cfg.Want(want)
	}
	for i := range eff.Asks {
		w.ask(&eff.Asks[i])
	}
	for _, id := range eff.Cancel {
		w.forget(id)
	}
	return alone
}

// send gives each stream what it is to be sent, all at once. It says how many responses that were if each stream had been sent its events
// one by one.
func (w *Watches) send(outs []watch.Out) (alone int) {
	events := 0
	for i := range outs {
		o := &outs[i]
		s := w.streams[o.Stream]
		if s == nil {
			continue
		}
		switch {
		case o.Kind == watch.Created:
			s.watches++
			w.counts.watches.Add(1)
		case o.Kind == watch.Canceled && o.Watch != noWatch:
			s.watches--
			w.counts.watches.Add(-1)
		}
		events += len(o.Events)
		if s.unsent += o.Bytes; s.unsent >= base.WatchStreamBytes && !s.behind {
			s.behind = true
			w.counts.behind.Add(1)
		}
		if len(s.batch) == 0 {
			w.touched = append(w.touched, s)
			if n := len(w.spare); n > 0 {
				s.batch, w.spare = w.spare[n-1], w.spare[:n-1]
			}
		}
		s.batch = append(s.batch, *o)
		s.most = max(s.most, len(o.Events))
	}
	w.counts.events.Add(uint64(events)) // before anybody can have got them
	w.counts.responses.Add(uint64(len(outs)))
	for _, s := range w.touched {
		s.sink.Outs(s.batch)
		w.spare = append(w.spare, base.Emptied(s.batch))
		alone += min(s.most, base.WatchPauseEvents)
		s.batch, s.most = nil, 0
	}
	w.touched = base.Emptied(w.touched)
	if len(w.spare) > spareBatches {
		clear(w.spare[spareBatches:])
		w.spare = w.spare[:spareBatches]
	}
	return alone
}

// sent counts as the hub does which streams are behind.
func (w *Watches) sent(id watch.StreamID, bytes int) {
	s := w.streams[id]
	if s == nil {
		return
	}
	if s.unsent -= bytes; s.behind && s.unsent <= base.WatchStreamBytes/2 {
		s.behind = false
		w.counts.behind.Add(-1)
	}
}

// noWatch is the id under which a watch is refused that was never there.
const noWatch = -1

// spareBatches is how many batches are kept to be used again: those of the streams that one step sends to, mostly.
const spareBatches = 128

// endStreams ends what is served when the node stops. Nothing more gets into the mailbox by then.
func (w *Watches) endStreams() {
	for _, it := range w.in.take().items {
		if it.do != nil {
			it.do(w.hub) // it may open a stream
		}
	}
	for _, s := range w.streams {
		s.sink.End(base.ErrStopped)
	}
	for id := range w.asks {
		w.forget(id)
	}
}
