package dispatch

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/transport"
)

// What comes while a frame is being sent is one more frame, in order, each request once.
func TestOutboxBatches(t *testing.T) {
	const n = 1000
	sending, release, all := make(chan struct{}), make(chan struct{}), make(chan struct{})
	frames, next := 0, uint64(1)
	send := func(to base.NodeID, class transport.Class, raw []byte) error {
		if to != 5 || class != transport.Control {
			t.Errorf("sent to %s in class %d", to, class)
		}
		f := &rangepb.ControlFrame{}
		must(t, proto.Unmarshal(raw, f))
		if frames++; frames == 1 {
			close(sending)
			<-release
		}
		for _, q := range f.GetRequests().GetRequests() {
			if q.Id != next {
				t.Errorf("request %d where %d is due", q.Id, next)
			}
			next++
		}
		if next == n+1 && len(f.GetResponses().GetResponses()) == 1 {
			close(all)
		}
		return nil
	}
	o := newOutbox(5, send, func([]*rangepb.Request, error) { t.Error("lost") })
	var wg sync.WaitGroup
	wg.Go(o.run)
	must(t, o.request(&rangepb.Request{Id: 1}))
	<-sending
	for i := uint64(2); i <= n; i++ {
		must(t, o.request(&rangepb.Request{Id: i, Body: make([]byte, 100)}))
	}
	o.respond(&rangepb.Response{Id: 1})
	close(release)
	<-all
	o.stop()
	wg.Wait()
	if frames != 2 {
		t.Errorf("%d requests in %d frames", n, frames)
	}
	if err := o.request(&rangepb.Request{}); err != base.ErrStopped {
		t.Errorf("a stopped outbox takes a request: %v", err)
	}
	o.respond(&rangepb.Response{}) // dropped
}

// Frames stay below the transport's bound, a queue below its own, and what cannot be sent is said to be so.
func TestOutboxBounds(t *testing.T) {
	var lost, sent []*rangepb.Request
	largest := 0
	fail := false
	o := newOutbox(5, func(_ base.NodeID, _ transport.Class, raw []byte) error {
		f := &rangepb.ControlFrame{}
		must(t, proto.Unmarshal(raw, f))
		largest = max(largest, len(raw))
		if fail = !fail; fail {
			return errors.New("no way there")
		}
		sent = append(sent, f.GetRequests().GetRequests()...)
		return nil
	}, func(qs []*rangepb.Request, _ error) { lost = append(lost, qs...) })
	taken := 0
	var err error
	for ; taken < 100 && err == nil; taken++ {
		err = o.request(&rangepb.Request{Id: uint64(taken), Body: make([]byte, 1<<20)})
	}
	if !errors.As(err, new(*base.Throttled)) || taken < base.FrameQueueBytes>>20 || taken > base.FrameQueueBytes>>20+3 {
		t.Errorf("%d MiB were taken: %v", taken, err)
	}
	reqs, resps := o.requests, []answer(nil)
	for len(reqs) > 0 {
		reqs, resps = o.sendSome(reqs, resps)
	}
	if largest > base.MaxFrameBytes || len(lost) == 0 || len(sent) == 0 || len(lost)+len(sent) != len(o.requests) {
		t.Errorf("largest frame %d; of %d requests %d were sent and %d said to be lost", largest, len(o.requests), len(sent), len(lost))
	}
}

// An answer to a node that cannot be reached in this moment is sent when it can be; requests to it end at once.
func TestAnswersOutlastAReconnect(t *testing.T) {
	var tries int
	got, lost := make(chan uint64, 10), make(chan uint64, 10)
	send := func(_ base.NodeID, _ transport.Class, raw []byte) error {
		f := &rangepb.ControlFrame{}
		must(t, proto.Unmarshal(raw, f))
		if tries++; tries <= 3 {
			return fmt.Errorf("%w: a test", transport.ErrUnreachable)
		}
		for _, r := range f.GetResponses().GetResponses() {
			got <- r.Id
		}
		return nil
	}
	o := newOutbox(5, send, func(reqs []*rangepb.Request, _ error) {
		for _, q := range reqs {
			lost <- q.Id
		}
	})
	o.respond(&rangepb.Response{Id: 1})
	o.respond(&rangepb.Response{Id: 2})
	must(t, o.request(&rangepb.Request{Id: 7}))
	var wg sync.WaitGroup
	wg.Go(o.run)
	if id := <-lost; id != 7 {
		t.Errorf("request %d is told to be lost", id)
	}
	for want := uint64(1); want <= 2; want++ {
		if id := <-got; id != want {
			t.Errorf("answer %d came where %d was due", id, want)
		}
	}
	o.stop()
	wg.Wait()
	if tries != 4 || len(lost) > 0 || len(got) > 0 {
		t.Errorf("%d frames were tried; %d more requests lost, %d more answers", tries, len(lost), len(got))
	}
}

// Nobody waits for ever: what could not be sent for as long as requests last is dropped.
func TestAnswersToTheDeadAreDropped(t *testing.T) {
	o := newOutbox(5, func(base.NodeID, transport.Class, []byte) error { return transport.ErrUnreachable }, nil)
	o.later([]answer{{&rangepb.Response{Id: 1}, time.Now().Add(-time.Second)}})
	if len(o.unsent) != 0 || o.again != nil {
		t.Errorf("%d answers are kept", len(o.unsent))
	}
}
