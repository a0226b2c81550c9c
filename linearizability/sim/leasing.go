package sim

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/desc"
	corelessor "github.com/cairndb/cairn/meta/lessor"
	"github.com/cairndb/cairn/node/lessor"
)

// Leases of clients: the product's lessor, turned by hand, says how long each lasts. What node/dispatch does for it and for clients with
// calls that wait is done here with calls that are told, step by step: a crash may come between any two.

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
		p.n.w.count("leases ended in several ranges by their home")
		p.ready = append(p.ready, func() { p.gateway.endLease(ks, rec, func(_ int64, err error) { done(err) }) })
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
func (g *gateway) question(ks base.KeyspaceID, key []byte, q *rangepb.LeaseQuestion, done func(*rangepb.LeaseAnswer, error)) {
	q.KeyspaceId = uint64(ks)
	g.begin(&call{ks: ks, key: key, req: q, deadline: g.now().Add(base.RequestTimeout), done: func(m proto.Message, err error) {
		a, _ := m.(*rangepb.LeaseAnswer)
		done(a, err)
	}})
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
	switch req := c.req.(type) {
	case *pb.LeaseGrantRequest:
		ttl, err := corelessor.GrantTTL(req.TTL)
		if err != nil {
			end(nil, err)
			return true
		}
		g.propose(c.ks, eval.LeaseHome(req.ID), &kvpb.Command{Body: &kvpb.Command_LeaseGrant{LeaseGrant: &kvpb.LeaseGrant{Id: req.ID, Ttl: ttl}}}, func(m proto.Message, err error) {
			g.p.n.w.count("leases granted")
			end(&pb.LeaseGrantResponse{ID: req.ID, TTL: ttl}, err)
		})
	case *pb.LeaseRevokeRequest:
		g.revokeLease(c.ks, req.ID, func(rev int64, err error) {
			end(&pb.LeaseRevokeResponse{Header: &pb.ResponseHeader{Revision: rev}}, err)
		})
	case *pb.LeaseKeepAliveRequest:
		g.keepAlive(c, req.ID, func(ttl int64, err error) { end(&pb.LeaseKeepAliveResponse{ID: req.ID, TTL: ttl}, err) })
	case *pb.LeaseTimeToLiveRequest:
		g.question(c.ks, eval.LeaseHome(req.ID), &rangepb.LeaseQuestion{TimeToLive: req.ID}, func(a *rangepb.LeaseAnswer, err error) {
			end(&pb.LeaseTimeToLiveResponse{ID: req.ID, TTL: a.GetRemainingSeconds(), GrantedTTL: a.GetLease().GetTtl()}, err)
		})
	case *pb.LeaseLeasesRequest:
		resp := &pb.LeaseLeasesResponse{}
		g.eachRange(c.ks, &rangepb.LeaseQuestion{List: true}, func(a *rangepb.LeaseAnswer) {
			for _, id := range a.Leases {
				resp.Leases = append(resp.Leases, &pb.LeaseStatus{ID: id})
			}
		}, func(err error) { end(resp, err) })
	default:
		return false
	}
	return true
}

// keepAlive is dispatch.KeepAlive and AwaitEnd, for one lease: one that is ending is asked for again, as long as the client waits. There the
// leader holds the question; here it has nothing that could wait.
func (g *gateway) keepAlive(c *call, id int64, done func(ttl int64, err error)) {
	g.question(c.ks, eval.LeaseHome(id), &rangepb.LeaseQuestion{KeepAlive: []int64{id}}, func(a *rangepb.LeaseAnswer, err error) {
		switch {
		case c.ended:
		case err != nil:
			done(0, err)
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

// eachRange asks the leaders of all ranges of a keyspace one after the other, page by page.
func (g *gateway) eachRange(ks base.KeyspaceID, q *rangepb.LeaseQuestion, take func(*rangepb.LeaseAnswer), done func(error)) {
	g.question(ks, q.Start, q, func(a *rangepb.LeaseAnswer, err error) {
		if err != nil {
			done(err)
			return
		}
		take(a)
		next := proto.CloneOf(q)
		if next.From = a.Next; len(a.Next) == 0 {
			if next.Start = a.End; len(a.End) == 0 {
				done(nil)
				return
			}
		}
		g.eachRange(ks, next, take, done)
	})
}

// revokeLease is dispatch.RevokeLease.
func (g *gateway) revokeLease(ks base.KeyspaceID, id int64, done func(int64, error)) {
	g.revoke(ks, &kvpb.LeaseRevoke{Id: id}, func(resp *kvpb.LeaseRevokeResponse, err error) {
		if err != nil || resp.Ended {
			done(resp.GetRevision(), err)
			return
		}
		g.p.n.w.count("leases ended in several ranges for a client")
		g.endLease(ks, resp.Lease, done)
	})
}

func (g *gateway) revoke(ks base.KeyspaceID, req *kvpb.LeaseRevoke, done func(*kvpb.LeaseRevokeResponse, error)) {
	g.propose(ks, eval.LeaseHome(req.Id), &kvpb.Command{Body: &kvpb.Command_LeaseRevoke{LeaseRevoke: req}}, func(m proto.Message, err error) {
		resp, _ := m.(*kvpb.LeaseRevokeResponse)
		done(resp, err)
	})
}

// endLease is dispatch.EndLease.
func (g *gateway) endLease(ks base.KeyspaceID, l *kvpb.LeaseRecord, done func(int64, error)) {
	var revision int64
	granted := l.GrantedRevision
	var round func(l *kvpb.LeaseRecord, i int)
	round = func(l *kvpb.LeaseRecord, i int) {
		if i < len(l.Spans) {
			g.evict(ks, l, l.Spans[i], l.Spans[i].Start, func(rev int64, err error) {
				if err != nil {
					done(0, err)
					return
				}
				revision = max(revision, rev)
				round(l, i+1)
			})
			return
		}
		g.revoke(ks, &kvpb.LeaseRevoke{Id: l.Id, GrantedRevision: granted, Evicted: l.Spans}, func(resp *kvpb.LeaseRevokeResponse, err error) {
			switch {
			case noLease(err):
				done(revision, nil)
			case err != nil:
				done(0, err)
			default:
				if revision = max(revision, resp.Revision); resp.Ended {
					done(revision, nil)
					return
				}
				round(resp.Lease, 0)
			}
		})
	}
	round(l, 0)
}

// evict takes a lease out of every range of a span, from a key of it on.
func (g *gateway) evict(ks base.KeyspaceID, l *kvpb.LeaseRecord, span *kvpb.LeaseSpan, key []byte, done func(int64, error)) {
	cmd := &kvpb.Command{Body: &kvpb.Command_LeaseEvict{LeaseEvict: &kvpb.LeaseEvict{Key: key, Id: l.Id, GrantedRevision: l.GrantedRevision}}}
	g.propose(ks, key, cmd, func(m proto.Message, err error) {
		if err != nil {
			done(0, err)
			return
		}
		resp := m.(*kvpb.LeaseEvictResponse)
		end := resp.Span.GetEnd()
		if len(end) == 0 || len(span.End) > 0 && bytes.Compare(end, span.End) >= 0 {
			done(resp.Revision, nil)
			return
		}
		g.evict(ks, l, span, end, func(rev int64, err error) { done(max(rev, resp.Revision), err) })
	})
}

func noLease(err error) bool {
	return err != nil && rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaseNotFound)
}

// leasesIn are the leases that a client's request gives keys to.
func leasesIn(req proto.Message) (ids []int64) {
	add := func(p *pb.PutRequest) {
		if p.GetLease() != 0 && !slices.Contains(ids, p.Lease) {
			ids = append(ids, p.Lease)
		}
	}
	switch req := req.(type) {
	case *pb.PutRequest:
		add(req)
	case *pb.TxnRequest:
		for _, o := range slices.Concat(req.Success, req.Failure) {
			add(o.GetRequestPut())
		}
	}
	return ids
}

// guests is dispatch.proposeFor: a write is tried again once its leases are guests in its range. It takes the place of a call's done.
func (g *gateway) guests(c *call, ids []int64) {
	done := c.done
	tries := 0
	var told func(m proto.Message, err error)
	told = func(m proto.Message, err error) {
		if !noLease(err) || tries == base.LeaseAdmitTries {
			done(m, err)
			return
		}
		tries++
		g.admitAll(c, ids, func(err error) {
			if err != nil {
				done(nil, err)
				return
			}
			g.begin(&call{ks: c.ks, key: c.key, req: c.req, write: true, data: c.data, deadline: c.deadline, done: told})
		})
	}
	c.done = told
}

func (g *gateway) admitAll(c *call, ids []int64, done func(error)) {
	if len(ids) == 0 {
		done(nil)
		return
	}
	g.admit(c.ks, c.key, ids[0], func(err error) {
		if err != nil {
			done(err)
			return
		}
		g.admitAll(c, ids[1:], done)
	})
}

var errNoTicket = errors.New("the range's revision is not known")

// admit is dispatch.admit: a ticket, the home's word, the admission.
func (g *gateway) admit(ks base.KeyspaceID, key []byte, id int64, done func(error)) {
	g.begin(&call{ks: ks, key: key, req: &pb.RangeRequest{Key: key, CountOnly: true}, deadline: g.now().Add(base.RequestTimeout), done: func(m proto.Message, err error) {
		r := g.described(ks, key)
		if err == nil && r == nil {
			err = errNoTicket
		}
		if err != nil || desc.Contains(r, ks, eval.LeaseHome(id)) {
			done(err)
			return
		}
		ticket := m.(*pb.RangeResponse).GetHeader().GetRevision()
		span := &kvpb.LeaseSpan{Start: r.Start, End: r.End}
		g.propose(ks, eval.LeaseHome(id), &kvpb.Command{Body: &kvpb.Command_LeaseAttach{LeaseAttach: &kvpb.LeaseAttach{Id: id, Span: span}}}, func(m proto.Message, err error) {
			if err != nil {
				done(err)
				return
			}
			g.p.n.w.count("leases that became guests")
			g.propose(ks, key, &kvpb.Command{Body: &kvpb.Command_LeaseAdmit{LeaseAdmit: &kvpb.LeaseAdmit{
				Key: key, Id: id, GrantedRevision: m.(*kvpb.LeaseAttachResponse).Lease.GrantedRevision, Ticket: ticket, Span: span,
			}}}, func(_ proto.Message, err error) { done(err) })
		})
	}})
}

// described is the range of a key as it is, and not as it was heard of last: dispatch asks its leader. Nil: it is not known which.
func (g *gateway) described(ks base.KeyspaceID, key []byte) *metapb.RangeDescriptor {
	for _, r := range g.p.n.w.ranges {
		if d := g.p.n.w.newest(r); r.ks == ks && desc.Contains(d, ks, key) {
			return d
		}
	}
	return nil
}

// EndLease implements lessor.Dispatcher. It is not called: the lessor is turned by hand.
func (l *leasing) EndLease(context.Context, base.KeyspaceID, *kvpb.LeaseRecord) (int64, error) {
	return 0, errors.ErrUnsupported
}

// NowMicros implements lessor.Dispatcher.
func (l *leasing) NowMicros() int64 { return l.p.gateway.micros() }
