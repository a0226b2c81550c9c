package liveness

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Health is what the table knows of every node beside its record, by id, as of the last step.
func (t *Table) Health(now base.Instant) []*metapb.NodeHealth {
	out := make([]*metapb.NodeHealth, 0, len(t.nodes))
	members, well := t.count(now)
	for _, id := range slices.Sorted(maps.Keys(t.nodes)) {
		n := t.nodes[id]
		h := &metapb.NodeHealth{
			NodeId: id, HeardMicros: -1, Reporters: n.voices.reporters, Supporters: n.voices.supporters,
			Load: n.beat.GetLoad(), Hears: n.beat.GetHeard(), Slow: n.slow.words(now),
		}
		if n.beat != nil {
			h.HeardMicros = now.Sub(n.heard).Microseconds()
		}
		if n.suspected != base.Never {
			h.SuspectedMicros = max(1, now.Sub(n.suspected).Microseconds())
		}
		h.Why = t.why(now, n, members, well)
		out = append(out, h)
	}
	return out
}

// Next is when something may happen by itself: nobody says a word, and a window ends.
func (t *Table) Next(now base.Instant) base.Instant {
	next := base.Never
	at := func(from base.Instant, d time.Duration) {
		if from == base.Never {
			return
		}
		if x := from.Add(d); x > now {
			next = min(next, x)
		}
	}
	for _, n := range t.nodes {
		if !member(n.record) {
			continue
		}
		at(max(n.heard, n.since), t.cfg.Window)
		at(n.against, t.cfg.Window)
		if n.suspected != base.Never {
			at(n.suspected, t.policy.FailedAfter)
			at(n.well, t.cfg.Window)
		}
		for _, w := range n.slow {
			at(w.over, base.SlowAfter)
			at(w.under, base.SlowClear)
		}
	}
	return next
}

// why says why a node is held to be what it is.
func (t *Table) why(now base.Instant, n *node, members, well int) string {
	switch n.record.State {
	case metapb.NodeState_NODE_STATE_JOINING:
		return "it was let in and has not announced itself yet"
	case metapb.NodeState_NODE_STATE_FAILED:
		return n.record.Reason + "; it is let in again when it announces itself"
	case metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED:
		return n.record.Reason
	}
	s := n.said(now)
	switch {
	case n.suspected == base.Never && n.against != base.Never:
		s += fmt.Sprintf(", for %s: it is suspect after %s", words(now.Sub(n.against)), t.cfg.Window)
	case n.suspected != base.Never:
		s = fmt.Sprintf("suspect for %s: %s", words(now.Sub(n.suspected)), s)
		if n.record.State == metapb.NodeState_NODE_STATE_LEAVING || n.against == base.Never {
			break
		}
		s += fmt.Sprintf("; it is held to be failed after %s", t.policy.FailedAfter)
		if 2*well <= members {
			s += fmt.Sprintf(", but not while only %d of %d members are well: it may be this side that is cut off", well, members)
		}
	}
	if n.record.State == metapb.NodeState_NODE_STATE_LEAVING {
		s = "leaving; " + s
	}
	return s
}

// said is what the voices say of a node.
func (n *node) said(now base.Instant) string {
	heartbeats := "its heartbeats come"
	if n.voices.silent {
		heartbeats = "no heartbeat since this leader of sys leads"
		if n.beat != nil {
			heartbeats = "its last heartbeat came " + words(now.Sub(n.heard)) + " ago"
		}
	}
	all, yes := n.voices.reporters, n.voices.supporters
	if len(all) == 0 {
		return heartbeats + ", and no node that is heard shares a range with it"
	}
	if len(yes) == len(all) {
		return fmt.Sprintf("%d of %d nodes that share ranges with it support it; %s", len(yes), len(all), heartbeats)
	}
	var no []string
	for _, id := range all {
		if !slices.Contains(yes, id) {
			no = append(no, base.NodeID(id).String())
		}
	}
	const named = 5
	if len(no) > named {
		no = append(no[:named], "…")
	}
	return fmt.Sprintf("%d of %d nodes that share ranges with it support it, not %s; %s", len(yes), len(all), strings.Join(no, ", "), heartbeats)
}

// words is a time as people want to read it.
func words(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
