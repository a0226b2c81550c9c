package dispatch

import (
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/transport"
)

// outbox collects what is to go to one node in the control class. Its goroutine sends all that has come while the
// frame before was being sent as one frame: the busier the node, the larger the frames.
type outbox struct {
	to   base.NodeID
	send func(base.NodeID, transport.Class, []byte) error
	lost func([]*rangepb.Request, error) // requests that certainly never left

	mu        sync.Mutex
	cond      sync.Cond
	requests  []*rangepb.Request
	responses []*rangepb.Response
	bytes     int
	stopped   bool
}

func newOutbox(to base.NodeID, send func(base.NodeID, transport.Class, []byte) error, lost func([]*rangepb.Request, error)) *outbox {
	o := &outbox{to: to, send: send, lost: lost}
	o.cond.L = &o.mu
	return o
}

// request queues a request; an error means that it will not be sent.
func (o *outbox) request(r *rangepb.Request) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return base.ErrStopped
	}
	if o.bytes > base.FrameQueueBytes {
		return &base.Throttled{What: "requests to " + o.to.String(), RetryAfter: base.ThrottleRetry}
	}
	o.requests = append(o.requests, r)
	o.bytes += len(r.Body)
	o.cond.Signal()
	return nil
}

// respond queues an answer. Answers are not refused: their number is bounded by that of the requests.
func (o *outbox) respond(r *rangepb.Response) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return
	}
	o.responses = append(o.responses, r)
	o.cond.Signal()
}

func (o *outbox) stop() {
	o.mu.Lock()
	o.stopped = true
	o.mu.Unlock()
	o.cond.Signal()
}

// run is the outbox's goroutine.
func (o *outbox) run() {
	for {
		o.mu.Lock()
		for len(o.requests) == 0 && len(o.responses) == 0 && !o.stopped {
			o.cond.Wait()
		}
		if o.stopped {
			o.mu.Unlock()
			return
		}
		requests, responses := o.requests, o.responses
		o.requests, o.responses, o.bytes = nil, nil, 0
		o.mu.Unlock()
		for len(requests) > 0 || len(responses) > 0 {
			requests, responses = o.sendSome(requests, responses)
		}
	}
}

// sendSome sends one frame below the size limit, and returns what did not fit.
func (o *outbox) sendSome(reqs []*rangepb.Request, resps []*rangepb.Response) ([]*rangepb.Request, []*rangepb.Response) {
	n, m, size := 0, 0, 0
	for n < len(reqs) && (size == 0 || size+len(reqs[n].Body) < base.MaxFrameBytes/2) {
		size += len(reqs[n].Body) + 64
		n++
	}
	for m < len(resps) && (size == 0 || size+len(resps[m].Body) < base.MaxFrameBytes/2) {
		size += len(resps[m].Body) + 64
		m++
	}
	frame := &rangepb.ControlFrame{}
	if n > 0 {
		frame.Requests = &rangepb.RequestFrame{Requests: reqs[:n]}
	}
	if m > 0 {
		frame.Responses = &rangepb.ResponseFrame{Responses: resps[:m]}
	}
	raw, err := proto.Marshal(frame)
	if err == nil {
		err = o.send(o.to, transport.Control, raw)
	}
	if err != nil && n > 0 {
		o.lost(reqs[:n], err)
	}
	return reqs[n:], resps[m:]
}
