package placement

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/placement"
)

// runner runs the decider of one index range: one goroutine tells it what has changed and steps it, and a bounded number of others
// carry out what it wants sent. It ends with the leadership, and with it all that is under way from here.
type runner struct {
	p       *Placement
	index   *index
	decider *placement.Decider

	wake   chan struct{} // capacity 1
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex
	own   *metapb.RangeDescriptor // of the index range
	nodes bool                    // what is known of them is another
	asked bool                    // so is what people asked for
	calls []func(*placement.Decider)

	queue    []placement.Action // that wait for their turn; the loop's own
	underWay int                // the loop's own
	seen     base.Instant       // when the decider was told of the nodes last; the loop's own
}

func newRunner(p *Placement, own *metapb.RangeDescriptor, cfg placement.Config) *runner {
	ctx, cancel := context.WithCancel(p.ctx)
	r := &runner{
		p: p, decider: placement.New(cfg), own: own, nodes: true, asked: true,
		wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel, ended: make(chan struct{}),
	}
	r.index = newIndex(base.RangeID(own.RangeId), func() { signal(r.wake) })
	return r
}

// stop ends it, and returns when it has.
func (r *runner) stop() {
	r.cancel()
	<-r.ended
}

// tell changes what the loop looks at next.
func (r *runner) tell(f func(*runner)) {
	r.mu.Lock()
	f(r)
	r.mu.Unlock()
	signal(r.wake)
}

// moved takes note of the index range's descriptor: with another span it lists other ranges.
func (r *runner) moved(own *metapb.RangeDescriptor) {
	again := false
	r.tell(func(r *runner) {
		again = !desc.SameSpan(r.own, own)
		r.own = own
	})
	if again {
		r.index.again()
	}
}

// call runs f where the decider may be used, and returns when it has; false if it will not.
func (r *runner) call(ctx context.Context, f func(*placement.Decider)) bool {
	done := make(chan struct{})
	r.tell(func(r *runner) { r.calls = append(r.calls, func(d *placement.Decider) { f(d); close(done) }) })
	select {
	case <-done:
		return true
	case <-r.ended:
	case <-ctx.Done():
	}
	return false
}

func (r *runner) run() {
	defer close(r.ended)
	log := r.p.cfg.Logger.With("index", r.index.id)
	log.Info("this node decides where the replicas of the ranges are that it lists")
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.ctx.Done():
			log.Info("this node decides no more for the ranges that it lists")
			r.drain()
			return
		case <-r.wake:
		case <-timer.C:
		}
		if err := r.look(); err != nil {
			log.Error("the index cannot be read; it is tried again", "error", err)
			timer.Reset(base.ReconcileInterval)
			continue
		}
		now := r.p.cfg.Store.Now()
		actions, events := r.decider.Step(now)
		for i := range events {
			r.log(&events[i])
		}
		r.queue = append(r.queue, actions...)
		r.send()
		if next := r.decider.Wake(); next == base.Never {
			timer.Stop()
		} else {
			timer.Reset(max(0, next.Sub(r.p.cfg.Store.Now())))
		}
	}
}

// look tells the decider what has changed.
func (r *runner) look() error {
	r.mu.Lock()
	own, nodes, asked, calls := r.own, r.nodes, r.asked, r.calls
	r.nodes, r.asked, r.calls = false, false, nil
	r.mu.Unlock()
	if asked {
		r.p.mu.Lock()
		stored := r.p.stored
		r.p.mu.Unlock()
		r.decider.SetPolicies(stored.policies)
		r.decider.SetOperations(stored.operations, r.p.cfg.UnixMicros())
	}
	// How the nodes are is told once in a while: nobody says when that changes, and every node's load does all the time.
	if now := r.p.cfg.Store.Now(); nodes || now.Sub(r.seen) >= base.HeartbeatInterval {
		r.seen = now
		r.decider.SetNodes(r.p.cfg.Nodes(), r.p.cfg.Health())
	}
	if base.KeyspaceID(own.KeyspaceId) == base.KeyspaceRoot {
		r.decider.Learn(own) // it is in no index
	}
	err := r.index.follow(r.p.cfg.Store, r.decider)
	for _, f := range calls {
		f(r.decider)
	}
	return err
}

// send carries out what waits, as much at once as is allowed.
func (r *runner) send() {
	for len(r.queue) > 0 && r.underWay < base.DecideAsks {
		a := r.queue[0]
		r.queue = r.queue[1:]
		r.underWay++
		go r.carryOut(a)
	}
	if len(r.queue) == 0 {
		r.queue = nil
	}
}

// drain waits for what is under way: it ends with the context.
func (r *runner) drain() {
	for r.underWay > 0 {
		<-r.wake
		r.mu.Lock()
		calls := r.calls
		r.calls = nil
		r.mu.Unlock()
		for _, f := range calls {
			f(r.decider)
		}
	}
}

// carryOut sends one thing, and has the decider told what was answered.
func (r *runner) carryOut(a placement.Action) {
	ctx, cancel := context.WithTimeout(r.ctx, base.DecideAskTimeout)
	defer cancel()
	now := r.p.cfg.Store.Now
	var tell func(*placement.Decider)
	switch d := r.p.cfg.Dispatch; {
	case a.Reserve != nil:
		answer, err := d.Reserve(ctx, a.Node, a.Reserve)
		tell = func(d *placement.Decider) { d.Reserved(a.Range, a.Node, a.Seq, answer, err, now()) }
		if a.Reserve.Release {
			tell = func(*placement.Decider) {}
		}
	case a.Direct != nil:
		answer, by, err := d.Direct(ctx, a.Descriptor, a.Direct)
		tell = func(d *placement.Decider) { d.Directed(a.Range, a.Seq, by, answer, err, now()) }
	case a.Report != nil:
		answer, err := r.report(ctx, a.Node, a.Report)
		tell = func(d *placement.Decider) { d.Reported(a.Node, answer, err, now()) }
	}
	r.tell(func(r *runner) {
		r.calls = append(r.calls, func(d *placement.Decider) {
			r.underWay--
			tell(d)
		})
	})
}

// report asks a node, page after page as long as there is time: each is a report by itself, after which the next question goes on.
func (r *runner) report(ctx context.Context, node base.NodeID, req *rangepb.ReportRequest) (*rangepb.Report, error) {
	whole, err := r.p.cfg.Dispatch.Report(ctx, node, req)
	for err == nil && whole.More {
		page, err := r.p.cfg.Dispatch.Report(ctx, node, &rangepb.ReportRequest{After: whole.Version, Incarnation: whole.Incarnation, KeyspaceId: req.KeyspaceId})
		switch {
		case err != nil:
			return whole, nil
		case page.All: // it was started again meanwhile, or much has ended
			whole = page
		default:
			join(whole, page)
		}
	}
	return whole, err
}

// join adds the next page to a report: what has ended since was told of before as led.
func join(whole, page *rangepb.Report) {
	ended := make(map[uint64]bool, len(page.Ended))
	for _, id := range page.Ended {
		ended[id] = true
	}
	whole.Ranges = slices.DeleteFunc(whole.Ranges, func(x *rangepb.RangeReport) bool { return ended[x.Descriptor_.GetRangeId()] })
	whole.Ranges, whole.Ended = append(whole.Ranges, page.Ranges...), append(whole.Ended, page.Ended...)
	whole.Version, whole.More = page.Version, page.More
}
