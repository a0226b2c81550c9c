// Package retention decides when which history is compacted without anybody asking: etcd's automatic compaction, with its modes and
// its times, for ranges that each have revisions of their own. It is stepped: what a node sees of the ranges that it leads goes in,
// and what is to be compacted comes out. It remembers revisions in memory, as etcd does: whoever leads a range anew keeps its history
// for the whole period once more.
package retention

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cairndb/cairn/internal/base"
)

// Mode says what the retention is measured in.
type Mode string

// etcd's modes.
const (
	Off      Mode = ""
	Periodic Mode = "periodic" // time
	Revision Mode = "revision" // revisions
)

// Policy is how much history is kept. The zero value keeps all.
type Policy struct {
	Mode      Mode
	Period    time.Duration
	Revisions int64
}

// Parse reads etcd's --auto-compaction-mode and --auto-compaction-retention: of periodic a number is hours; 0 is off.
func Parse(mode, retention string) (Policy, error) {
	p := Policy{Mode: Mode(mode)}
	if p.Mode == Off {
		p.Mode = Periodic
	}
	n, err := strconv.ParseInt(retention, 10, 64)
	switch {
	case p.Mode != Periodic && p.Mode != Revision:
		return Policy{}, fmt.Errorf("the mode %q is not known: give periodic or revision", mode)
	case retention == "" || err == nil && n == 0:
		return Policy{}, nil
	case err == nil && n < 0 || err != nil && p.Mode == Revision:
		return Policy{}, fmt.Errorf("%q cannot be kept: give a number of revisions, or of hours, or a time such as 30m", retention)
	case err == nil && p.Mode == Revision:
		p.Revisions = n
		return p, nil
	case err == nil && n > int64(base.RetentionMax/time.Hour):
		return Policy{}, fmt.Errorf("%d hours are longer than can be kept", n)
	case err == nil:
		p.Period = time.Duration(n) * time.Hour
	default:
		if p.Period, err = time.ParseDuration(retention); err != nil {
			return Policy{}, fmt.Errorf("%q is no time: give a number of hours, or a time such as 30m", retention)
		}
	}
	if p.Period == 0 {
		return Policy{}, nil
	}
	if p.Period < base.RetentionMin || p.Period > base.RetentionMax {
		return Policy{}, fmt.Errorf("history is kept for at least %s and at most %s, and not for %s", base.RetentionMin, base.RetentionMax, p.Period)
	}
	return p, nil
}

// Range is what is seen of a range that this node leads.
type Range struct {
	ID                  base.RangeID
	Timed               bool // its revisions are microseconds since the cluster was made
	Revision, Compacted base.Revision
}

// Decision is a compaction that is due.
type Decision struct {
	ID       base.RangeID
	Revision base.Revision
}

// Keeper decides for one node. The zero value is not usable.
type Keeper struct {
	policy Policy
	ranges map[base.RangeID]*seen
}

// seen is what is remembered of a range.
type seen struct {
	since  base.Instant  // when it was last compacted, or first seen
	begun  bool          // it was compacted since
	looks  []look        // of a single keyspace; the oldest first; the first one is at least a period old once there is such a one
	due    base.Revision // what was decided last; 0: nothing
	dueAt  base.Instant
	looked bool // this step has met it
}

// look is where a range was.
type look struct {
	at  base.Instant
	rev base.Revision
}

// New makes a keeper.
func New(p Policy) (*Keeper, error) {
	if p.Mode != Periodic && p.Mode != Revision || p.Mode == Periodic && p.Period <= 0 || p.Mode == Revision && p.Revisions <= 0 {
		return nil, errors.New("retention: there is nothing to keep to")
	}
	return &Keeper{policy: p, ranges: make(map[base.RangeID]*seen)}, nil
}

// looksInPeriod is how often a period is looked at, as etcd does.
const looksInPeriod = 10

// Interval is the time between two looks, which are steps.
func (k *Keeper) Interval() time.Duration {
	if k.policy.Mode == Revision {
		return base.RetentionRevisionInterval
	}
	return k.between() / looksInPeriod
}

// between is the time between two compactions of a range.
func (k *Keeper) between() time.Duration { return min(k.policy.Period, time.Hour) }

// Step looks at all ranges that this node leads; micros is the time since the cluster was made. What is due and is not done, or refused, is
// due again at the next look.
func (k *Keeper) Step(now base.Instant, micros int64, led []Range) (due []Decision) {
	for i := range led {
		r := &led[i]
		rev := base.Revision(0)
		switch {
		case r.Timed && k.policy.Mode == Periodic:
			rev = k.byTime(now, micros, r)
		case r.Timed: // so many revisions are so many microseconds: nobody means that
		case k.policy.Mode == Periodic:
			rev = k.byLooks(now, r)
		default:
			rev = r.Revision - base.Revision(k.policy.Revisions)
		}
		if rev > 0 && rev > r.Compacted {
			due = append(due, Decision{r.ID, rev})
		}
	}
	for id, s := range k.ranges {
		if !s.looked {
			delete(k.ranges, id) // another leads it now, or it is no more
		}
		s.looked = false
	}
	return due
}

// meet is what is remembered of a range that this step meets. What was decided of it last and has come about is a compaction of then.
func (k *Keeper) meet(now base.Instant, r *Range) *seen {
	s := k.ranges[r.ID]
	if s == nil {
		s = &seen{since: now}
		k.ranges[r.ID] = s
	}
	s.looked = true
	if s.due > 0 && r.Compacted >= s.due {
		s.since, s.begun, s.due = s.dueAt, true, 0
	}
	return s
}

// byTime is how far a range is to be compacted whose revisions are times; 0: not now. Its mark says how long ago it was moved, to whoever
// leads it anew too, unless nothing was left to compact: then it stands at the last write, which may be older by any time, and what is
// remembered counts.
func (k *Keeper) byTime(now base.Instant, micros int64, r *Range) base.Revision {
	s := k.meet(now, r)
	horizon := base.Revision(micros - (k.policy.Period + time.Microsecond - 1).Microseconds())
	if horizon-r.Compacted < base.Revision(k.between().Microseconds()) || s.begun && now.Sub(s.since) < k.between() {
		return 0
	}
	rev := min(horizon, r.Revision) // nothing was written since: then it is done with
	if rev > r.Compacted {
		s.due, s.dueAt = rev, now
	}
	return rev
}

// byLooks is how far a range is to be compacted whose revisions count: to where it was a period ago, or 0.
func (k *Keeper) byLooks(now base.Instant, r *Range) base.Revision {
	s := k.meet(now, r)
	wait := k.policy.Period
	if s.begun {
		wait = k.between()
	}
	s.looks = append(s.looks, look{now, r.Revision})
	old := 0
	for old+1 < len(s.looks) && now.Sub(s.looks[old+1].at) >= k.policy.Period {
		old++
	}
	s.looks = s.looks[old:]
	first := s.looks[0]
	if now.Sub(s.since) < wait || now.Sub(first.at) < k.policy.Period || first.rev <= r.Compacted {
		return 0
	}
	s.due, s.dueAt = first.rev, now
	return first.rev
}
