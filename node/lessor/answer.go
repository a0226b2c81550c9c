package lessor

import (
	"context"
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/node/store"
)

// Answer answers a question to a range, at once. The range's lease is looked at before and after, as for a read. After it, the
// replica must have applied all that another one may act on: where the range was cut, or is taken over by another, whoever leads
// there gives the lease its whole TTL from then on, and a keep-alive that was answered later would be forgotten. If it has not, the error
// is a *base.NotLeader: it may be asked again.
func (l *Lessor) Answer(id base.RangeID, q *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error) {
	return l.answer(id, q, func() error { return &base.NotLeader{Range: id} })
}

// AnswerWithin is Answer, and waits until the replica has applied what it must; and, if the question says so, until one of the leases
// that were to be kept alive has ended, or cannot be answered for here any more.
func (l *Lessor) AnswerWithin(ctx context.Context, id base.RangeID, q *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error) {
	patience := time.NewTimer(base.LeaseAwait)
	defer patience.Stop()
	for {
		end := l.nextEnd(id) // before it is answered: what ends after that is not missed
		a, err := l.answer(id, q, func() error { return l.catchUp(ctx, id) })
		if err != nil || !q.AwaitEnd || len(a.Ending) < len(q.KeepAlive) {
			return a, err
		}
		select {
		case <-end:
		case <-patience.C:
			return a, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.ctx.Done():
			return nil, &base.NotLeader{Range: id}
		}
	}
}

// catchUp waits until the replica has applied all that is committed.
func (l *Lessor) catchUp(ctx context.Context, id base.RangeID) error {
	done := make(chan error, 1)
	s := l.cfg.Store
	s.ReadIndex(id, s.Now().Add(base.RequestTimeout), func(_ proto.Message, err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Lessor) answer(id base.RangeID, q *rangepb.LeaseQuestion, catchUp func() error) (*rangepb.LeaseAnswer, error) {
	h := l.home(id)
	if h == nil || h.state.Load() != leading {
		return nil, &base.NotLeader{Range: id}
	}
	lease, ok := l.cfg.Store.Lease(id)
	if !ok || lease.Term() != h.term {
		l.cfg.Store.Warm(id) // a cold range has no lease that could be seen; asked again, it may
		return nil, &base.NotLeader{Range: id}
	}
	a := &asked{l: l, h: h, q: q, lease: lease, out: &rangepb.LeaseAnswer{}}
	if q.List || q.KeysOf != 0 { // what is read from the store must be as new as what a follower has shown
		if err := caughtUp(lease, catchUp); err != nil {
			return nil, err
		}
	}
	if err := a.look(); err != nil {
		return nil, err
	}
	a.out.Revision = int64(a.view.Counters.Revision)
	if err := a.answer(); err != nil {
		return nil, err
	}
	if err := caughtUp(lease, catchUp); err != nil {
		return nil, err
	}
	if err := a.look(); err != nil {
		return nil, err
	}
	if !lease.Valid() {
		return nil, &base.NotLeader{Range: id}
	}
	l.kept.Add(a.kept)
	return a.out, nil
}

// caughtUp says whether the replica has applied all that any other can have by now.
func caughtUp(lease store.Lease, catchUp func() error) error {
	if lease.Caught() {
		return nil
	}
	return catchUp()
}

// asked is a question while it is answered.
type asked struct {
	l     *Lessor
	h     *home
	q     *rangepb.LeaseQuestion
	view  *apply.View
	lease store.Lease
	out   *rangepb.LeaseAnswer
	kept  uint64
}

// look sees whether what was asked for is the range's.
func (a *asked) look() error {
	a.view = a.l.cfg.Store.View(a.h.id)
	switch {
	case a.view == nil:
		return &base.RangeMoved{Range: a.h.id}
	case base.KeyspaceID(a.q.KeyspaceId) != a.h.ks:
		return a.moved()
	case desc.IsFrozen(a.view.Descriptor):
		return desc.Busy(a.view.Descriptor)
	}
	for _, id := range a.q.KeepAlive {
		if !a.lives(id) {
			return a.moved()
		}
	}
	if a.q.TimeToLive != 0 && !a.lives(a.q.TimeToLive) || (a.q.List || a.q.KeysOf != 0) && !desc.Contains(a.view.Descriptor, a.h.ks, a.q.Start) {
		return a.moved()
	}
	return nil
}

func (a *asked) answer() error {
	switch {
	case len(a.q.KeepAlive) > 0:
		return a.keepAlive()
	case a.q.List:
		return a.list()
	case a.q.KeysOf != 0:
		return a.keys()
	}
	return a.timeToLive()
}

func (a *asked) moved() error {
	return &base.RangeMoved{Range: a.h.id, Descriptors: []*metapb.RangeDescriptor{a.view.Descriptor}}
}

// lives says whether a lease, if there is one, lives in the range.
func (a *asked) lives(id int64) bool {
	return desc.Contains(a.view.Descriptor, a.h.ks, eval.LeaseHome(id))
}

// keepAlive is carried out for all that were asked, or refused as a whole.
func (a *asked) keepAlive() error {
	now := a.l.cfg.Store.Now()
	a.out.KeptTtl = make([]int64, len(a.q.KeepAlive))
	var unknown []int64
	a.h.mu.Lock()
	for i, id := range a.q.KeepAlive {
		ttl, ending := a.h.core.KeepAlive(id, now)
		a.out.KeptTtl[i] = ttl
		switch {
		case ttl != 0:
			a.kept++
		case ending:
			a.out.Ending = append(a.out.Ending, uint32(i))
		default:
			unknown = append(unknown, id)
		}
	}
	a.h.mu.Unlock()
	for _, id := range unknown {
		if err := a.notBehind(id); err != nil {
			return err
		}
	}
	return nil
}

// notBehind says that a lease which is not known is not there. One that has come with a merge is known in a moment.
func (a *asked) notBehind(id int64) error {
	rec, err := a.l.cfg.Store.ClientLease(a.h.id, id)
	if err == nil && rec != nil {
		err = &base.NotLeader{Range: a.h.id} // asked again, it is known
	}
	return err
}

func (a *asked) timeToLive() error {
	id := a.q.TimeToLive
	a.out.RemainingSeconds = -1
	a.h.mu.Lock()
	left, known := a.h.core.Remaining(id, a.l.cfg.Store.Now())
	a.h.mu.Unlock()
	if !known {
		return a.notBehind(id)
	}
	rec, err := a.l.cfg.Store.ClientLease(a.h.id, id)
	if err != nil || rec == nil {
		return err
	}
	a.out.Lease, a.out.RemainingSeconds = rec, int64(left/time.Second)
	return nil
}

func (a *asked) list() error {
	var from int64
	if len(a.q.From) == 8 {
		from = int64(binary.BigEndian.Uint64(a.q.From))
	}
	page, next, err := a.l.cfg.Store.ClientLeases(a.h.id, from, base.LeaseQuestionIDs)
	if err != nil {
		return err
	}
	for _, rec := range page {
		a.out.Leases = append(a.out.Leases, rec.Id)
	}
	if a.out.End = a.view.Descriptor.End; next != 0 {
		a.out.Next = eval.LeaseHome(next)
	}
	return nil
}

func (a *asked) keys() error {
	a.out.End = a.view.Descriptor.End
	var err error
	a.out.Keys, a.out.Next, err = a.l.cfg.Store.ClientLeaseKeys(a.h.id, a.q.KeysOf, a.q.From, base.LeaseQuestionIDs)
	return err
}
