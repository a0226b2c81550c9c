package sim

import (
	"bytes"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/meta/watch"
)

// follower carries out one Follow of a client: one watch, until one of its ends.
type follower struct {
	c     *client
	op    *linearizability.Op
	req   *followpb.FollowRequest
	to    int // the node
	log   *linearizability.Follower
	s     *stream // nil until the node has heard of it
	id    int
	queue []watch.Out // arrived, and not read yet: the reader is slow
	busy  bool
	done  func(*followpb.FollowResponse, error) // nil: it has ended
}

var errNeverCreated = errors.New("the watch was not created within its time")

// follow sends a client's watch to its node.
func (c *client) follow(op *linearizability.Op, req *followpb.FollowRequest, done func(proto.Message, error)) {
	w := c.w
	f := &follower{c: c, op: op, req: req, to: c.to, log: linearizability.NewFollower(req.StartRevision)}
	f.done = func(resp *followpb.FollowResponse, err error) {
		f.done = nil
		if err != nil {
			done(nil, err)
			return
		}
		done(resp, nil)
	}
	w.queue.put(w.now+time.Duration(req.ForMicros)*time.Microsecond, func() { f.end(errNeverCreated) })
	w.net.send(w.net.clients(), f.to, classControl, 64, func() {
		p := w.nodes[f.to].process
		if p == nil {
			w.net.send(f.to, w.net.clients(), classControl, 64, func() { f.end(errRefused) })
			return
		}
		p.do(func() { f.create(p) })
	})
	if req.ProgressMicros > 0 {
		f.askProgress()
	}
}

// create has the node make the watch. Runs at the node.
func (f *follower) create(p *process) {
	m := p.watching
	if w := p.n.w; w.sys != nil && !p.member.serves() {
		w.net.send(f.to, w.net.clients(), classControl, 64, func() { f.end(errFenced) })
		return
	}
	s := m.open(f.c.r.ks, f.req)
	s.lastID++
	f.s, f.id = s, s.lastID
	s.watches[f.id] = f
	start, end := f.req.Key, f.req.RangeEnd
	switch {
	case len(end) == 0:
		end = append(bytes.Clone(start), 0)
	case bytes.Equal(end, []byte{0}):
		end = nil
	}
	if bytes.Equal(start, []byte{0}) {
		start = nil
	}
	spec := watch.Spec{
		Keyspace: f.c.r.ks, Start: start, End: end, From: base.Revision(f.req.StartRevision), PrevKV: f.req.PrevKv, NoPut: f.req.NoPut,
		NoDelete: f.req.NoDelete, Progress: f.req.ProgressNotify, Fragment: f.req.Fragment,
	}
	f.c.w.countRanges(f.c.r.ks, start, end)
	m.tell(func() { m.hub.Create(s.id, int64(f.id), spec) })
}

// countRanges takes note of a watch over several ranges.
func (w *world) countRanges(ks base.KeyspaceID, start, end []byte) {
	n := 0
	for _, r := range w.ranges {
		if d := w.newest(r); r.ks == ks && (len(end) == 0 || bytes.Compare(d.Start, end) < 0) && (len(d.End) == 0 || bytes.Compare(d.End, start) > 0) {
			n++
		}
	}
	if n > 1 {
		w.count("watches over several ranges")
	}
}

// askProgress requests progress now and then.
func (f *follower) askProgress() {
	w := f.c.w
	w.queue.put(w.now+time.Duration(f.req.ProgressMicros)*time.Microsecond, func() {
		if f.done == nil {
			return
		}
		if s := f.s; s != nil && !s.broken {
			s.toNode(func() { s.m.tell(func() { s.m.hub.Progress(s.id) }) })
		}
		f.askProgress()
	})
}

// take hands a response to those whom it concerns. Runs at the clients.
func (s *stream) take(o *watch.Out) {
	if o.Kind == watch.Progress && o.Watch < 0 {
		for _, id := range sortedKeys(s.watches) {
			if f := s.watches[id]; f.log.Next() > 0 { // as etcd's client does: to those that were created
				f.arrived(*o)
			}
		}
		s.acknowledge(o)
		return
	}
	if f := s.watches[int(o.Watch)]; f != nil {
		f.arrived(*o)
	} else {
		s.acknowledge(o)
	}
}

// acknowledge tells the node that a response has left the buffers between it and the reader, with all before: what is lost is made up for
// by the next.
func (s *stream) acknowledge(o *watch.Out) {
	s.read += o.Bytes
	read := s.read
	s.toNode(func() {
		if more := read - s.heard; more > 0 {
			s.heard = read
			s.m.tell(func() { s.m.hub.Sent(s.id, more) })
		}
	})
}

// arrived queues a response for the reader. One to all watches is acknowledged by whoever hands it out.
func (f *follower) arrived(o watch.Out) {
	if f.queue = append(f.queue, o); !f.busy {
		f.read()
	}
}

// read takes what has arrived, with pauses if the reader is slow.
func (f *follower) read() {
	f.busy = false
	for len(f.queue) > 0 && f.done != nil {
		o := f.queue[0]
		f.queue = f.queue[1:]
		f.got(&o)
		if o.Watch >= 0 {
			f.s.acknowledge(&o)
		}
		if f.req.PauseMicros > 0 && f.done != nil {
			f.busy = true
			f.c.w.queue.put(f.c.w.now+time.Duration(f.req.PauseMicros)*time.Microsecond, f.read)
			return
		}
	}
}

// got takes one response in.
func (f *follower) got(o *watch.Out) {
	w := f.c.w
	w.note(noteWatch, uint64(f.op.Invoked), uint64(o.Kind), uint64(o.Revision), uint64(len(o.Events)))
	if w.tracing() {
		w.tracef("client %d of %s, watch [%d] at node %d: kind %d, revision %d, %d events, compacted %d %s", f.c.i, f.c.r.id, f.op.Invoked, f.to+1, o.Kind, o.Revision, len(o.Events), o.Compacted, o.Reason)
	}
	switch o.Kind {
	case watch.Created:
		f.log.Created(w.now, int64(o.Revision))
		if f.req.StartRevision > 0 {
			w.count("watches from a revision on")
		}
	case watch.Events:
		f.log.Events(w.now, int64(o.Revision), f.decode(o), o.Fragment)
		w.result.Seen["watch events"] += len(o.Events)
	case watch.Progress:
		w.count("notifications of progress")
		f.log.Progress(w.now, int64(o.Revision))
	case watch.Canceled:
		if o.Compacted > 0 {
			w.count("watches whose history was gone")
			f.log.Compacted(w.now, int64(o.Compacted), o.Reason)
		} else {
			f.log.Broken(o.Reason)
		}
		f.ended()
		return
	}
	if f.log.Reached(f.req) {
		f.end(nil)
	}
}

func (f *follower) decode(o *watch.Out) (out []*mvccpb.Event) {
	for _, e := range o.Events {
		raw := e.Wire
		if o.Prev && e.WithPrev != nil {
			raw = e.WithPrev
		}
		ev := &mvccpb.Event{}
		if err := proto.Unmarshal(raw, ev); err != nil {
			f.c.w.violate("watches", "an event cannot be read: %v", err)
			continue
		}
		out = append(out, ev)
	}
	return out
}

// broken ends a watch whose stream broke.
func (f *follower) broken(why string) {
	if f.done == nil {
		return
	}
	f.c.w.count("watches whose stream broke")
	f.log.Broken(why)
	f.ended()
}

// end ends a watch from the client's side: it is cancelled. never is what it is told if the watch was never there.
func (f *follower) end(never error) {
	if f.done == nil {
		return
	}
	if s := f.s; s != nil && !s.broken {
		id := f.id
		if f.req.Shared {
			s.toNode(func() { s.m.tell(func() { s.m.hub.Cancel(s.id, int64(id)) }) })
		} else {
			s.leave()
		}
	}
	if f.log.Next() == 0 {
		f.forget()
		f.done(nil, never)
		return
	}
	f.ended()
}

func (f *follower) ended() {
	f.forget()
	f.done(f.log.Response(), nil)
}

// forget takes the watch from its stream. What comes of it yet is for nobody.
func (f *follower) forget() {
	if f.s == nil {
		return
	}
	delete(f.s.watches, f.id)
	for i := range f.queue {
		if f.queue[i].Watch >= 0 {
			f.s.acknowledge(&f.queue[i])
		}
	}
	f.queue = nil
}
