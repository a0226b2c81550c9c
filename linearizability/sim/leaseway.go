package sim

import (
	"iter"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/leaseway"
)

// The steps that a gateway takes with leases over ranges are the product's (node/leaseway). They are written for a goroutine that waits;
// here they are a coroutine, which goes on in the event in which its answer comes: a crash may come between any two.

// leaseSteps carries out the steps for a client's call, or for a lessor.
type leaseSteps struct {
	g     *gateway
	ks    base.KeyspaceID
	c     *call         // nil: a lessor's
	write *kvpb.Command // what c writes
	yield func(leaseStep) bool
	next  func() (leaseStep, bool)
	m     proto.Message // the answer to the last step
	err   error
}

// leaseStep begins a step; told is called with its answer.
type leaseStep func(told func(proto.Message, error))

// leaseway has do take its steps. What follows is called when it has returned, unless the process dies before.
func (g *gateway) leaseway(ks base.KeyspaceID, c *call, write *kvpb.Command, do func(leaseway.Way) (then func())) {
	s := &leaseSteps{g: g, ks: ks, c: c, write: write}
	var then func()
	next, stop := iter.Pull(func(yield func(leaseStep) bool) {
		s.yield = yield
		then = do(leaseway.Way{Keyspace: ks, Carrier: s})
	})
	s.next = next
	g.steps[s] = stop
	s.goOn(func() {
		delete(g.steps, s)
		then()
	})
}

func (s *leaseSteps) goOn(end func()) {
	begin, more := s.next()
	if !more {
		end()
		return
	}
	begin(func(m proto.Message, err error) {
		s.m, s.err = m, err
		s.goOn(end)
	})
}

// writeLeased carries out a client's write, which may give keys to leases.
func (g *gateway) writeLeased(c *call) {
	cmd := &kvpb.Command{}
	if err := proto.Unmarshal(c.data, cmd); err != nil {
		panic(err) // encodeCommand made it
	}
	g.leaseway(c.ks, c, cmd, func(way leaseway.Way) func() {
		m, err := way.Write(c.key, cmd)
		return func() { g.end(c, m, err) }
	})
}

// do begins a call, and waits for its answer. None lasts longer than whoever wants it.
func (s *leaseSteps) do(x *call) (proto.Message, error) {
	now := s.g.now()
	x.ks = s.ks
	if s.c == nil {
		x.deadline = now.Add(base.RequestTimeout)
	} else if x.deadline = s.c.deadline; s.c.ended || now >= x.deadline {
		return nil, errLate
	}
	if !s.yield(func(told func(proto.Message, error)) {
		x.done = told
		s.g.begin(x)
	}) {
		return nil, errDied
	}
	return s.m, s.err
}

// Propose implements leaseway.Carrier.
func (s *leaseSteps) Propose(key []byte, cmd *kvpb.Command) (proto.Message, error) {
	if cmd == s.write { // byte for byte what the client was noted to write
		return s.do(&call{key: key, req: s.c.req, write: true, data: s.c.data})
	}
	s.count(cmd)
	cmd.NowMicros = s.g.micros()
	data, err := proto.Marshal(cmd)
	if err != nil {
		return nil, err
	}
	return s.do(&call{key: key, write: true, data: data})
}

// count notes what leases meet.
func (s *leaseSteps) count(cmd *kvpb.Command) {
	w := s.g.p.n.w
	switch {
	case cmd.GetLeaseGrant() != nil:
		w.count("leases granted")
	case cmd.GetLeaseAdmit() != nil:
		w.count("leases that became guests")
	case len(cmd.GetLeaseRevoke().GetEvicted()) > 0 && s.c != nil:
		w.count("leases ended in several ranges for a client")
	case len(cmd.GetLeaseRevoke().GetEvicted()) > 0:
		w.count("leases ended in several ranges by their home")
	}
}

// Ask implements leaseway.Carrier.
func (s *leaseSteps) Ask(key []byte, q *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error) {
	q.KeyspaceId = uint64(s.ks)
	m, err := s.do(&call{key: key, req: q})
	if err != nil {
		return nil, err
	}
	return m.(*rangepb.LeaseAnswer), nil
}

// Revision implements leaseway.Carrier.
func (s *leaseSteps) Revision(key []byte) (int64, error) {
	m, err := s.do(&call{key: key, req: &pb.RangeRequest{Key: key, CountOnly: true}})
	if err != nil {
		return 0, err
	}
	return m.(*pb.RangeResponse).GetHeader().GetRevision(), nil
}

// Descriptor implements leaseway.Carrier.
func (s *leaseSteps) Descriptor(key []byte) (*metapb.RangeDescriptor, error) {
	m, err := s.do(&call{key: key, look: true})
	if err != nil {
		return nil, err
	}
	return m.(*metapb.RangeDescriptor), nil
}

// stop ends the steps that are under way, with the process.
func (g *gateway) stop() {
	for _, stop := range g.steps {
		stop()
	}
	clear(g.steps)
}
