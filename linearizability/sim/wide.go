package sim

import (
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	metaspread "github.com/cairndb/cairn/meta/spread"
	"github.com/cairndb/cairn/raftgroup"
)

// A gateway serves a read over several ranges as node/dispatch does: meta/spread decides, and what it asks for are calls of their
// own.

// wide is what a call has to do with a read over several ranges.
type wide struct {
	read    *metaspread.Read   // it is one
	part    bool               // it is a part of one
	latch   *raftgroup.LatchID // it asks for a latch
	through *raftgroup.LatchID // it raises a range through its latch
	at      base.NodeID        // where it was last sent
}

// several takes note that a call touches keys of several ranges. False if there is nothing to be done about it.
func (g *gateway) several(c *call, moved *base.RangeMoved, several *base.SeveralRanges) bool {
	req, ok := c.req.(*pb.RangeRequest)
	if !ok || len(req.RangeEnd) == 0 || c.write || c.wide.latch != nil {
		return false
	}
	for _, d := range moved.Descriptors {
		g.cache.Put(d)
	}
	if c.wide.part {
		g.end(c, nil, several)
		return true
	}
	g.nextID++
	c.wide.read = metaspread.New(c.ks, req, raftgroup.LatchID{Began: g.micros(), Node: g.p.n.id, Seq: uint64(g.p.n.incarnation)<<40 + g.nextID})
	g.p.n.w.count("reads over several ranges")
	g.goOn(c)
	return true
}

// goOn has a read over several ranges do what it is to do next.
func (g *gateway) goOn(c *call) {
	if c.ended {
		return
	}
	r := c.wide.read
	for _, a := range r.Next(func(key []byte) *metapb.RangeDescriptor { return g.cache.Find(c.ks, key) }) {
		g.carryOut(c, a)
	}
	if resp, err, done := r.Result(); done {
		g.tell(c, resp, err)
	}
}

func (g *gateway) tell(c *call, resp *pb.RangeResponse, err error) {
	if err != nil {
		g.p.n.w.count("reads over several ranges that failed")
		g.end(c, nil, err)
		return
	}
	g.end(c, resp, nil)
}

func (g *gateway) carryOut(c *call, a metaspread.Ask) {
	if a.Kind == metaspread.Free {
		g.free(&a)
		return
	}
	answer := func(x metaspread.Answer) {
		if x.Err != nil && a.Kind != metaspread.Part {
			g.p.n.w.count("latches and raises that failed")
		}
		c.wide.read.Answer(a, x)
		g.goOn(c)
	}
	s := &call{ks: c.ks, key: a.Key, deadline: c.deadline}
	s.done = func(m proto.Message, err error) {
		x := metaspread.Answer{Err: err}
		switch m := m.(type) {
		case *rangepb.LatchGrant:
			x.Grant = &metaspread.Grant{Node: s.wide.at, Descriptor: m.Descriptor_, Revision: m.Revision}
		case *pb.RangeResponse:
			x.Response = m
		}
		answer(x)
	}
	switch a.Kind {
	case metaspread.Latch:
		s.wide.latch = &a.ID
		g.p.later(g.p.n.late(), func() {
			if !c.ended {
				g.begin(s)
			}
		})
	case metaspread.Raise:
		s.wide.through = &a.ID
		g.p.later(g.p.n.late(), func() { g.raise(s, &a) })
	case metaspread.Lift:
		s.write, s.data = true, g.command(&a)
		g.begin(s)
	case metaspread.Part:
		s.req, s.wide.part = a.Request, true
		g.begin(s)
	case metaspread.Pause:
		g.p.later(a.For, func() { answer(metaspread.Answer{}) })
	}
}

// late is how long a goroutine that asks one of several ranges is away before it does: most often hardly at all. The others hold
// their ranges meanwhile, and writers come by. In the closing phase nothing is wrong.
func (n *node) late() time.Duration {
	if n.rand.Int63n(6) == 0 && !n.w.clientsEnd {
		return exponential(n.rand, 250*time.Millisecond)
	}
	return exponential(n.rand, 20*time.Microsecond)
}

func (g *gateway) command(a *metaspread.Ask) []byte {
	data, err := proto.Marshal(a.Command(g.micros()))
	if err != nil {
		panic(err)
	}
	return data
}

// raise goes to the node that granted the latch, once.
func (g *gateway) raise(s *call, a *metaspread.Ask) {
	s.write, s.data = true, g.command(a)
	g.limit(s)
	id := base.RangeID(a.Grant.Descriptor.RangeId)
	told := func(m proto.Message, err error) { g.end(s, m, err) }
	if a.Grant.Node == g.p.n.id {
		g.local(id, s, s.deadline, told)
		return
	}
	g.ask(s, a.Grant.Node, id, told)
}

// free lets a latch go. That may be lost with the connection.
func (g *gateway) free(a *metaspread.Ask) {
	p, w := g.p, g.p.n.w
	id := base.RangeID(a.Grant.Descriptor.RangeId)
	target := w.node(a.Grant.Node)
	if target == p.n {
		p.store.Unlatch(id, a.ID)
		return
	}
	w.net.send(p.n.i, target.i, classControl, 64, func() {
		if q := target.process; q != nil {
			q.do(func() { q.store.Unlatch(id, a.ID) })
		}
	})
}

// narrow ends what a read over several ranges holds, when it has ended itself.
func (g *gateway) narrow(c *call) {
	if c.wide.read == nil {
		return
	}
	for _, a := range c.wide.read.Abandon() {
		g.free(&a)
	}
}
