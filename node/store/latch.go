package store

import (
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/raftgroup"
)

// Latch asks for a range to be kept as it is, if it is led here and holds a key; done is told what it is: a
// *rangepb.LatchGrant. The range stays so until the latch ends (raftgroup/latch.go).
func (s *Store) Latch(id base.RangeID, latch raftgroup.LatchID, ks base.KeyspaceID, key []byte, deadline base.Instant, done Done) {
	seq := s.nextID.Add(1)
	// What is granted is looked at when it is granted: the range may have been cut in two while the latch waited.
	if !s.waiters.add(seq, waiter{done: done, deadline: deadline, latch: &wanted{ks, key}}) {
		done(nil, base.ErrStopped)
		return
	}
	full := false
	ok := s.worker(id).box.put(func(ev *raftgroup.Events) {
		if full = len(ev.Latches) >= base.MailboxReads; !full {
			ev.Latches = append(ev.Latches, raftgroup.Latch{Range: id, ID: latch, Waiter: raftgroup.ReadID(seq)})
		}
	})
	switch {
	case !ok:
		s.waiters.resolve(seq, nil, base.ErrStopped)
	case full:
		s.waiters.resolve(seq, nil, &base.Throttled{What: "latches", RetryAfter: base.ThrottleRetry})
	}
}

// Unlatch lets a latch go. If that is lost, it ends by itself.
func (s *Store) Unlatch(id base.RangeID, latch raftgroup.LatchID) { s.unlatch(id, latch, 0) }

func (s *Store) unlatch(id base.RangeID, latch raftgroup.LatchID, waiter raftgroup.ReadID) {
	s.worker(id).box.put(func(ev *raftgroup.Events) {
		if len(ev.Latches) < base.MailboxReads {
			ev.Latches = append(ev.Latches, raftgroup.Latch{Range: id, ID: latch, Waiter: waiter, End: true})
		}
	})
}

// wanted is the key that a latch is to hold.
type wanted struct {
	ks  base.KeyspaceID
	key []byte
}

// latched tells a waiter what its latch holds. Whoever waits no more, or wanted another key, holds nothing up.
func (w *worker) latched(x *raftgroup.Latched) {
	want, waits := w.s.waiters.wanted(uint64(x.Waiter))
	if x.Err != nil {
		w.s.waiters.resolve(uint64(x.Waiter), nil, x.Err)
		return
	}
	v := w.s.View(x.Range)
	switch {
	case !waits:
		w.s.unlatch(x.Range, x.ID, x.Waiter)
	case v == nil:
		w.s.waiters.resolve(uint64(x.Waiter), nil, &base.RangeMoved{Range: x.Range})
	case !desc.Contains(v.Descriptor, want.ks, want.key):
		w.s.unlatch(x.Range, x.ID, x.Waiter)
		w.s.waiters.resolve(uint64(x.Waiter), nil, &base.RangeMoved{Range: x.Range, Descriptors: []*metapb.RangeDescriptor{v.Descriptor}})
	case desc.IsFrozen(v.Descriptor):
		// Nothing may be raised there. Its left neighbour decides what becomes of it, and cannot if it is held meanwhile.
		w.s.unlatch(x.Range, x.ID, x.Waiter)
		w.s.waiters.resolve(uint64(x.Waiter), nil, &base.Throttled{What: "latches of " + x.Range.String() + ", which is being merged", RetryAfter: base.ThrottleRetry})
	default:
		w.s.waiters.resolve(uint64(x.Waiter), &rangepb.LatchGrant{Descriptor_: v.Descriptor, Revision: int64(v.Counters.Revision)}, nil)
	}
}
