package sim

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	corelessor "github.com/cairndb/cairn/meta/lessor"
	"github.com/cairndb/cairn/node/leaseway"
	"github.com/cairndb/cairn/node/lessor"
)

// Leases of clients: the product's lessor, turned by hand, says how long each lasts, and node/leaseway what is done with those that hold keys
// in several ranges.

// leasing is a process's lessor, and when it is looked at.
type leasing struct {
	p       *process
	lessor  *lessor.Lessor
	looks   bool   // a look is on its way
	expired uint64 // leases, when it was looked at last
	timer   uint64
}

func newLeasing(p *process) *leasing {
	l := &leasing{p: p}
	l.lessor = lessor.New(lessor.Config{Store: p.store, Dispatch: l, ColdAfter: p.n.w.plan.ColdAfter, End: func(ks base.KeyspaceID, rec *kvpb.LeaseRecord, done func(error)) {
		p.ready = append(p.ready, func() {
			p.gateway.leaseway(ks, nil, nil, func(way leaseway.Way) func() {
				_, err := way.End(rec)
				return func() { done(err) }
			})
		})
	}})
	return l
}

// settle has it looked at when it was told something.
func (l *leasing) settle() {
	if !l.looks && l.lessor.Due() {
		l.looks = true
		l.p.later(passDelay, l.look)
	}
}

func (l *leasing) look() {
	l.looks = false
	next := l.lessor.Look()
	expired := l.lessor.Counts().Expired
	l.p.n.w.result.Seen["leases that ended by themselves"] += int(expired - l.expired)
	l.expired = expired
	l.timer++
	if next != base.Never {
		l.lookAt(l.timer, next)
	}
}

func (l *leasing) lookAt(timer uint64, at base.Instant) {
	l.p.later(max(at.Sub(l.p.store.Now()), passDelay), func() {
		switch {
		case l.timer != timer || l.looks:
		case l.p.store.Now() < at:
			l.lookAt(timer, at)
		default:
			l.look()
		}
	})
}

// propose sends a command to the range of a key.
func (g *gateway) propose(ks base.KeyspaceID, key []byte, cmd *kvpb.Command, done func(proto.Message, error)) {
	if cmd.NowMicros == 0 {
		cmd.NowMicros = g.micros()
	}
	data, err := proto.Marshal(cmd)
	if err != nil {
		panic(err)
	}
	g.begin(&call{ks: ks, key: key, write: true, data: data, deadline: g.now().Add(base.RequestTimeout), done: done})
}

// question asks the leader of the range of a key.
func (g *gateway) question(ks base.KeyspaceID, key []byte, q *rangepb.LeaseQuestion, done func(proto.Message, error)) {
	q.KeyspaceId = uint64(ks)
	g.begin(&call{ks: ks, key: key, req: q, deadline: g.now().Add(base.RequestTimeout), done: done})
}

// answerQuestion serves a question to a range that this node leads.
func (g *gateway) answerQuestion(id base.RangeID, q *rangepb.LeaseQuestion) (proto.Message, error) {
	if st, ok := g.p.store.State(id); !ok || st.LeaderNode != g.p.n.id {
		return nil, &base.NotLeader{Range: id, HintNode: st.LeaderNode, HintReplica: st.Leader}
	}
	a, err := g.p.leasing.lessor.Answer(id, q)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// leases carries out a request of the Lease service; false: it is none. c is the client's call, which ends with the answer.
func (g *gateway) leases(c *call) bool {
	end := func(m proto.Message, err error) {
		if err != nil {
			m = nil
		}
		g.end(c, m, err)
	}
	take := func(do func(leaseway.Way) (proto.Message, error)) {
		g.leaseway(c.ks, c, nil, func(way leaseway.Way) func() {
			m, err := do(way)
			return func() { end(m, err) }
		})
	}
	switch req := c.req.(type) {
	case *pb.LeaseGrantRequest:
		ttl, err := corelessor.GrantTTL(req.TTL)
		if err != nil {
			end(nil, err)
			return true
		}
		take(func(way leaseway.Way) (proto.Message, error) {
			_, err := way.Grant(req.ID, ttl)
			return &pb.LeaseGrantResponse{ID: req.ID, TTL: ttl}, err
		})
	case *pb.LeaseRevokeRequest:
		take(func(way leaseway.Way) (proto.Message, error) {
			rev, err := way.Revoke(req.ID)
			return &pb.LeaseRevokeResponse{Header: &pb.ResponseHeader{Revision: rev}}, err
		})
	case *pb.LeaseKeepAliveRequest:
		g.keepAlive(c, req.ID, func(ttl int64, err error) { end(&pb.LeaseKeepAliveResponse{ID: req.ID, TTL: ttl}, err) })
	case *pb.LeaseTimeToLiveRequest:
		take(func(way leaseway.Way) (proto.Message, error) {
			a, err := way.TimeToLive(req.ID)
			return &pb.LeaseTimeToLiveResponse{ID: req.ID, TTL: a.GetRemainingSeconds(), GrantedTTL: a.GetLease().GetTtl()}, err
		})
	case *pb.LeaseLeasesRequest:
		take(func(way leaseway.Way) (proto.Message, error) {
			resp := &pb.LeaseLeasesResponse{}
			ids, _, err := way.List()
			for _, id := range ids {
				resp.Leases = append(resp.Leases, &pb.LeaseStatus{ID: id})
			}
			return resp, err
		})
	default:
		return false
	}
	return true
}

// keepAlive is dispatch.KeepAlive and AwaitEnd, for one lease: one that is ending is asked for again, as long as the client waits. There the
// leader holds the question; here it has nothing that could wait.
func (g *gateway) keepAlive(c *call, id int64, done func(ttl int64, err error)) {
	g.question(c.ks, eval.LeaseHome(id), &rangepb.LeaseQuestion{KeepAlive: []int64{id}}, func(m proto.Message, err error) {
		if c.ended || err != nil {
			done(0, err)
			return
		}
		switch a := m.(*rangepb.LeaseAnswer); {
		case len(a.Ending) > 0:
			g.p.n.w.count("keep-alives of leases that were ending")
			g.p.later(10*g.p.n.w.plan.Network.Delay, func() {
				if !c.ended {
					g.keepAlive(c, id, done)
				}
			})
		default:
			done(a.KeptTtl[0], nil)
		}
	})
}

// EndLease implements lessor.Dispatcher. It is not called: the lessor is turned by hand.
func (l *leasing) EndLease(context.Context, base.KeyspaceID, *kvpb.LeaseRecord) (int64, error) {
	return 0, errors.ErrUnsupported
}

// NowMicros implements lessor.Dispatcher.
func (l *leasing) NowMicros() int64 { return l.p.gateway.micros() }
