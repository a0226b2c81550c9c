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
		d.planned = now.Add(base.DecideInterval)
		d.plan()
	}
	out, d.queue = d.queue, nil
	events, d.events = d.events, nil
	return out, events
}

// plan asks the planner what is to be done, and takes it into the ledger.
func (d *Decider) plan() {
	d.decided = true
	decisions, withheld := allocator.Decide(d.snap, d.rand.Uint64(), d.policy.Moves)
	d.withheld = withheld
	switch {
	case len(decisions) > 0 || len(d.ledger) > 0:
		d.rests = 0
	case d.rests == 0:
		d.rests = d.now
	}
	d.tell()
	for _, dec := range decisions {
		if e := d.open(dec); e != nil {
			d.step(e)
		}
	}
}

// tell makes events of goals that are held up as a whole, once when it begins and once when it ends.
func (d *Decider) tell() {
	held := make(map[allocator.Goal]string)
	for _, w := range d.withheld {
		if w.Range == 0 {
			held[w.Goal] = w.Reason
		}
	}
	for _, g := range slices.Sorted(maps.Keys(held)) {
		if d.held[g] == "" {
			d.events = append(d.events, Event{Kind: Held, Goal: g, What: held[g]})
		}
	}
	for _, g := range slices.Sorted(maps.Keys(d.held)) {
		if held[g] == "" {
			d.events = append(d.events, Event{Kind: Freed, Goal: g, What: d.held[g]})
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
	return at
}

// news notes that there is something to do for Step.
func (d *Decider) news(now base.Instant) { d.now, d.due = max(d.now, now), true }

// Rests is since when nothing is under way, and nothing was decided when it planned; 0: something is.
func (d *Decider) Rests() base.Instant { return d.rests }

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
