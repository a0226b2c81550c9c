package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/desc"
)

// Ten thousand clients that each keep one lease alive, are ten thousand calls every few seconds. What of them is for one range goes
// together: while a question to its leader is under way the next ones gather, and are the next question. So there is one question
// under way for each range, whatever the number of clients; and a range that has no leader holds up nobody but its own.
//
// A lease whose time is over is there until its keys are gone (RFC 6), and nobody is told sooner that it is not. Those that are ending are
// asked for apart from the others, and their home's leader holds the question until one of them has ended: they hold up nobody.

// Kept is what became of a lease that was to be kept alive.
type Kept struct {
	TTL      int64 // seconds; 0: there is no such lease
	Revision int64 // of its home, not above what it was when the lease was kept alive
	Ending   bool  // its time is over, and its keys may be there still: AwaitEnd waits for what becomes of it
}

// keepers are the ranges with questions that wait.
type keepers struct {
	mu     sync.Mutex
	queues map[queueKey]*[]keepAsk // there while a question is under way
}

// queueKey is what goes together. Range is 0 while it is not known.
type queueKey struct {
	ks     base.KeyspaceID
	rng    base.RangeID
	ending bool
}

// keepAsk is one lease of one call.
type keepAsk struct {
	id   int64
	call *keepCall
	at   int // in the call
}

// keepCall is one call that waits.
type keepCall struct {
	mu   sync.Mutex
	kept []Kept
	left int
	err  error
	done chan struct{}   // closed when nothing is left, or err is set
	over <-chan struct{} // closed when it does not wait any more
}

func newKeepCall(ctx context.Context, leases int) *keepCall {
	return &keepCall{kept: make([]Kept, leases), left: leases, done: make(chan struct{}), over: ctx.Done()}
}

func (c *keepCall) wait(ctx context.Context) ([]Kept, error) {
	select {
	case <-c.done:
		return c.kept, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *keepAsk) answer(k Kept, err error) {
	a.call.mu.Lock()
	defer a.call.mu.Unlock()
	if a.call.err != nil {
		return
	}
	a.call.kept[a.at], a.call.err = k, err
	if a.call.left--; a.call.left == 0 || err != nil {
		close(a.call.done)
	}
}

// KeepAlive has leases last their whole TTL again. It does not wait for those that are ending.
func (d *Dispatcher) KeepAlive(ctx context.Context, ks base.KeyspaceID, ids []int64) ([]Kept, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	call := newKeepCall(ctx, len(ids))
	groups := make(map[base.RangeID][]keepAsk)
	for i, id := range ids {
		r := d.routes.find(ks, eval.LeaseHome(id))
		groups[base.RangeID(r.GetRangeId())] = append(groups[base.RangeID(r.GetRangeId())], keepAsk{id, call, i})
	}
	for rng, asks := range groups {
		if d.keepHere(ctx, ks, rng, asks) {
			continue
		}
		if err := d.gather(queueKey{ks: ks, rng: rng}, asks); err != nil {
			return nil, err
		}
	}
	return call.wait(ctx)
}

// AwaitEnd waits for what becomes of a lease that is ending. Most often it ends: then nobody reads a key of it any more. One whose end was not
// applied when its home got another leader has its whole TTL again there, and is kept alive.
func (d *Dispatcher) AwaitEnd(ctx context.Context, ks base.KeyspaceID, id int64) (Kept, error) {
	call := newKeepCall(ctx, 1)
	rng := base.RangeID(d.routes.find(ks, eval.LeaseHome(id)).GetRangeId())
	if err := d.gather(queueKey{ks, rng, true}, []keepAsk{{id, call, 0}}); err != nil {
		return Kept{}, err
	}
	kept, err := call.wait(ctx)
	if err != nil {
		return Kept{}, err
	}
	return kept[0], nil
}

// keepHere answers at once if this node leads the range; false if it cannot.
func (d *Dispatcher) keepHere(ctx context.Context, ks base.KeyspaceID, rng base.RangeID, asks []keepAsk) bool {
	if rng == 0 {
		return false
	}
	a, err := d.leaseHere(ctx, rng, keepQuestion(ks, asks, false))
	if err != nil {
		return false
	}
	_, err = answerAll(asks, a, false)
	return err == nil
}

func keepQuestion(ks base.KeyspaceID, asks []keepAsk, awaitEnd bool) *rangepb.LeaseQuestion {
	q := &rangepb.LeaseQuestion{KeyspaceId: uint64(ks), KeepAlive: make([]int64, len(asks)), AwaitEnd: awaitEnd}
	for i := range asks {
		q.KeepAlive[i] = asks[i].id
	}
	return q
}

// answerAll answers all of them; where their end is awaited, all but those that are ending, and returns these.
func answerAll(asks []keepAsk, a *rangepb.LeaseAnswer, awaitEnd bool) (ending []keepAsk, err error) {
	if len(a.KeptTtl) != len(asks) {
		return nil, fmt.Errorf("%d answers for %d leases", len(a.KeptTtl), len(asks))
	}
	kept := make([]Kept, len(asks))
	for i := range kept {
		kept[i] = Kept{TTL: a.KeptTtl[i], Revision: a.Revision}
	}
	for _, i := range a.Ending {
		if int(i) >= len(kept) {
			return nil, fmt.Errorf("lease %d of %d is ending", i, len(asks))
		}
		kept[i].Ending = true
	}
	for i := range asks {
		if awaitEnd && kept[i].Ending {
			ending = append(ending, asks[i])
		} else {
			asks[i].answer(kept[i], nil)
		}
	}
	return ending, nil
}

// gather puts leases to those that wait for the range's next question, and begins to ask if nobody does.
func (d *Dispatcher) gather(key queueKey, asks []keepAsk) error {
	d.keepers.mu.Lock()
	defer d.keepers.mu.Unlock()
	if q := d.keepers.queues[key]; q != nil {
		if len(*q)+len(asks) > base.LeaseKeepAliveQueue {
			return &base.Throttled{What: "keep-alives", RetryAfter: base.ThrottleRetry}
		}
		*q = append(*q, asks...)
		return nil
	}
	if !d.begin() {
		return base.ErrStopped
	}
	if d.keepers.queues == nil {
		d.keepers.queues = make(map[queueKey]*[]keepAsk)
	}
	d.keepers.queues[key] = &[]keepAsk{}
	go func() {
		defer d.wg.Done()
		for batch := asks; len(batch) > 0; {
			batch = d.keepers.next(key, d.keep(key, batch))
		}
	}()
	return nil
}

// next is what is to be asked for again and is waited for still, and what has gathered; when that is nothing the queue is gone.
func (k *keepers) next(key queueKey, again []keepAsk) []keepAsk {
	again = slices.DeleteFunc(again, func(a keepAsk) bool {
		select {
		case <-a.call.over:
			return true
		default:
			return false
		}
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	q := k.queues[key]
	batch := *q
	if len(batch)+len(again) == 0 {
		delete(k.queues, key)
		return nil
	}
	n := min(len(batch), base.LeaseQuestionIDs-len(again))
	*q = batch[n:]
	return append(again, batch[:n]...)
}

// keep asks for leases that were of one range when they were looked up; those that are another's by now are asked for after it. It returns
// those whose end is awaited and has not come.
func (d *Dispatcher) keep(key queueKey, batch []keepAsk) (ending []keepAsk) {
	ks := key.ks
	ctx, cancel := context.WithTimeout(d.ctx, base.RequestTimeout)
	defer cancel()
	for several := 0; len(batch) > 0; {
		var mine, rest []keepAsk
		a, err := d.askLease(ctx, ks, eval.LeaseHome(batch[0].id), func(r *metapb.RangeDescriptor) *rangepb.LeaseQuestion {
			mine, rest = of(r, ks, batch)
			return keepQuestion(ks, mine, key.ending)
		})
		var cut *base.SeveralRanges
		if errors.As(err, &cut) && several < base.LeaseAdmitTries {
			several++ // it was cut since, and is known now as it is
			continue
		}
		if err == nil {
			var left []keepAsk
			left, err = answerAll(mine, a, key.ending)
			ending = append(ending, left...)
		}
		if err != nil {
			if len(mine) == 0 { // not even the range was found
				mine, rest = batch, nil
			}
			for i := range mine {
				mine[i].answer(Kept{}, err)
			}
		}
		batch = rest
	}
	return ending
}

// of parts those whose home is a range from the others.
func of(r *metapb.RangeDescriptor, ks base.KeyspaceID, batch []keepAsk) (mine, rest []keepAsk) {
	for _, a := range batch {
		if desc.Contains(r, ks, eval.LeaseHome(a.id)) {
			mine = append(mine, a)
		} else {
			rest = append(rest, a)
		}
	}
	return mine, rest
}
