package lessor

import (
	"encoding/binary"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/eval"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/node/store"
)

// Answer answers a question to a range (dispatch.Leases). The range's lease is looked at before and after, as for a read.
func (l *Lessor) Answer(id base.RangeID, q *rangepb.LeaseQuestion) (*rangepb.LeaseAnswer, error) {
	h := l.home(id)
	if h == nil || h.state.Load() != leading {
		return nil, &base.NotLeader{Range: id}
	}
	lease, ok := l.cfg.Store.Lease(id)
	view := l.cfg.Store.View(id)
	if !ok || lease.Term() != h.term || view == nil {
		l.cfg.Store.Warm(id) // a cold range has no lease that could be seen; asked again, it may
		return nil, &base.NotLeader{Range: id}
	}
	a := &asked{l: l, h: h, q: q, view: view, lease: lease, out: &rangepb.LeaseAnswer{Revision: int64(view.Counters.Revision)}}
	if err := a.answer(); err != nil {
		return nil, err
	}
	if !lease.Valid() {
		return nil, &base.NotLeader{Range: id}
	}
	l.kept.Add(a.kept)
	return a.out, nil
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

func (a *asked) answer() error {
	if base.KeyspaceID(a.q.KeyspaceId) != a.h.ks {
		return a.moved()
	}
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
	for _, id := range a.q.KeepAlive {
		if !a.lives(id) {
			return a.moved()
		}
	}
	now := a.l.cfg.Store.Now()
	a.out.KeptTtl = make([]int64, len(a.q.KeepAlive))
	var unknown []int64
	a.h.mu.Lock()
	for i, id := range a.q.KeepAlive {
		if a.out.KeptTtl[i] = a.h.core.KeepAlive(id, now); a.out.KeptTtl[i] != 0 {
			a.kept++
		} else if _, known := a.h.core.Remaining(id, now); !known {
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
	if err == nil && rec != nil && !rec.Ending {
		err = &base.NotLeader{Range: a.h.id} // asked again, it is known
	}
	return err
}

func (a *asked) timeToLive() error {
	id := a.q.TimeToLive
	if !a.lives(id) {
		return a.moved()
	}
	a.out.RemainingSeconds = -1
	a.h.mu.Lock()
	left, known := a.h.core.Remaining(id, a.l.cfg.Store.Now())
	a.h.mu.Unlock()
	if !known {
		return a.notBehind(id)
	}
	rec, err := a.l.cfg.Store.ClientLease(a.h.id, id)
	if err != nil || rec == nil || rec.Ending {
		return err
	}
	a.out.Lease, a.out.RemainingSeconds = rec, int64(left/time.Second)
	return nil
}

// caughtUp refuses what is read from the store while a follower may have shown more: asked again, it is shown here too.
func (a *asked) caughtUp() error {
	switch {
	case !desc.Contains(a.view.Descriptor, a.h.ks, a.q.Start):
		return a.moved()
	case !a.lease.Caught():
		return &base.NotLeader{Range: a.h.id}
	}
	return nil
}

func (a *asked) list() error {
	if err := a.caughtUp(); err != nil {
		return err
	}
	var from int64
	if len(a.q.From) == 8 {
		from = int64(binary.BigEndian.Uint64(a.q.From))
	}
	page, next, err := a.l.cfg.Store.ClientLeases(a.h.id, from, base.LeaseQuestionIDs)
	if err != nil {
		return err
	}
	for _, rec := range page {
		if !rec.Ending {
			a.out.Leases = append(a.out.Leases, rec.Id)
		}
	}
	if a.out.End = a.view.Descriptor.End; next != 0 {
		a.out.Next = eval.LeaseHome(next)
	}
	return nil
}

func (a *asked) keys() error {
	err := a.caughtUp()
	if err == nil {
		a.out.End = a.view.Descriptor.End
		a.out.Keys, a.out.Next, err = a.l.cfg.Store.ClientLeaseKeys(a.h.id, a.q.KeysOf, a.q.From, base.LeaseQuestionIDs)
	}
	return err
}
