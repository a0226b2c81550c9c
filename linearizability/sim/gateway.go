package sim

import (
	"errors"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/linearizability"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
	metaspread "github.com/cairndb/cairn/meta/spread"
	"github.com/cairndb/cairn/node/store"
	"github.com/cairndb/cairn/raftgroup"
)

// gateway stands for node/serve and node/dispatch: it takes the requests of clients and of other nodes to where they can
// be served. What it decides, it decides with the product's own meta/route; what the dispatcher does with goroutines
// that wait, it does with calls that are told. Process runs exercise the dispatcher itself.
type gateway struct {
	p      *process
	cache  *route.Cache
	calls  []*call // that wait for a leader or a descriptor, in order
	asked  map[uint64]*call
	nextID uint64
	open   []*call // from clients, not answered yet, in order
	turn   uint64  // of whoever is asked for what any replica has
	steps  map[*leaseSteps]func()
}

// call is one request on its way.
type call struct {
	ks       base.KeyspaceID
	key      []byte // by which its range is found
	req      proto.Message
	write    bool
	data     []byte // of a write: the command
	deadline base.Instant
	retry    route.Retry
	next     route.Try
	tries    int
	doubted  bool             // whether the range is where it is looked for
	asked    uint64           // the remote request that it waits for; 0: none
	node     base.NodeID      // and of whom
	life     base.Incarnation // of that node, when it was asked
	waiting  bool
	ended    bool
	look     bool // for the descriptor, as the range's own leader has it
	client   bool // of a client: dies with the process
	wide     wide // what it has to do with several ranges
	done     func(proto.Message, error)
}

// errLate is what a read is told whose time is over.
var errLate = errors.New("the request's time is over")

func newGateway(p *process) *gateway {
	g := &gateway{p: p, cache: route.NewCache(base.DescriptorCache), asked: make(map[uint64]*call), steps: make(map[*leaseSteps]func())}
	for _, r := range p.n.w.ranges {
		if r.id < firstCutOff {
			g.cache.Put(r.first) // what it hears of the others, it hears from those
		}
	}
	return g
}

// serve takes a client's request. done is called once, unless the process dies before: then died is.
func (g *gateway) serve(ks base.KeyspaceID, op *linearizability.Op, timeout time.Duration, done func(proto.Message, error)) {
	if w := g.p.n.w; w.sys != nil {
		if !g.p.member.serves() {
			w.count("requests to a fenced node")
			done(nil, errFenced)
			return
		}
		done = w.sys.served(g.p.n, done)
	}
	c := &call{ks: ks, key: keyOf(op.Request), req: op.Request, done: done, client: true, deadline: g.now().Add(timeout)}
	c.data, c.write = encodeCommand(op.Request, g.micros())
	if c.write {
		g.p.n.w.commands[op] = xxhash.Sum64(c.data)
	}
	g.open = append(g.open, c)
	switch req := op.Request.(type) {
	case *pb.LeaseGrantRequest, *pb.LeaseRevokeRequest, *pb.LeaseKeepAliveRequest, *pb.LeaseTimeToLiveRequest, *pb.LeaseLeasesRequest:
		c.write = !reads(req)
		g.limit(c)
		g.leases(c)
		return
	case *pb.CompactionRequest:
		if ks.Splits() {
			g.limit(c)
			g.compact(c, nil, nil, nil)
			return
		}
	}
	if c.write && ks.Splits() {
		g.writeLeased(c)
		return
	}
	g.begin(c)
}

// compact is dispatch.compact: range by range, from a key on. last is the last answer, refusal what one was told that was compacted already.
func (g *gateway) compact(c *call, key []byte, last proto.Message, refusal error) {
	d := g.cache.Find(c.ks, key)
	if d == nil {
		g.lookUp(&call{ks: c.ks, key: key})
		g.p.later(10*g.p.n.w.plan.Network.Delay, func() {
			if !c.ended {
				g.compact(c, key, last, refusal)
			}
		})
		return
	}
	propose := func(done func(proto.Message, error)) {
		g.begin(&call{ks: c.ks, key: d.Start, write: true, data: c.data, deadline: c.deadline, done: done})
	}
	var told func(m proto.Message, err error)
	raised := false
	told = func(m proto.Message, err error) {
		switch {
		case metaspread.Beyond(err) && !raised:
			raised = true
			a := metaspread.Ask{Kind: metaspread.Lift, Key: d.Start, Revision: c.req.(*pb.CompactionRequest).Revision}
			g.propose(c.ks, d.Start, a.Command(0), func(_ proto.Message, err error) {
				if err != nil {
					g.end(c, nil, err)
					return
				}
				propose(told)
			})
			return
		case err == nil:
			last = m
		case rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(rpctypes.ErrGRPCCompacted):
			refusal = err
		default:
			g.end(c, nil, err)
			return
		}
		switch {
		case len(d.End) > 0:
			g.compact(c, d.End, last, refusal)
		case last == nil:
			g.end(c, nil, refusal)
		default:
			g.end(c, last, nil)
		}
	}
	propose(told)
}

func (g *gateway) begin(c *call) {
	g.limit(c)
	g.try(c)
}

// limit ends a call when its time is over.
func (g *gateway) limit(c *call) {
	g.p.later(c.deadline.Sub(g.now()), func() {
		if c.ended {
			return
		}
		delete(g.asked, c.asked)
		if c.write && (c.asked != 0 || !c.waiting) {
			g.end(c, nil, &base.Ambiguous{Cause: errLate})
		} else {
			g.end(c, nil, errLate)
		}
	})
}

func (g *gateway) now() base.Instant { return g.p.store.Now() }

// micros is the wall clock of this node.
func (g *gateway) micros() int64 { return int64(g.p.n.wall.read(g.p.n.w.now)) / 1000 }

// encodeCommand makes of a request the command that a range's log carries; false for one that only reads.
func encodeCommand(req proto.Message, micros int64) ([]byte, bool) {
	raw, err := proto.Marshal(req)
	if err != nil {
		panic(err) // a workload's own message
	}
	cmd := &kvpb.Command{NowMicros: micros}
	switch req := req.(type) {
	case *pb.PutRequest:
		cmd.Body = &kvpb.Command_Put{Put: raw}
	case *pb.DeleteRangeRequest:
		cmd.Body = &kvpb.Command_DeleteRange{DeleteRange: raw}
	case *pb.CompactionRequest:
		cmd.Body = &kvpb.Command_Compaction{Compaction: raw}
	case *pb.TxnRequest:
		if readsOnly(req) {
			return nil, false
		}
		cmd.Body = &kvpb.Command_Txn{Txn: raw}
	default:
		return nil, false
	}
	if raw, err = proto.Marshal(cmd); err != nil {
		panic(err)
	}
	return raw, true
}

// keyOf is a key of the range that a request is for.
func keyOf(req proto.Message) []byte {
	switch req := req.(type) {
	case *pb.TxnRequest:
		return eval.FirstKey(req)
	case interface{ GetKey() []byte }:
		return req.GetKey()
	}
	return nil
}

// readsOnly says whether a transaction writes in neither branch.
func readsOnly(t *pb.TxnRequest) bool {
	for _, branch := range [][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range branch {
			if inner := op.GetRequestTxn(); op.GetRequestRange() == nil && (inner == nil || !readsOnly(inner)) {
				return false
			}
		}
	}
	return true
}

// try sends a call to the node that most likely can serve it.
func (g *gateway) try(c *call) {
	if c.ended {
		return
	}
	c.waiting = false
	d := g.cache.Find(c.ks, c.key)
	if d == nil {
		g.failed(c, nil, &route.NoRange{Keyspace: c.ks})
		return
	}
	id := base.RangeID(d.RangeId)
	here := g.p.n.id
	to := c.retry.Target(d, g.own(id))
	_, leads := c.req.(*rangepb.LeaseQuestion)
	if !c.write && !leads && c.wide.latch == nil && g.p.store.View(id) != nil {
		to = here
	}
	if _, pulls := c.req.(*rangepb.ChangesRequest); pulls && to != here {
		to = g.puller(c, route.Order(d, route.Own{Node: here}))
	}
	c.tries++
	c.wide.at = to
	failed := func(m proto.Message, err error) {
		if err != nil {
			g.failed(c, d, err)
			return
		}
		if c.doubted {
			g.cache.Trust(d)
		}
		g.end(c, m, nil)
	}
	if to == here {
		g.local(id, c, c.deadline, failed)
		return
	}
	g.ask(c, to, id, failed)
}

// own is dispatch.own.
func (g *gateway) own(id base.RangeID) route.Own {
	own := route.Own{Node: g.p.n.id, Has: g.p.store.View(id) != nil}
	if own.Has {
		st, _ := g.p.store.State(id)
		own.Leader = st.LeaderNode
	}
	return own
}

// local serves a call by this node's own replica, if it has one: whoever asks is refused alike if not. done is called when the
// store has returned.
func (g *gateway) local(id base.RangeID, c *call, deadline base.Instant, done func(proto.Message, error)) {
	p := g.p
	if p.store.View(id) == nil {
		var known []*metapb.RangeDescriptor
		if d := g.cache.Known(id); d != nil {
			known = append(known, d)
		}
		done(nil, &base.RangeMoved{Range: id, Descriptors: known, Absent: true})
		return
	}
	if c.wide.latch != nil {
		p.store.Latch(id, *c.wide.latch, c.ks, c.key, deadline, func(m proto.Message, err error) {
			p.ready = append(p.ready, func() { done(m, err) })
		})
		return
	}
	if c.write {
		p.store.Propose(raftgroup.Proposal{Range: id, Data: c.data, Latch: c.wide.through}, deadline, func(m proto.Message, err error) {
			p.ready = append(p.ready, func() { done(m, err) })
		})
		return
	}
	if c.look {
		g.indexed(id, c, deadline, done)
		return
	}
	switch req := c.req.(type) {
	case *rangepb.LeaseQuestion:
		done(g.answerQuestion(id, req))
		return
	case *rangepb.ChangesRequest:
		g.changes(id, req, done)
		return
	}
	if r, ok := c.req.(*pb.RangeRequest); ok && r.Serializable {
		done(g.read(id, c.req))
		return
	}
	if lease, ok := p.store.Lease(id); ok && lease.Caught() {
		g.leased(id, c, deadline, lease, done)
		return
	}
	g.indexed(id, c, deadline, done)
}

// leased reads under a lease, as store.ReadLeased does: whatever may happen to a goroutine happens between its two looks
// at the lease.
func (g *gateway) leased(id base.RangeID, c *call, deadline base.Instant, lease store.Lease, done func(proto.Message, error)) {
	p := g.p
	check := p.n.w.rules.fresh(p, id)
	p.later(p.n.held(), func() {
		check()
		m, err := g.read(id, c.req)
		p.later(p.n.held(), func() {
			if !lease.Valid() {
				p.n.w.count("leases that ended under a read")
				g.indexed(id, c, deadline, done)
				return
			}
			p.n.w.count("reads under a lease")
			done(m, err)
		})
	})
}

// held is how long a goroutine is away between two steps of a read: most often hardly at all; but it may be descheduled, or
// wait for a page, for longer than any lease lasts.
func (n *node) held() time.Duration {
	if away := chance(n.rand, 20_000); away && !n.w.clientsEnd { // when all is to be well again, nobody is away for longer than clients wait
		return exponential(n.rand, 400*time.Millisecond)
	}
	return exponential(n.rand, 20*time.Microsecond)
}

// indexed waits for a read index.
func (g *gateway) indexed(id base.RangeID, c *call, deadline base.Instant, done func(proto.Message, error)) {
	p := g.p
	check := p.n.w.rules.fresh(p, id)
	p.store.ReadIndex(id, deadline, func(_ proto.Message, err error) {
		p.ready = append(p.ready, func() {
			if err != nil {
				done(nil, err)
				return
			}
			check()
			if c.look {
				done(g.descriptor(id, c))
				return
			}
			done(g.read(id, c.req))
		})
	})
}

// descriptor is a range's own, if it holds the key of a call.
func (g *gateway) descriptor(id base.RangeID, c *call) (proto.Message, error) {
	v := g.p.store.View(id)
	switch {
	case v == nil:
		return nil, &base.RangeMoved{Range: id}
	case !desc.Contains(v.Descriptor, c.ks, c.key):
		return nil, &base.RangeMoved{Range: id, Descriptors: []*metapb.RangeDescriptor{v.Descriptor}}
	}
	return v.Descriptor, nil
}

// read evaluates on the local replica as it is now.
func (g *gateway) read(id base.RangeID, req proto.Message) (proto.Message, error) {
	if t, ok := req.(*pb.TxnRequest); ok {
		out := &pb.TxnResponse{}
		return out, g.p.store.Read(id, t, out)
	}
	out := &pb.RangeResponse{}
	return out, g.p.store.Read(id, req, out)
}

// ask sends a call to another node. Nobody retries what may have happened: an answer that does not come leaves a write's
// outcome open, and a read is asked again elsewhere.
func (g *gateway) ask(c *call, to base.NodeID, id base.RangeID, done func(proto.Message, error)) {
	p := g.p
	n, w := p.n, p.n.w
	target := w.node(to)
	if target == nil || p.peers.down[target.i] {
		done(nil, &base.NotLeader{Range: id}) // it did not leave this node
		return
	}
	g.nextID++
	rid := g.nextID
	c.asked, c.node, c.life = rid, to, target.incarnation
	g.asked[rid] = c
	w.tracef("%s asks %s about %s (try %d)", n.id, to, id, c.tries)
	left := c.deadline.Sub(g.now())
	w.net.send(n.i, target.i, classControl, len(c.data), func() {
		q := target.process
		if q == nil {
			return // the asker is told that the peer is gone
		}
		q.do(func() {
			q.heard(n.i)
			q.gateway.remote(id, c, left, func(m proto.Message, err error) {
				w.net.send(target.i, n.i, classControl, 64, func() {
					p.do(func() {
						if g.asked[rid] != c {
							return
						}
						delete(g.asked, rid)
						c.asked = 0
						done(m, err)
					})
				})
			})
		})
	})
}

// remote serves a call of another node's gateway.
func (g *gateway) remote(id base.RangeID, c *call, timeout time.Duration, done func(proto.Message, error)) {
	answer := func(m proto.Message, err error) {
		var moved *base.RangeMoved
		if errors.As(err, &moved) {
			err = &base.RangeMoved{Range: moved.Range, Descriptors: g.cache.Beside(moved.Descriptors), Absent: moved.Absent}
		}
		if !g.p.doomed {
			done(m, err)
		}
	}
	g.local(id, c, g.now().Add(min(timeout, base.RequestTimeout)), answer)
}

// failed does what meta/route says after an error.
func (g *gateway) failed(c *call, d *metapb.RangeDescriptor, err error) {
	if c.ended {
		return
	}
	var moved *base.RangeMoved
	var busy *base.Throttled
	elsewhere, frozen := errors.As(err, &moved), errors.As(err, &busy)
	if c.write && (elsewhere || frozen) {
		g.p.n.w.rules.refused[xxhash.Sum64(c.data)] = true
	}
	if elsewhere && d != nil {
		if several := route.Several(moved, d, c.ks, c.key); several != nil && g.several(c, moved, several) {
			return
		}
		g.cache.Moved(d, moved.Descriptors)
	}
	if g.cache.Find(c.ks, c.key) == nil {
		g.lookUp(c)
	}
	g.p.n.w.tracef("%s is refused: %v", g.p.n.id, err)
	if throttled := (*base.Throttled)(nil); c.wide.latch != nil && errors.As(err, &throttled) {
		g.end(c, nil, err) // others are not held meanwhile
		return
	}
	if c.retry, c.next = c.retry.After(err); c.next.GiveUp {
		g.end(c, nil, err)
		return
	}
	if c.next.Doubt && d != nil {
		c.doubted = true
		if g.cache.Doubt(d, g.now()) {
			g.lookUp(c)
			g.p.n.w.count("descriptors looked up again for want of a leader")
		}
	}
	if c.next.Wait == 0 {
		g.try(c)
		return
	}
	c.waiting = true
	g.calls = append(g.calls, c)
	tries := c.tries
	g.p.later(c.next.Wait, func() {
		if c.waiting && c.tries == tries {
			g.try(c)
		}
	})
}

// lookUp stands for the lookup through root and meta: what the range's newest replica holds, after two round trips.
func (g *gateway) lookUp(c *call) {
	w := g.p.n.w
	found := w.descriptor(c.ks, c.key)
	w.count("lookups")
	g.p.later(4*w.plan.Network.Delay, func() { g.cache.Put(found) })
}

// changed has the calls that wait for a leader go on.
func (g *gateway) changed(ch *raftgroup.StateChange) {
	if ch.Descriptor != nil {
		g.cache.Put(ch.Descriptor)
	}
	waiting := g.calls
	g.calls = nil
	for _, c := range waiting {
		if c.waiting {
			g.try(c)
		}
	}
}

// peerDown ends what waits for a node that cannot be reached: whether it carried it out is not known.
func (g *gateway) peerDown(to base.NodeID, life base.Incarnation) {
	for _, rid := range sortedKeys(g.asked) {
		c, ok := g.asked[rid]
		if !ok || c.node != to || life != 0 && c.life != life {
			continue
		}
		delete(g.asked, rid)
		c.asked = 0
		if c.write && !mutant.Is(mutant.BlindRetry) {
			g.end(c, nil, &base.Ambiguous{Cause: errors.New("the connection was lost")})
		} else {
			g.failed(c, g.cache.Find(c.ks, c.key), &base.NotLeader{})
		}
	}
}

func (g *gateway) end(c *call, m proto.Message, err error) {
	if c.ended || g.p.doomed {
		return
	}
	c.ended, c.waiting = true, false
	g.narrow(c)
	if err != nil && mutant.Is(mutant.AmbiguousAsFailed) {
		err = errLate
	}
	if c.client {
		for i, o := range g.open {
			if o == c {
				g.open = append(g.open[:i], g.open[i+1:]...)
				break
			}
		}
	}
	c.done(m, err)
}

// errDied is what a client is told whose connection ends with the process.
var errDied = &base.Ambiguous{Cause: errors.New("the connection was reset")}

// die ends what clients wait for: their connections are reset.
func (g *gateway) die() {
	g.p.n.w.result.Seen["steps with leases that a crash broke off"] += len(g.steps)
	g.stop()
	open := g.open
	g.open = nil
	for _, c := range open {
		if !c.ended {
			c.ended = true
			c.done(nil, errDied)
		}
	}
}
