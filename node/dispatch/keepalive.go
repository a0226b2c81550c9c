package dispatch

import (
	"context"
	"errors"
	"fmt"
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

// Kept is what became of a lease that was to be kept alive.
type Kept struct {
	TTL      int64 // seconds; 0: there is no such lease
	Revision int64 // of its home, not above what it was when the lease was kept alive
}

// keepers are the ranges with questions that wait.
type keepers struct {
	mu     sync.Mutex
	queues map[queueKey]*[]keepAsk // there while a question is under way
}

// queueKey is what goes together. Range is 0 while it is not known.
type queueKey struct {
	ks  base.KeyspaceID
	rng base.RangeID
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
	done chan struct{} // closed when nothing is left, or err is set
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

// KeepAlive has leases last their whole TTL again.
func (d *Dispatcher) KeepAlive(ctx context.Context, ks base.KeyspaceID, ids []int64) ([]Kept, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	call := &keepCall{kept: make([]Kept, len(ids)), left: len(ids), done: make(chan struct{})}
	groups := make(map[base.RangeID][]keepAsk)
	for i, id := range ids {
		r := d.routes.find(ks, eval.LeaseHome(id))
		groups[base.RangeID(r.GetRangeId())] = append(groups[base.RangeID(r.GetRangeId())], keepAsk{id, call, i})
	}
	for rng, asks := range groups {
		if d.keepHere(ctx, ks, rng, asks) {
			continue
		}
		if err := d.gather(queueKey{ks, rng}, asks); err != nil {
			return nil, err
		}
	}
	select {
	case <-call.done:
		return call.kept, call.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// keepHere answers at once if this node leads the range; false if it cannot.
func (d *Dispatcher) keepHere(ctx context.Context, ks base.KeyspaceID, rng base.RangeID, asks []keepAsk) bool {
	if rng == 0 {
		return false
	}
	a, err := d.leaseHere(ctx, rng, keepQuestion(ks, asks))
	if err != nil {
		return false
	}
	return answerAll(asks, a) == nil
}

func keepQuestion(ks base.KeyspaceID, asks []keepAsk) *rangepb.LeaseQuestion {
	q := &rangepb.LeaseQuestion{KeyspaceId: uint64(ks), KeepAlive: make([]int64, len(asks))}
	for i := range asks {
		q.KeepAlive[i] = asks[i].id
	}
	return q
}

func answerAll(asks []keepAsk, a *rangepb.LeaseAnswer) error {
	if len(a.KeptTtl) != len(asks) {
		return fmt.Errorf("%d answers for %d leases", len(a.KeptTtl), len(asks))
	}
	for i := range asks {
		asks[i].answer(Kept{TTL: a.KeptTtl[i], Revision: a.Revision}, nil)
	}
	return nil
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
		for batch := asks; len(batch) > 0; batch = d.keepers.next(key) {
			d.keep(key.ks, batch)
		}
	}()
	return nil
}

// next is what has gathered; when that is nothing the queue is gone.
func (k *keepers) next(key queueKey) []keepAsk {
	k.mu.Lock()
	defer k.mu.Unlock()
	q := k.queues[key]
	batch := *q
	if len(batch) == 0 {
		delete(k.queues, key)
		return nil
	}
	n := min(len(batch), base.LeaseQuestionIDs)
	*q = batch[n:]
	return batch[:n:n]
}

// keep asks for leases that were of one range when they were looked up; those that are another's by now are asked for after it.
func (d *Dispatcher) keep(ks base.KeyspaceID, batch []keepAsk) {
	ctx, cancel := context.WithTimeout(d.ctx, base.RequestTimeout)
	defer cancel()
	for several := 0; len(batch) > 0; {
		var mine, rest []keepAsk
		a, err := d.askLease(ctx, ks, eval.LeaseHome(batch[0].id), func(r *metapb.RangeDescriptor) *rangepb.LeaseQuestion {
			mine, rest = of(r, ks, batch)
			return keepQuestion(ks, mine)
		})
		var cut *base.SeveralRanges
		if errors.As(err, &cut) && several < base.LeaseAdmitTries {
			several++ // it was cut since, and is known now as it is
			continue
		}
		if err == nil {
			err = answerAll(mine, a)
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
