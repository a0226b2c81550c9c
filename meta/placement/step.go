package placement

import (
	"maps"
	"slices"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
)

// Step plans if it is time to, and returns what is to be sent now and what is to be logged. It is called when Wake is reached and
// when an answer has come, and may be called at any time.
func (d *Decider) Step(now base.Instant) (out []Action, events []Event) {
	if d.now, d.due = now, false; !d.started {
		d.started, d.planned = true, now.Add(base.DecideGrace)
	}
	d.reports()
	d.risen()
	if !d.decided && d.cfg.First && d.heard() {
		d.planned = now
	}
	for _, id := range slices.Sorted(maps.Keys(d.pauses)) {
		if now >= d.pauses[id].until {
			delete(d.pauses, id)
			d.put(id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.ledger)) {
		d.step(d.ledger[id])
	}
	if d.told && now >= d.planned {
		d.planned, d.last = now.Add(base.DecideInterval), now
		d.plan()
	}
	out, d.queue = d.queue, nil
	events, d.events = d.events, nil
	return out, events
}

// heard says whether every node has said how the ranges are that it leads: there is nothing more to listen for.
func (d *Decider) heard() bool {
	for _, n := range d.nodes {
		if n.version == 0 && !gone(n.record.State) {
			return false
		}
	}
	return d.told
}

// hurry has the next pass come soon: there is more to decide than there was.
func (d *Decider) hurry() {
	if d.decided {
		d.planned = min(d.planned, max(d.now, d.last.Add(base.DecideSoon)))
	}
}

// plan asks the planner what is to be done, and takes it into the ledger.
func (d *Decider) plan() {
	d.decided = true
	decisions, withheld := allocator.Decide(d.snap, d.rand.Uint64(), d.policy.Moves)
	d.withheld = withheld
	unseen := d.snap.Unseen() > 0
	if unseen {
		d.hurry() // a pass looks at a part of what is new
	}
	switch {
	case len(decisions) > 0 || len(d.ledger) > 0 || unseen:
		d.rests = 0
	case d.rests == 0:
		d.rests = d.now
	}
	d.tell()
	d.guard()
	for _, dec := range decisions {
		if e := d.open(dec); e != nil {
			d.step(e)
		}
	}
}

// guard gives up what was decided and not begun when so many nodes come to fail that it would not be decided any more.
func (d *Decider) guard() {
	for _, w := range d.withheld {
		if !w.Guard {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(d.ledger)) {
			e := d.ledger[id]
			if e.given == nil && e.decision.Goal == w.Goal && d.ranges[id].desc.Generation == uint64(e.decision.Generation) {
				d.giveUp(e, w.Reason, base.DecidePause)
			}
		}
	}
}

// waiting is why the ranges of a goal wait, and since when.
type waiting struct {
	since base.Instant
	why   string
	told  bool
}

// tell makes events of goals that wait: once when they have for long, or because many nodes fail, and once when they do no more. What
// waits for its turn is no event.
func (d *Decider) tell() {
	held := make(map[allocator.Goal]waiting)
	for _, w := range d.withheld {
		h, ok := d.held[w.Goal]
		if !ok {
			h.since = d.now
		}
		if h.why = w.Reason; !h.told && (w.Guard || d.now.Sub(h.since) >= base.HeldAfter) {
			h.told = true
			d.events = append(d.events, Event{Kind: Held, Goal: w.Goal, Range: w.Range, What: w.Reason})
		}
		held[w.Goal] = h
	}
	for _, g := range slices.Sorted(maps.Keys(d.held)) {
		if _, still := held[g]; !still && d.held[g].told {
			d.events = append(d.events, Event{Kind: Freed, Goal: g, What: d.held[g].why})
		}
	}
	d.held = held
}

// reports asks the nodes how the ranges are that they lead.
func (d *Decider) reports() {
	for _, id := range slices.Sorted(maps.Keys(d.nodes)) {
		n := d.nodes[id]
		if d.now < n.ask || gone(n.record.State) {
			continue
		}
		n.ask = d.now.Add(base.ReportInterval)
		d.send(Action{Node: id, Report: &rangepb.ReportRequest{After: n.version, Incarnation: n.incarnation, KeyspaceId: uint64(d.cfg.Index)}})
	}
}

// expect asks the node that is to lead a range soon whether it does: no descriptor says so, and the next report may be far off. The
// longer it takes, the longer is the wait until it is asked again.
func (d *Decider) expect(e *entry) {
	n, r := d.nodes[e.decision.Leader], d.ranges[e.id]
	if n == nil || r == nil || !e.follows || e.given != nil || r.leader == e.decision.Leader {
		return
	}
	n.ask = min(n.ask, d.now.Add(max(base.ReportSoon, d.now.Sub(e.followed)/2)))
}

// gone is of a node that leads nothing, whatever it says.
func gone(s metapb.NodeState) bool {
	return s == metapb.NodeState_NODE_STATE_FAILED || s == metapb.NodeState_NODE_STATE_LEFT || s == metapb.NodeState_NODE_STATE_REPLACED
}

// Wake is when Step has something to do again if nothing happens before.
func (d *Decider) Wake() base.Instant {
	at := d.planned
	if !d.told {
		at = base.Never // SetNodes is to come first
	}
	if d.due || !d.started {
		return d.now
	}
	for _, n := range d.nodes {
		if !gone(n.record.State) {
			at = min(at, n.ask)
		}
	}
	for _, e := range d.ledger {
		if e.given != nil {
			at = min(at, e.given.next, e.direct.last.Add(forgotten))
			continue
		}
		if d.unreserved(e, d.ranges[e.id]) == "" {
			at = min(at, e.direct.next)
		}
		for n, a := range e.asked {
			if !voted(d.ranges[e.id].desc, n) {
				at = min(at, a.next)
			}
		}
	}
	for _, p := range d.pauses {
		at = min(at, p.until)
	}
	if len(d.rises) > 0 {
		at = min(at, d.rises[0].at)
	}
	return at
}

// news notes that there is something to do for Step.
func (d *Decider) news(now base.Instant) { d.now, d.due = max(d.now, now), true }

// Rests is since when nothing is under way, and nothing was decided when it planned; 0: something is.
func (d *Decider) Rests() base.Instant { return d.rests }

// Size is how many decisions are on their way.
func (d *Decider) Size() int { return len(d.ledger) }

// UnderWay are the decisions on their way, by range.
func (d *Decider) UnderWay() (out []Entry) {
	for _, id := range slices.Sorted(maps.Keys(d.ledger)) {
		e := d.ledger[id]
		shown := Entry{Range: id, Keyspace: e.keyspace, Seq: e.seq, Decision: e.decision, Since: e.since, Directed: e.follows, Doing: e.doing,
			Waiting: d.waits(e), Sent: e.sent, Size: e.size, Operation: e.op}
		for _, n := range slices.Sorted(maps.Keys(e.asked)) {
			if d.now < e.asked[n].holds {
				shown.Reserved = append(shown.Reserved, n)
			}
		}
		out = append(out, shown)
	}
	return out
}

// Withheld is what should be done and is not, and why, as of the last pass.
func (d *Decider) Withheld() []allocator.Withheld { return d.withheld }
