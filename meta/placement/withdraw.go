package placement

import (
	"fmt"
	"time"

	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// What is given up once it was directed is withdrawn: the range's leader is told so until it says that nothing of it is followed any
// more, and nothing on its way. Until then nothing else is decided for the range, nothing is evened out anywhere, and the nodes keep
// what they have reserved, for replicas may still be moved. A leader that cannot be asked, or does not know of withdrawals, forgets the
// directive by itself: that is waited for.
//
// A Decider that ends withdraws nothing. It need not know that it has: what it would send could as well come from one that goes on.
// The next one listens for as long as a directive holds before it decides.

// givenUp is why an entry is to end.
type givenUp struct {
	why  string
	rest base.Instant // until when the range is left alone after that
	next base.Instant // when its leader is to be told
}

// forgotten is how long after a directive was sent a leader may still follow it: it may take as long to come as an answer is waited for.
const forgotten = base.DirectTimeout + base.DecideAskTimeout

// giveUp ends an entry, at once if nobody can follow it, and leaves the range alone for a while.
func (d *Decider) giveUp(e *entry, why string, alone time.Duration) {
	e.given = &givenUp{why: why, rest: d.now.Add(alone), next: d.now}
	d.event(e, GivenUp, why)
	if e.direct.last == 0 {
		d.close(e)
		d.rest(e)
		return
	}
	d.snap.Doubt(e.id)
	d.withdraw(e, d.ranges[e.id])
}

// withdraw has the range's leader told, unless it has forgotten by now.
func (d *Decider) withdraw(e *entry, r *known) {
	if d.now >= e.direct.last.Add(forgotten) {
		d.end(e, Withdrawn, fmt.Sprintf("nobody has renewed it for %s", forgotten))
		d.rest(e)
		return
	}
	if d.now < e.given.next {
		return
	}
	e.given.next = d.now.Add(base.DirectRenew)
	d.send(Action{Node: r.leader, Range: e.id, Seq: e.seq, Descriptor: r.desc, Direct: &rangepb.Directive{
		Decider: uint64(d.cfg.Node), Seq: e.seq, ExpectedGeneration: uint64(e.decision.Generation), Voters: numbers(e.decision.Voters),
		Leader: uint64(e.decision.Leader), Reason: e.given.why, OpId: e.op, Withdraw: true,
	}})
}

// withdrawn takes in what was answered to that, or to a directive of before.
func (d *Decider) withdrawn(e *entry, by base.NodeID, m *rangepb.DirectiveAnswer, err error) {
	switch {
	case err != nil:
		e.given.next = min(e.given.next, d.now.Add(base.DecideRetry))
	case m.GetWithdrawn():
		d.end(e, Withdrawn, fmt.Sprintf("%s does not follow it", by))
		d.rest(e)
	default: // a step of it is on its way, or the question was another
		e.given.next = min(e.given.next, d.now.Add(base.DecideSoon))
	}
}

// rest leaves the range of an entry that has ended alone, as long as what stood against the decision is held to stand.
func (d *Decider) rest(e *entry) {
	if e.given.rest > d.now {
		d.pauses[e.id] = pause{e.given.rest, fmt.Sprintf("%s was given up a moment ago: %s", describe(&e.decision), e.given.why)}
		d.put(e.id)
	}
}
