package sim

import (
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/followpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/linearizability"
)

// client is one of a range's clients: it is on a machine of its own, bound to one node, and goes to another after an
// error. It carries out what the workload wants, one request at a time.
type client struct {
	w     *world
	r     *rangeInfo
	i     int // as the history names it
	rand  *base.Rand
	to    int // the node that it talks to
	ended bool
}

// patience is how long a client waits for an answer; the request's own time at the node is the same.
const patience = 4 * time.Second

// next has the client make its next request after a pause.
func (c *client) next() {
	w := c.w
	w.queue.put(c.pause(), func() {
		if w.clientsEnd || w.opsLeft <= 0 {
			c.ended = true
			return
		}
		req := c.r.workload.Next(c.i, c.rand)
		if req == nil {
			c.next()
			return
		}
		w.opsLeft--
		c.do(req, false, func(op *linearizability.Op) {
			c.r.workload.Ended(op)
			if resp, ok := op.Response.(*followpb.FollowResponse); op.Outcome != linearizability.OK || ok && (resp.Broken || c.rand.Int63n(4) == 0) {
				c.to = w.member(int(c.rand.Int63n(int64(len(w.nodes)))))
			}
			c.next()
		})
	})
}

// pause is when a client makes its next request. Those that read ranges together do much at once, then nothing for a while: all of
// them at the same times, for what one reads is of interest where others write.
func (c *client) pause() time.Duration {
	w := c.w
	if c.r.name != snapshot {
		return w.now + exponential(c.rand, w.plan.Think) + time.Microsecond
	}
	if burst := 10 * w.plan.Think; c.rand.Int63n(10) == 0 {
		return (w.now/burst+1)*burst + exponential(c.rand, w.plan.Think/100)
	}
	return w.now + exponential(c.rand, w.plan.Think/50) + time.Microsecond
}

// do carries out one request and has done called with what became of it, once.
func (c *client) do(req proto.Message, final bool, done func(*linearizability.Op)) {
	w := c.w
	op := c.r.history.Invoke(c.i, uint64(c.r.ks), req)
	op.Final = final
	w.note(noteInvoke, uint64(c.i), uint64(op.Invoked))
	if w.tracing() {
		w.tracef("client %d of %s to node %d: %v", c.i, c.r.id, c.to+1, req)
	}
	ended := false
	end := func(outcome linearizability.Outcome, m proto.Message, text string) {
		if ended {
			return
		}
		ended = true
		c.r.history.Return(op, outcome, m, text)
		w.note(noteReturn, uint64(c.i), uint64(op.Invoked), uint64(outcome))
		if w.tracing() {
			w.tracef("client %d of %s: %s %s %s", c.i, c.r.id, outcome, text, describe(m))
		}
		switch outcome {
		case linearizability.OK:
			w.result.OK++
		case linearizability.Failed:
			w.result.Failed++
		default:
			w.result.Unknown++
		}
		done(op)
	}
	writes := !reads(req)
	answer := func(m proto.Message, err error) {
		switch outcome := outcomeOf(writes, err); outcome {
		case linearizability.OK:
			end(outcome, proto.Clone(m), "")
		default:
			end(outcome, nil, err.Error())
		}
	}
	if f, ok := req.(*followpb.FollowRequest); ok {
		c.follow(op, f, answer)
		return
	}
	w.queue.put(w.now+patience, func() { answer(nil, &base.Ambiguous{Cause: errLate}) })
	c.send(op, answer)
}

// send brings a request to the node and its answer back.
func (c *client) send(op *linearizability.Op, answer func(proto.Message, error)) {
	w, to := c.w, c.to
	me := w.net.clients()
	reply := func(m proto.Message, err error) {
		w.net.send(to, me, classControl, 64, func() { answer(m, err) })
	}
	w.net.send(me, to, classControl, 64, func() {
		p := w.nodes[to].process
		if p == nil {
			reply(nil, errRefused)
			return
		}
		p.do(func() { p.gateway.serve(c.r.ks, op, patience, reply) })
		if w.nodes[to].process == p && w.nodes[to].pauses > 0 {
			w.count("requests to a paused node")
		}
	})
}

// errRefused is what a client is told where no process listens: nothing happened.
var errRefused = errors.New("connection refused")

// reads says whether a request can change nothing.
func reads(req proto.Message) bool {
	switch r := req.(type) {
	case *pb.RangeRequest, *followpb.FollowRequest, *pb.LeaseTimeToLiveRequest, *pb.LeaseLeasesRequest:
		return true
	case *pb.TxnRequest:
		return readsOnly(r)
	}
	return false
}

// outcomeOf is what a client may conclude from an error: only of one that says so that nothing happened. A read that was
// not answered has no effect, whatever became of it.
func outcomeOf(writes bool, err error) linearizability.Outcome {
	var ambiguous *base.Ambiguous
	switch {
	case err == nil:
		return linearizability.OK
	case writes && errors.As(err, &ambiguous):
		return linearizability.Unknown
	}
	return linearizability.Failed
}
