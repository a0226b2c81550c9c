package dispatch

import (
	"errors"
	"slices"
	"sync"
	"time"

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
	responses []answer
	unsent    []answer // that wait until the node is reached again
	again     *time.Timer
	bytes     int
	stopped   bool
}

// answer is one to a request that came over the other node's own stream: that one lives, though it may not be reached yet from
// here, as one that has just joined. Who asked waits for it, and is told by nobody that it is lost.
type answer struct {
	*rangepb.Response
	until time.Time // when nobody waits for it any more
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
	o.responses = append(o.responses, answer{r, time.Now().Add(base.RequestTimeout)})
	o.cond.Signal()
}

// later keeps answers that could not be sent, and tries them again after a moment.
func (o *outbox) later(answers []answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.unsent = append(o.unsent, slices.DeleteFunc(answers, func(a answer) bool { return now.After(a.until) })...)
	if len(o.unsent) == 0 || o.again != nil || o.stopped {
		return
	}
	o.again = time.AfterFunc(base.ReconnectMin, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.responses, o.unsent, o.again = append(o.unsent, o.responses...), nil, nil
		o.cond.Signal()
	})
}

func (o *outbox) stop() {
	o.mu.Lock()
	o.stopped = true
	if o.again != nil {
		o.again.Stop()
	}
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
func (o *outbox) sendSome(reqs []*rangepb.Request, resps []answer) ([]*rangepb.Request, []answer) {
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
		frame.Responses = &rangepb.ResponseFrame{}
		for _, a := range resps[:m] {
			frame.Responses.Responses = append(frame.Responses.Responses, a.Response)
		}
	}
	raw, err := proto.Marshal(frame)
	if err == nil {
		err = o.send(o.to, transport.Control, raw)
	}
	if err != nil && n > 0 {
		o.lost(reqs[:n], err)
	}
	if m > 0 && errors.Is(err, transport.ErrUnreachable) {
		o.later(resps[:m])
	}
	return reqs[n:], resps[m:]
}
