package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
)

// entry is a decision on its way: made, then reserved on every node that is to take a replica, then directed, then done or given
// up; if it was directed until then, withdrawn (withdraw.go). Nothing in it is stored; what is lost is asked for again.
type entry struct {
	id       base.RangeID
	keyspace base.KeyspaceID
	seq      uint64
	decision allocator.Decision
	op       uint64
	since    base.Instant
	moved    base.Instant         // when there was progress last
	seen     uint64               // the generation that was seen last
	asked    map[base.NodeID]*ask // reservations, of the nodes that are to take a replica
	direct   ask
	to       base.NodeID  // whom the directive was sent to last
	follows  bool         // the leader said so
	followed base.Instant // when it did first
	served   bool         // it said that it is where it was directed to
	doing    string       // what it did last
	waiting  string       // what it waits for, or why it could not be asked
	sent     uint64       // bytes of a snapshot under way
	size     uint64
	given    *givenUp // nil: it goes on
}

// ask is something that is asked for again and again.
type ask struct {
	next    base.Instant // when it is to be sent
	first   base.Instant // when the oldest that is not answered was sent; 0: all are answered
	last    base.Instant // when the newest was sent
	holds   base.Instant // until when what was granted holds, counted from when it was asked for
	refused string
}

func (a *ask) sent(now base.Instant, renew time.Duration) {
	if a.first == 0 {
		a.first = now
	}
	a.last, a.next = now, now.Add(renew)
}

// open takes a decision into the ledger; nil if the range is another by now.
func (d *Decider) open(dec allocator.Decision) *entry {
	r := d.ranges[dec.Range]
	if r == nil || d.ledger[dec.Range] != nil || base.Generation(r.desc.Generation) != dec.Generation {
		return nil
	}
	d.seq++
	e := &entry{id: dec.Range, keyspace: base.KeyspaceID(r.desc.KeyspaceId), seq: d.seq, decision: dec, since: d.now, moved: d.now, seen: r.desc.Generation,
		asked: make(map[base.NodeID]*ask)}
	for _, n := range dec.Adds {
		if desc.ReplicaOn(r.desc, n) == nil {
			e.asked[n] = &ask{}
		}
	}
	if op := d.wanted[dec.Range]; op != nil && dec.Goal == allocator.GoalWanted {
		e.op = op.OpId
	}
	d.ledger[dec.Range] = e
	d.snap.Begin(dec)
	d.event(e, Decided, describe(&dec))
	return e
}

// end takes an entry out, and lets go of what it has reserved.
func (d *Decider) end(e *entry, kind EventKind, what string) {
	d.close(e)
	d.event(e, kind, what)
}

func (d *Decider) close(e *entry) {
	for _, n := range slices.Sorted(maps.Keys(e.asked)) {
		if e.asked[n].last != 0 {
			d.send(Action{Node: n, Range: e.id, Seq: e.seq, Reserve: &rangepb.Reserve{Decider: uint64(d.cfg.Node), Seq: e.seq, RangeId: uint64(e.id), Release: true}})
		}
	}
	delete(d.ledger, e.id)
	d.snap.End(e.id)
	d.hurry()
}

func (d *Decider) event(e *entry, kind EventKind, what string) {
	ev := Event{Kind: kind, Range: e.id, Seq: e.seq, Generation: e.decision.Generation, Goal: e.decision.Goal, What: what, Reason: e.decision.Reason}
	switch kind {
	case Decided:
		ev.Scores = e.decision.Scores
	case Done, GivenUp, Withdrawn:
		ev.Took = d.now.Sub(e.since)
	}
	d.events = append(d.events, ev)
}

// describe says in words what is to be done.
func describe(dec *allocator.Decision) string {
	var parts []string
	add := func(what string, nodes []base.NodeID) {
		if len(nodes) > 0 {
			parts = append(parts, what+" "+list(nodes))
		}
	}
	add("a replica on", dec.Adds)
	add("none on", dec.Removes)
	if dec.Leader != 0 {
		parts = append(parts, fmt.Sprintf("led by %s", dec.Leader))
	}
	if len(parts) == 0 {
		return "leave a change that was left behind"
	}
	return strings.Join(parts, ", ")
}

func list(nodes []base.NodeID) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.String()
	}
	return strings.Join(names, " and ")
}

// settled says whether a range is as was decided, by its descriptor; of who leads, the descriptor says nothing.
func settled(m *metapb.RangeDescriptor, dec *allocator.Decision) bool {
	if desc.Joint(m) {
		return false
	}
	for _, r := range m.Replicas {
		if r.Role == metapb.ReplicaRole_REPLICA_ROLE_LEARNER {
			return false
		}
	}
	return len(dec.Voters) == 0 || slices.Equal(change.Voters(m), dec.Voters)
}

// step moves one entry on.
func (d *Decider) step(e *entry) {
	r := d.ranges[e.id]
	if e.given != nil {
		d.withdraw(e, r)
		return
	}
	if r.desc.Generation != e.seen {
		e.seen, e.moved = r.desc.Generation, d.now
	}
	if settled(r.desc, &e.decision) && (e.decision.Leader == 0 || e.served || r.leader == e.decision.Leader) {
		d.end(e, Done, describe(&e.decision))
		return
	}
	if n := overtaken(e, r); n != 0 {
		// No step of its own removes what it wants: nobody can follow it any more.
		d.end(e, GivenUp, fmt.Sprintf("the range has been changed by others: %s was to stay and is gone", n))
		return
	}
	if why := d.needless(e, r); why != "" {
		d.giveUp(e, why, 0)
		return
	}
	if why := d.hopeless(e, r); why != "" {
		d.giveUp(e, why, base.DecidePause) // what stands against it stands for a while
		return
	}
	d.reserve(e, r)
	if e.follows && r.leader != e.to && r.leader != 0 {
		e.direct.next = d.now // another leads, who has heard of nothing
	}
	if d.unreserved(e, r) == "" && d.now >= e.direct.next {
		e.direct.sent(d.now, base.DirectRenew)
		e.to = r.leader
		d.send(Action{Node: r.leader, Range: e.id, Seq: e.seq, Descriptor: r.desc, Direct: &rangepb.Directive{
			Decider: uint64(d.cfg.Node), Seq: e.seq, ExpectedGeneration: uint64(e.decision.Generation), Voters: numbers(e.decision.Voters),
			Leader: uint64(e.decision.Leader), Reason: e.decision.Reason, TimeoutMicros: uint64(base.DirectTimeout / time.Microsecond), OpId: e.op,
		}})
	}
}

// send has something sent when Step returns.
func (d *Decider) send(a Action) { d.queue = append(d.queue, a) }

// overtaken is a node whose replica was to stay, and is gone; 0: there is none.
func overtaken(e *entry, r *known) base.NodeID {
	for _, n := range e.decision.Voters {
		if e.asked[n] == nil && desc.ReplicaOn(r.desc, n) == nil {
			return n
		}
	}
	return 0
}

// hopeless says why a decision cannot be carried out; empty: it can.
func (d *Decider) hopeless(e *entry, r *known) string {
	for _, n := range e.decision.Adds {
		rep := desc.ReplicaOn(r.desc, n)
		if rep != nil && rep.Role != metapb.ReplicaRole_REPLICA_ROLE_LEARNER {
			continue
		}
		if why := d.unfit(n, rep == nil); why != "" {
			return fmt.Sprintf("%s %s", n, why)
		}
	}
	if n := d.nodes[e.decision.Leader]; e.decision.Leader != 0 && (n == nil || n.view.State != allocator.Active || n.view.Draining) {
		return fmt.Sprintf("%s is to lead nothing any more", e.decision.Leader)
	}
	switch {
	case e.direct.last == 0 && d.now.Sub(e.since) >= base.ReservePatience:
		return d.unreserved(e, r)
	case d.now.Sub(e.moved) >= base.DecidePatience:
		return fmt.Sprintf("nothing has come of it for %s: %s", base.DecidePatience, d.waits(e))
	}
	return ""
}

// unfit says why a node can no longer take a replica that was decided on; fresh: it has nothing of it yet.
func (d *Decider) unfit(id base.NodeID, fresh bool) string {
	n := d.nodes[id]
	switch {
	case n == nil:
		return "is no member any more"
	case n.view.State != allocator.Active && n.view.State != allocator.Suspect:
		return fmt.Sprintf("is no longer active: %s", n.record.Reason)
	case fresh && n.view.State == allocator.Suspect:
		return "may be gone"
	case fresh && n.view.Cordoned:
		return "was cordoned"
	}
	return ""
}

// needless says why there is no longer a reason for a decision; empty: there is. Once a replica has gone the rest follows.
func (d *Decider) needless(e *entry, r *known) string {
	if op := d.wanted[e.id]; e.decision.Goal == allocator.GoalWanted && (op == nil || op.OpId != e.op) {
		return "it is asked for no more"
	}
	if len(e.decision.Removes) == 0 || desc.Joint(r.desc) {
		return ""
	}
	for _, id := range e.decision.Removes {
		if n := d.nodes[id]; n == nil || !n.stays(e.decision.Goal) || !voted(r.desc, id) {
			return ""
		}
	}
	if e.decision.Goal == allocator.GoalDrain {
		return fmt.Sprintf("%s is to stay", list(e.decision.Removes))
	}
	return fmt.Sprintf("%s came back", list(e.decision.Removes))
}

// stays says whether a node has no longer what a goal takes replicas from it for.
func (n *node) stays(g allocator.Goal) bool {
	switch g {
	case allocator.GoalQuorum, allocator.GoalReplace:
		return n.view.State == allocator.Active
	case allocator.GoalDrain:
		return n.view.State == allocator.Active && n.view.Slow == ""
	}
	return false
}

// reserve asks for what an entry needs, and renews what it has until the replica is a voter.
func (d *Decider) reserve(e *entry, r *known) {
	for _, n := range slices.Sorted(maps.Keys(e.asked)) {
		a := e.asked[n]
		if d.now < a.next || voted(r.desc, n) {
			continue
		}
		a.sent(d.now, base.ReserveRenew)
		d.send(Action{Node: n, Range: e.id, Seq: e.seq, Descriptor: r.desc, Reserve: &rangepb.Reserve{
			Decider: uint64(d.cfg.Node), Seq: e.seq, RangeId: uint64(e.id), Bytes: uint64(e.decision.Bytes),
			TimeoutMicros: uint64(base.ReserveTimeout / time.Microsecond), Urgent: urgent(e.decision.Goal),
		}})
	}
}

// urgent is what goes before what is merely better placed.
func urgent(g allocator.Goal) bool { return g >= allocator.GoalJoint && g <= allocator.GoalFactor }

func voted(m *metapb.RangeDescriptor, n base.NodeID) bool {
	rep := desc.ReplicaOn(m, n)
	if rep == nil {
		return false
	}
	inNew, _ := desc.Votes(rep.Role)
	return inNew
}

// unreserved says which place an entry lacks; empty: it may be directed. A replica that is there needs no promise any more.
func (d *Decider) unreserved(e *entry, r *known) string {
	for _, n := range slices.Sorted(maps.Keys(e.asked)) {
		a := e.asked[n]
		switch {
		case desc.ReplicaOn(r.desc, n) != nil || d.now < a.holds || mutant.Is(mutant.ReservationIgnored):
		case a.refused != "":
			return fmt.Sprintf("%s %s", n, a.refused)
		default:
			return fmt.Sprintf("%s has not answered yet whether it takes a replica", n)
		}
	}
	return ""
}

// waits says what an entry waits for.
func (d *Decider) waits(e *entry) string {
	if e.given != nil {
		return fmt.Sprintf("given up: %s; waiting until the range's leader follows it no more", e.given.why)
	}
	if why := d.unreserved(e, d.ranges[e.id]); why != "" {
		return "waiting because " + why
	}
	switch {
	case e.waiting != "":
		return "waiting because " + e.waiting
	case !e.follows:
		return "waiting for the range's leader to answer"
	}
	return ""
}

// Reserved takes in what a node answered to a Reserve; err: it could not be asked, or did not answer.
func (d *Decider) Reserved(id base.RangeID, n base.NodeID, seq uint64, m *rangepb.Reservation, err error, now base.Instant) {
	d.news(now)
	e := d.ledger[id]
	if e == nil || e.seq != seq || e.asked[n] == nil {
		return
	}
	a := e.asked[n]
	first := a.first
	a.first = 0
	switch {
	case err != nil:
		a.refused, a.next = fmt.Sprintf("does not answer: %v", err), now.Add(base.DecideRetry)
	case m.GetGranted():
		if first != 0 {
			a.holds = first.Add(base.ReserveTimeout)
		}
		a.refused = ""
	default:
		a.holds, a.refused = 0, m.GetRefused()
		a.next = now.Add(max(time.Duration(m.GetRetryAfterMicros())*time.Microsecond, base.DecideRetry))
	}
}

// Directed takes in what the range's leader answered to a Direct; err: nobody was found that leads it, or it did not answer. by is
// the node that answered.
func (d *Decider) Directed(id base.RangeID, seq uint64, by base.NodeID, m *rangepb.DirectiveAnswer, err error, now base.Instant) {
	d.news(now)
	if m.GetDescriptor_().GetRangeId() == uint64(id) && d.ranges[id] != nil {
		d.Learn(m.Descriptor_)
	}
	e := d.ledger[id]
	if e == nil || e.seq != seq {
		return
	}
	if e.given != nil {
		d.withdrawn(e, by, m, err)
		return
	}
	switch {
	case err != nil:
		e.waiting, e.direct.next = fmt.Sprintf("the range's leader does not answer: %v", err), now.Add(base.DecideRetry)
	case m.GetRefused() == "":
		if !e.follows {
			e.follows, e.followed = true, now
			d.expect(e)
			d.event(e, Directed, fmt.Sprintf("%s follows it", by))
		}
		if m.BytesSent > e.sent {
			e.moved = now
		}
		e.doing, e.waiting, e.served, e.sent, e.size = m.Doing, m.Waiting, m.Done, m.BytesSent, m.BytesTotal
	case settled(d.ranges[id].desc, &e.decision) && (e.decision.Leader == 0 || e.decision.Leader == by):
		e.served = true // by a leader of before: the one that refuses has not heard of it
	case m.GetDescriptor_().GetGeneration() > uint64(e.decision.Generation):
		// Nobody can follow it any more: what is decided next is decided on what has become of the range.
		d.end(e, GivenUp, fmt.Sprintf("%s: %s", by, m.Refused))
	default:
		e.follows, e.waiting = false, fmt.Sprintf("%s: %s", by, m.Refused)
	}
}
