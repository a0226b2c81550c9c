package raftgroup

import (
	"go.etcd.io/raft/v3"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// A latch keeps a range as it is while a reader asks other ranges for the same: what is proposed meanwhile waits here. It is
// shared: several readers may hold one range. It is granted when all that was proposed before it is applied on the leader, and
// ends with one proposal that goes through it (a raise of the range's revision), or when it is let go, or after
// base.LatchDuration, or with the leadership.
//
// What a reader may conclude does not rest on that time, nor on any clock or lease: its own proposal stands in the log right
// behind what was applied when the latch was granted, but for those of other latches, or it stands nowhere. Why that is enough
// is in meta/spread.
//
// Nobody waits for ever. Where proposals wait, a new latch waits behind them; so writers are not starved by readers that overlap.
// But two readers may each hold a range where the other waits behind a proposal: so a latch that is older than one of those
// that hold the range joins them all the same. Of two readers only the younger then waits for the other, and there is no
// circle. Reader's clocks decide who is older: one whose clock is behind would always be, so nobody joins once a proposal has
// waited for base.LatchDuration. It waits for twice that at most.

// latches are those of a range that is held.
type latches struct {
	holders []latch    // never empty
	queue   []Latch    // wait behind what is kept back
	kept    []Proposal // wait until nobody holds the range
	bytes   int        // of kept
	since   base.Instant
}

// latch is one holder. One reader may have several, if it took one range for two.
type latch struct {
	id      LatchID
	waiter  ReadID
	granted bool
	term    uint64
	index   uint64 // the log's end when the latch was taken; 0: not known yet
	until   base.Instant
}

// before says whether a latch goes before another: its reader began earlier.
func (id LatchID) before(o LatchID) bool {
	if id.Began != o.Began {
		return id.Began < o.Began
	}
	if id.Node != o.Node {
		return id.Node < o.Node
	}
	return id.Seq < o.Seq
}

// latch takes a latch in, or ends one.
func (l *Loop) latch(x *Latch) {
	if x.End {
		if g := l.groups[x.Range]; g != nil {
			l.unlatch(g, x.ID, x.Waiter)
		}
		return
	}
	g := l.group(x.Range)
	switch {
	case g == nil:
		l.refuseLatch(x, &base.RangeMoved{Range: x.Range})
	case g.role != raft.StateLeader:
		l.refuseLatch(x, g.notLeader())
	case g.latches != nil && len(g.latches.holders)+len(g.latches.queue) >= base.LatchesPerRange:
		l.refuseLatch(x, &base.Throttled{What: "latches of " + g.id.String(), RetryAfter: base.ThrottleRetry})
	case g.latches != nil && g.latches.mustWait(l.now, x.ID):
		g.latches.queue = append(g.latches.queue, *x)
	default:
		l.hold(g, x)
	}
}

// mustWait says whether a new latch is to wait behind the proposals that wait.
func (s *latches) mustWait(now base.Instant, id LatchID) bool {
	if len(s.kept) == 0 {
		return false
	}
	for i := range s.holders {
		if h := s.holders[i].id; h == id || id.before(h) && now.Sub(s.since) < base.LatchDuration {
			return false
		}
	}
	return true
}

// hold makes a latch one that holds the range. Where the log ends is known when the step's Readys are.
func (l *Loop) hold(g *group, x *Latch) {
	if g.latches == nil {
		g.latches = &latches{}
	}
	g.latches.holders = append(g.latches.holders, latch{id: x.ID, waiter: x.Waiter, term: g.term, until: l.now.Add(base.LatchDuration)})
	l.retimeLatches(g)
	l.touch(g)
}

// grantLatches grants those that wait for nothing any more. It is called when the group has been asked for all of its Readys.
func (l *Loop) grantLatches(g *group) {
	if g.latches == nil || g.destroyed {
		return
	}
	for i := range g.latches.holders {
		h := &g.latches.holders[i]
		if h.index == 0 {
			h.index = g.log.last
		}
		if !h.granted && (g.applied >= h.index && g.ownTermApplied() || mutant.Is(mutant.LatchBeforeApplied)) {
			h.granted = true
			l.eff.Latched = append(l.eff.Latched, Latched{Range: g.id, ID: h.id, Waiter: h.waiter})
		}
	}
}

// keepBack has a proposal wait until nobody holds the range.
func (l *Loop) keepBack(g *group, p *Proposal) {
	s := g.latches
	if len(s.kept) >= base.LatchedProposals || s.bytes+len(p.Data) > base.LatchedBytes {
		l.fail(p.ID, &base.Throttled{What: "proposals to " + g.id.String() + ", which is being read", RetryAfter: base.ThrottleRetry})
		return
	}
	if len(s.kept) == 0 {
		s.since = l.now
	}
	s.kept, s.bytes = append(s.kept, *p), s.bytes+len(p.Data)
}

// proposeLatched puts a proposal into the log through its latch, which it ends: what was kept back follows it.
func (l *Loop) proposeLatched(g *group, p *Proposal) {
	if !l.holds(g, *p.Latch) && !mutant.Is(mutant.LatchOutlived) {
		l.fail(p.ID, &base.Throttled{What: "a latch of " + g.id.String() + " that has ended", RetryAfter: base.ThrottleRetry})
		return
	}
	if mutant.Is(mutant.RaiseBehindWrites) {
		l.unlatch(g, *p.Latch, 0)
	}
	l.enter(g, p)
	l.unlatch(g, *p.Latch, 0)
}

// holds says whether a latch was granted and has held the range since. Raft may have stepped down in this very step.
func (l *Loop) holds(g *group, id LatchID) bool {
	if g.latches == nil {
		return false
	}
	for i := range g.latches.holders {
		if h := &g.latches.holders[i]; h.id == id {
			st := g.rn.BasicStatus()
			return h.granted && l.now < h.until && st.RaftState == raft.StateLeader && st.HardState.GetTerm() == h.term
		}
	}
	return false
}

// unlatch ends a latch, wherever it stands: one of them if a waiter is given, else all that its reader has.
func (l *Loop) unlatch(g *group, id LatchID, waiter ReadID) {
	if g.latches == nil {
		return
	}
	queue := g.latches.queue[:0]
	for _, x := range g.latches.queue {
		if x.ID != id || waiter != 0 && x.Waiter != waiter {
			queue = append(queue, x)
			continue
		}
		l.refuseLatch(&x, errUnlatched(g))
	}
	g.latches.queue = queue
	l.endHolders(g, func(h *latch) bool { return h.id == id && (waiter == 0 || h.waiter == waiter) })
}

// expireLatches ends those whose time is over.
func (l *Loop) expireLatches(g *group) {
	l.endHolders(g, func(h *latch) bool { return h.until <= l.now })
}

func errUnlatched(g *group) error {
	return &base.Throttled{What: "a latch of " + g.id.String() + " that was let go", RetryAfter: base.ThrottleRetry}
}

// endHolders ends some of those that hold the range. With the last of them what was kept back goes on, and those that waited
// behind it hold the range next.
func (l *Loop) endHolders(g *group, which func(*latch) bool) {
	s := g.latches
	left := s.holders[:0]
	for _, h := range s.holders {
		if !which(&h) {
			left = append(left, h)
		} else if !h.granted {
			l.refuseLatch(&Latch{Range: g.id, ID: h.id, Waiter: h.waiter}, errUnlatched(g))
		}
	}
	s.holders = left
	if len(left) == 0 {
		g.latches = nil
		for i := range s.kept {
			l.enter(g, &s.kept[i])
		}
		for i := range s.queue {
			l.hold(g, &s.queue[i])
		}
		l.touch(g)
	}
	l.retimeLatches(g)
}

// endLatches ends all that a leader has of latches when it leads no more. What was kept back was certainly not proposed.
func (l *Loop) endLatches(g *group, why error) {
	s := g.latches
	if s == nil {
		return
	}
	g.latches = nil
	for i := range s.holders {
		if h := &s.holders[i]; !h.granted {
			l.refuseLatch(&Latch{Range: g.id, ID: h.id, Waiter: h.waiter}, why)
		}
	}
	for i := range s.queue {
		l.refuseLatch(&s.queue[i], why)
	}
	for i := range s.kept {
		l.fail(s.kept[i].ID, why)
	}
	l.retimeLatches(g)
}

func (l *Loop) refuseLatch(x *Latch, err error) {
	l.eff.Latched = append(l.eff.Latched, Latched{Range: x.Range, ID: x.ID, Waiter: x.Waiter, Err: err})
}

// retimeLatches sets the time at which the first of the latches runs out.
func (l *Loop) retimeLatches(g *group) {
	g.latchAt = base.Never
	if g.latches != nil {
		for i := range g.latches.holders {
			g.latchAt = min(g.latchAt, g.latches.holders[i].until)
		}
	}
	l.retime(g)
}
