// Package lessor says when the leases of a range's clients have ended (RFC 6). A Lessor is what the leader of a range remembers of the leases
// that live there: until when each lasts. It is stepped: instants are handed in, and what is to be revoked comes out. It lives as long as the
// leadership. Nothing of it is replicated, so that a keep-alive costs no entry of a log.
//
// No lease ends early. The lessor measures not the time that has passed but the time that its node has lived through, in which a client could
// have kept its lease alive: a step that comes late by more than base.LessorLate says that the node, or what it waited for, stood still, and a
// step at which the range's own lease does not hold says that nobody was answered here. Neither counts, for any lease. A new leader gives each lease its
// whole TTL again, for it does not know what its predecessor was told. Only a leader whose lease holds proposes a revoke, and that can only be committed in
// its own term.
//
// Every lease ends that nobody keeps alive: a revoke that is not known to have happened is proposed again, and so is one that somebody began and did
// not end. Those under way are bounded, so that ten thousand leases that end at once are a queue and no storm.
package lessor

import (
	"math"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// GrantTTL is the TTL in seconds that a client gets who asks for one, as in etcd.
func GrantTTL(asked int64) (int64, error) {
	if asked > base.LeaseMaxTTL {
		return 0, rpctypes.ErrGRPCLeaseTTLTooLarge
	}
	return max(asked, base.LeaseMinTTL), nil
}

// Lessor is one leadership of one range. Not safe for concurrent use.
type Lessor struct {
	leases map[int64]*lease

	// lived is how much of the time up to last counts, and valid that the range's lease held then.
	lived time.Duration
	last  base.Instant
	valid bool

	alive queue // by the time lived through at which they are looked at
	later queue // by the instant at which they are due: what is out, and what waits
	due   []*lease
	out   int // revokes under way
}

type state uint8

const (
	alive   state = iota + 1 // in Lessor.alive
	due                      // in Lessor.due: to be revoked
	out                      // in Lessor.later: being revoked, and due again if nothing is heard of that
	waiting                  // in Lessor.later: due after a pause
	gone                     // nowhere, or still in Lessor.due
)

// lease is what is remembered of one, about a hundred bytes.
type lease struct {
	id, granted, ttl int64
	deadline         time.Duration // of the time lived through
	at               int64         // its place in the queue where it is; alive: no later than the deadline
	index            int           // there
	state            state
	ending           bool // somebody has begun to revoke it
}

// Revoke is a lease to be revoked: by its id and the number of its grant.
type Revoke struct{ ID, Granted int64 }

// New begins a leadership, which has applied an entry of its own term. Load comes next.
func New(now base.Instant) *Lessor { return &Lessor{leases: make(map[int64]*lease), last: now} }

// Len is how many leases there are.
func (l *Lessor) Len() int { return len(l.leases) }

// Load tells of leases that live in the range as it is read: when a leadership begins, or once a merge has brought some. Those that are not known
// have their whole TTL from now on.
func (l *Lessor) Load(leases []*kvpb.LeaseRecord, now base.Instant) {
	for _, rec := range leases {
		e := l.changed(rec, now)
		if e == nil {
			continue
		}
		if mutant.Is(mutant.LeaseExpiresAtElection) {
			e.deadline, e.at = 0, 0
			l.alive.fix(e)
		}
		if e.ending {
			l.delay(e, now) // whoever began to revoke it may be gone as the last leader is
		}
	}
}

// Changed tells of a lease that was granted, or is another now. What is older than what is known, and what is known already, changes nothing.
func (l *Lessor) Changed(rec *kvpb.LeaseRecord, now base.Instant) { l.changed(rec, now) }

// changed returns the lease if it was not known.
func (l *Lessor) changed(rec *kvpb.LeaseRecord, now base.Instant) *lease {
	e := l.leases[rec.Id]
	if e != nil && e.granted > rec.GrantedRevision {
		return nil
	}
	if e != nil && e.granted < rec.GrantedRevision {
		l.remove(e)
		e = nil
	}
	isNew := e == nil
	if isNew {
		e = &lease{id: rec.Id, granted: rec.GrantedRevision, ttl: rec.Ttl, state: alive}
		l.leases[e.id] = e
		l.extend(e, now)
		e.at = int64(e.deadline)
		l.alive.push(e)
	}
	if rec.Ending && !e.ending {
		e.ending = true
		if e.state == alive {
			l.delay(e, now.Add(base.LeaseEndingPatience))
		}
	}
	if isNew {
		return e
	}
	return nil
}

// Gone tells that a lease was revoked.
func (l *Lessor) Gone(id, granted int64) {
	if e := l.leases[id]; e != nil && e.granted <= granted {
		l.remove(e)
	}
}

// Retain forgets the leases that do not live in the range any more: it was split.
func (l *Lessor) Retain(here func(id int64) bool) {
	for id, e := range l.leases {
		if !here(id) {
			l.remove(e)
		}
	}
}

// KeepAlive gives a lease its whole TTL again, and returns that in seconds. 0: its time is over; if it is ending, it has not been revoked yet
// as far as is known, and if not, there is no such lease. It may only be called while the range's lease holds.
func (l *Lessor) KeepAlive(id int64, now base.Instant) (ttl int64, ending bool) {
	e := l.leases[id]
	switch {
	case e == nil:
		return 0, false
	case e.state != alive:
		return 0, true
	case e.deadline <= l.livedAt(now):
		l.end(e) // whoever was told so waits for its end: it comes, whatever the next step says of this moment
		return 0, true
	}
	l.extend(e, now) // its place in the queue follows when it is looked at
	return e.ttl, false
}

// Remaining is what is left of a lease: 0 if its time is over and it is not revoked yet. False: there is no such lease. It may only be called
// while the range's lease holds.
func (l *Lessor) Remaining(id int64, now base.Instant) (time.Duration, bool) {
	e := l.leases[id]
	if e == nil {
		return 0, false
	}
	if e.state != alive {
		return 0, true
	}
	return max(0, e.deadline-l.livedAt(now)), true
}

// Failed tells that a revoke that was asked for did not end the lease, as far as its proposer knows.
func (l *Lessor) Failed(r Revoke, now base.Instant) {
	if e := l.leases[r.ID]; e != nil && e.granted == r.Granted && e.state == out {
		l.delay(e, now.Add(base.LeaseRevokeRetry))
	}
}

// Step returns what is to be revoked now, and when it is to be called next if nothing else happens before. validUntil is until when the
// range's lease holds, as far as is known. Call it after Gone and Failed too: others may wait for their turn.
func (l *Lessor) Step(now, validUntil base.Instant) (revokes []Revoke, wake base.Instant) {
	l.advance(now, now < validUntil)
	if len(l.leases) == 0 {
		return nil, base.Never
	}
	if !l.valid {
		return nil, now.Add(base.LessorInterval)
	}
	for len(l.later) > 0 && l.later[0].at <= int64(now) {
		l.end(l.later[0])
	}
	wake = now.Add(base.LessorInterval)
	for looks := 0; l.out < base.LeaseRevokesAtOnce; {
		e := l.nextDue()
		if e == nil {
			if len(l.alive) == 0 || l.alive[0].at > int64(l.lived) {
				break
			}
			if looks++; looks > base.LessorLooks {
				return revokes, now
			}
			l.look(l.alive[0])
			continue
		}
		e.state, e.at = out, int64(now.Add(base.LeaseRevokePatience))
		l.later.push(e)
		l.out++
		revokes = append(revokes, Revoke{e.id, e.granted})
	}
	return revokes, l.wake(now, wake)
}

func (l *Lessor) wake(now, wake base.Instant) base.Instant {
	if len(l.alive) > 0 && l.out < base.LeaseRevokesAtOnce {
		wake = min(wake, now.Add(max(base.LessorSoonest, time.Duration(l.alive[0].at)-l.lived)))
	}
	if len(l.later) > 0 {
		wake = min(wake, base.Instant(l.later[0].at))
	}
	return wake
}

// advance counts the time since the last step, if it was lived through.
func (l *Lessor) advance(now base.Instant, valid bool) {
	if l.valid && valid || mutant.Is(mutant.LeaseExpiresInPause) {
		l.lived = l.livedAt(now)
	}
	l.last, l.valid = max(l.last, now), valid
}

// livedAt is how much time will have counted at an instant, if nothing speaks against it: so much at most.
func (l *Lessor) livedAt(now base.Instant) time.Duration {
	gap := max(0, now.Sub(l.last))
	if gap > base.LessorLate && !mutant.Is(mutant.LeaseExpiresInPause) {
		return l.lived
	}
	return l.lived + gap
}

func (l *Lessor) extend(e *lease, now base.Instant) {
	lived, ttl := l.livedAt(now), time.Duration(e.ttl)*time.Second
	if lived > math.MaxInt64-ttl {
		lived = math.MaxInt64 - ttl // centuries
	}
	e.deadline = lived + ttl
}

// look is at a lease that was to be looked at: it has ended, or was kept alive since.
func (l *Lessor) look(e *lease) {
	if e.deadline > l.lived {
		e.at = int64(e.deadline)
		l.alive.fix(e)
		return
	}
	l.end(e)
}

// end has a lease revoked: it was not kept alive, or has waited, or nothing was heard of a revoke of it.
func (l *Lessor) end(e *lease) {
	l.leave(e)
	e.state = due
	l.due = append(l.due, e)
}

// delay has a lease wait before it is due.
func (l *Lessor) delay(e *lease, until base.Instant) {
	l.leave(e)
	e.state, e.at = waiting, int64(until)
	l.later.push(e)
}

func (l *Lessor) nextDue() *lease {
	for len(l.due) > 0 {
		e := l.due[0]
		l.due[0] = nil
		if l.due = l.due[1:]; e.state == due {
			return e
		}
	}
	l.due = nil
	return nil
}

func (l *Lessor) remove(e *lease) {
	l.leave(e)
	e.state = gone
	delete(l.leases, e.id)
}

// leave takes a lease out of the queue where it is.
func (l *Lessor) leave(e *lease) {
	switch e.state {
	case alive:
		l.alive.remove(e)
	case out:
		l.out--
		l.later.remove(e)
	case waiting:
		l.later.remove(e)
	}
}
