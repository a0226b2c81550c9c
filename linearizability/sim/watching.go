package sim

import (
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/route"
	metaspread "github.com/cairndb/cairn/meta/spread"
	"github.com/cairndb/cairn/meta/watch"
)

// watching stands for node/watch: a process's watches are the product's hub, stepped when something was told to it. What it asks goes
// out as the dispatcher's questions do.
type watching struct {
	p       *process
	hub     *watch.Hub
	stepped bool // a step is on its way
	timer   uint64
	streams map[watch.StreamID]*stream
	shared  map[base.KeyspaceID]*stream // the one that clients who share one have, of each keyspace
	last    watch.StreamID
	asks    map[uint64]*call
	most    uint64 // bytes of a page; 0: the product's own
}

func newWatching(p *process) *watching {
	r := p.n.rand
	cfg := watch.Config{Rand: base.NewRand(r.Uint64())}
	m := &watching{p: p, streams: map[watch.StreamID]*stream{}, shared: map[base.KeyspaceID]*stream{}, asks: map[uint64]*call{}}
	if r.Int63n(2) == 0 { // so little is kept that readers are slow, and histories long, at the size of a simulation
		cfg.StreamBytes, cfg.TailBytes, cfg.MergeBytes = 500+int(r.Int63n(5_000)), 500+int(r.Int63n(20_000)), 500+int(r.Int63n(5_000))
		cfg.ResponseBytes = 50 + int(r.Int63n(1_000))
		m.most = uint64(100 + r.Int63n(3000))
	}
	m.hub = watch.NewHub(cfg)
	return m
}

// applied and gone are told by the store, which has not returned yet.
func (m *watching) applied(a watch.Applied) {
	m.p.ready = append(m.p.ready, func() { m.tell(func() { m.hub.Applied(&a) }) })
}

func (m *watching) gone(id base.RangeID) {
	m.p.ready = append(m.p.ready, func() { m.tell(func() { m.hub.Gone(id) }) })
}

// tell tells the hub of something, and has it stepped.
func (m *watching) tell(what func()) {
	what()
	if !m.stepped {
		m.stepped = true
		m.p.later(passDelay, m.step)
	}
}

func (m *watching) step() {
	m.stepped = false
	eff := m.hub.Step(m.p.store.Now())
	for _, w := range eff.Wants {
		m.p.store.Watch(w)
	}
	for i := range eff.Out {
		if s := m.streams[eff.Out[i].Stream]; s != nil {
			s.send(eff.Out[i])
		}
	}
	for i := range eff.Asks {
		m.ask(&eff.Asks[i])
	}
	for _, id := range eff.Cancel {
		if c := m.asks[id]; c != nil {
			c.ended = true
			delete(m.p.gateway.asked, c.asked)
		}
		delete(m.asks, id)
	}
	m.timer++
	if eff.Wake != 0 {
		m.wakeAt(m.timer, eff.Wake)
	}
}

func (m *watching) wakeAt(timer uint64, at base.Instant) {
	m.p.later(max(at.Sub(m.p.store.Now()), 500*time.Microsecond), func() {
		switch {
		case m.timer != timer || m.stepped:
		case m.p.store.Now() < at:
			m.wakeAt(timer, at)
		default:
			m.step()
		}
	})
}

// ask has a question of the hub's answered.
func (m *watching) ask(a *watch.Ask) {
	g, id := m.p.gateway, a.ID
	answer := func(x watch.Answer) {
		if _, wanted := m.asks[id]; wanted {
			delete(m.asks, id)
			m.tell(func() { m.hub.Answered(id, x) })
		}
	}
	m.asks[id] = nil
	switch a.Kind {
	case watch.Pull:
		m.p.n.w.count("pulls of watches")
		m.pull(a, answer)
	case watch.Close:
		m.p.n.w.count("closings of quiet ranges")
		g.raiseAll(a.Keyspace, a.Quiet, func(err error) { answer(watch.Answer{Err: err}) })
	case watch.Now:
		c := g.revisionNow(a)
		c.done = func(resp proto.Message, err error) {
			x := watch.Answer{Err: err}
			if err == nil {
				x.Revision = base.Revision(resp.(*pb.RangeResponse).GetHeader().GetRevision())
			}
			answer(x)
		}
		m.asks[id] = c
		g.begin(c)
	}
}

// pull reads a page as node/dispatch does: in pieces, where it does not fit between nodes.
func (m *watching) pull(a *watch.Ask, answer func(watch.Answer)) {
	req := &rangepb.ChangesRequest{
		KeyspaceId: uint64(a.Keyspace), Start: a.Start, End: a.End, From: int64(a.From), PrevKv: a.Prev, Known: int64(a.Known), MostBytes: m.most,
	}
	if a.Wait {
		req.WaitMicros = uint64(base.WatchPollTime.Microseconds())
	}
	deadline := m.p.gateway.now().Add(base.WatchPollTime + base.RequestTimeout)
	var whole *rangepb.ChangesResponse
	var next func(*rangepb.ChangesRequest)
	next = func(ask *rangepb.ChangesRequest) {
		c := &call{ks: a.Keyspace, key: a.Start, req: ask, deadline: deadline}
		c.done = func(resp proto.Message, err error) {
			page, _ := resp.(*rangepb.ChangesResponse)
			switch {
			case err != nil:
				answer(watch.Answer{Err: err})
				return
			case page.Compacted > ask.From:
				whole = page // it was compacted between two pieces of a revision
			case whole != nil && string(page.End) != string(whole.End):
				answer(watch.Answer{Err: &base.Throttled{What: "changes of a span that was cut meanwhile", RetryAfter: base.ThrottleRetry}})
				return
			default:
				if whole != nil {
					page.Events = append(whole.Events, page.Events...)
				}
				if whole = page; page.NextSub != 0 {
					m.p.n.w.count("pulls in several pieces")
					again := proto.CloneOf(req)
					again.From, again.FromSub, again.WaitMicros = page.Next, page.NextSub, 0
					next(again)
					return
				}
			}
			p, err := watch.DecodePage(whole)
			answer(watch.Answer{Page: p, Err: err})
		}
		if _, wanted := m.asks[a.ID]; wanted {
			m.asks[a.ID] = c
			m.p.gateway.begin(c)
		}
	}
	next(req)
}

// changes serves a pull by this node's own replica.
func (g *gateway) changes(id base.RangeID, req *rangepb.ChangesRequest, done func(proto.Message, error)) {
	p := g.p
	read := func() {
		resp, err := p.store.Changes(id, req)
		done(resp, err)
	}
	if req.WaitMicros == 0 {
		read()
		return
	}
	until := g.now().Add(time.Duration(req.WaitMicros) * time.Microsecond)
	p.store.Await(id, req, until, func(proto.Message, error) { p.ready = append(p.ready, read) })
}

// puller is whom to ask for changes that no replica here has: the range's nodes take turns. What is asked for comes in pieces.
func (g *gateway) puller(c *call, nodes []base.NodeID) base.NodeID {
	ask := proto.CloneOf(c.req.(*rangepb.ChangesRequest))
	ask.Cut = true
	c.req = ask
	if c.tries > 0 {
		g.turn++ // it may be one that was removed and does not know it
	}
	return nodes[(g.turn+uint64(g.p.n.id))%uint64(len(nodes))]
}

// revisionNow is dispatch.Now.
func (g *gateway) revisionNow(a *watch.Ask) *call {
	req := &pb.RangeRequest{Key: a.Start, RangeEnd: a.End, Limit: 1}
	if len(a.Start) == 0 {
		req.Key = []byte{0}
	}
	if len(a.End) == 0 {
		req.RangeEnd = []byte{0}
	}
	return &call{ks: a.Keyspace, key: req.Key, req: req, deadline: g.now().Add(base.RequestTimeout)}
}

// raiseAll is dispatch.Close.
func (g *gateway) raiseAll(ks base.KeyspaceID, quiet []watch.Quiet, done func(error)) {
	var failed error
	closed, open := 0, 1
	ended := func(err error) {
		if open--; err != nil {
			failed = err
		} else {
			closed++
		}
		if open == 0 {
			if closed > 1 { // one is this function's own
				failed = nil
			}
			done(failed)
		}
	}
	now := g.micros()
	raises := map[uint64]*metaspread.Ask{}
	for _, q := range quiet {
		d := g.cache.Find(ks, q.Key)
		if d == nil {
			failed = &route.NoRange{Keyspace: ks}
			g.lookUp(&call{ks: ks, key: q.Key})
			continue
		}
		a := raises[d.RangeId]
		if a == nil {
			a = &metaspread.Ask{Kind: metaspread.Raise, Key: q.Key, Revision: now}
			raises[d.RangeId] = a
		}
		a.Revision = max(a.Revision, int64(q.Above))
	}
	for _, id := range sortedKeys(raises) {
		a := raises[id]
		open++
		g.propose(ks, a.Key, a.Command(now), func(_ proto.Message, err error) { ended(err) })
	}
	ended(nil)
}

// stream is a stream of watches between a client's machine and a process. What is sent on it arrives in order; what is lost, or follows
// something that was lost, does not arrive any more, and breaks it.
type stream struct {
	m       *watching
	ks      base.KeyspaceID
	id      watch.StreamID
	sent    int // responses
	taken   int // by the client, in order
	broken  bool
	read    int               // bytes that the clients have taken from their buffers, and
	heard   int               // what the node has heard of that
	watches map[int]*follower // of the clients, by the watch's id
	lastID  int
}

// open is the stream that a client's watch goes through: its own, or the shared one.
func (m *watching) open(ks base.KeyspaceID, req *followpb.FollowRequest) *stream {
	if s := m.shared[ks]; req.Shared && s != nil && !s.broken {
		m.p.n.w.count("watches on a shared stream")
		return s
	}
	m.last++
	s := &stream{m: m, ks: ks, id: m.last, watches: map[int]*follower{}}
	m.streams[s.id] = s
	if req.Shared {
		m.shared[ks] = s
	}
	m.hub.Open(s.id)
	return s
}

// close ends a stream at the node.
func (s *stream) close() {
	if delete(s.m.streams, s.id); s.m.shared[s.ks] == s {
		delete(s.m.shared, s.ks)
	}
	s.m.tell(func() { s.m.hub.CloseStream(s.id) })
}

// send carries one response to the clients' machine.
func (s *stream) send(o watch.Out) {
	n, w := s.m.p.n, s.m.p.n.w
	s.sent++
	seq := s.sent
	w.net.send(n.i, w.net.clients(), classControl, o.Bytes, func() {
		if s.broken {
			return
		}
		if s.taken+1 != seq {
			s.breaks("a part of it was lost")
			return
		}
		s.taken = seq
		s.take(&o)
	})
}

// breaks ends the stream for the clients: they go elsewhere, and the node hears that nobody is there any more, if it can.
func (s *stream) breaks(why string) {
	if s.broken {
		return
	}
	s.broken = true
	for _, id := range sortedKeys(s.watches) {
		s.watches[id].broken(why)
	}
	s.leave()
}

// leave has the node end the stream. If it does not hear of that, it notices later that nobody is there any more, as its connections'
// keep-alive does.
func (s *stream) leave() {
	s.broken = true
	s.toNode(s.close)
	w := s.m.p.n.w
	w.queue.put(w.now+beatLost, func() {
		if s.m.streams[s.id] == s && s.m.p.n.process == s.m.p {
			s.leave()
		}
	})
}

// toNode carries something to the process that serves the stream, if it still runs.
func (s *stream) toNode(f func()) {
	p, w := s.m.p, s.m.p.n.w
	w.net.send(w.net.clients(), p.n.i, classControl, 64, func() { p.do(f) })
}

// die has the clients hear that the process has ended.
func (m *watching) die() {
	w := m.p.n.w
	for _, id := range sortedKeys(m.streams) {
		s := m.streams[id]
		w.net.send(m.p.n.i, w.net.clients(), classControl, 64, func() { s.breaks("the connection was reset") })
	}
}
