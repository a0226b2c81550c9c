package liveness

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// Config is what a Table is made of; zero values are base's.
type Config struct {
	Window time.Duration // how long what speaks against a node must last, and how old a heartbeat may be
}

// EnsureDefaults fills what was left open.
func (c *Config) EnsureDefaults() { c.Window = cmp.Or(c.Window, base.HeartbeatWindow) }

// Validate returns every problem at once.
func (c *Config) Validate() error {
	if c.Window <= 0 {
		return errors.New("the window must be above zero")
	}
	return nil
}

// Policy is what of the cluster's policy the table holds to.
type Policy struct {
	FailedAfter time.Duration // how long a node is suspect before it is held to be failed
}

// PolicyOf reads it from the record in `sys`, nil if there is none.
func PolicyOf(r *metapb.PolicyRecord) Policy {
	p := Policy{FailedAfter: base.FailedAfter}
	if ms := r.GetCluster().GetFailedAfterMillis(); ms > 0 {
		p.FailedAfter = time.Duration(min(ms, uint64(maxFailedAfter/time.Millisecond))) * time.Millisecond
	}
	return p
}

// maxFailedAfter keeps the arithmetic of instants within bounds, whatever the policy says: some years.
const maxFailedAfter = 100_000 * time.Hour

// Transition is what is to become of a node's record.
type Transition struct {
	Before, After *metapb.NodeRecord
	Event         Event
	Reason        string
}

// Table is what the leader of `sys` knows of the nodes, for as long as it leads. It is empty when that begins, and nothing is held
// against anybody before a whole window has passed: a new leader has heard of nobody yet.
//
// Who is well is what others say. A node speaks against another when they share a range and it does not promise it support: the
// other does not ask, is not heard, or its disk is stuck (raftgroup/support). A node is suspect when most of those who could say
// have spoken against it for a window. One voice is never enough by itself, for it may be the link between the two that is bad: the
// node's own heartbeats must stay away too. Of a node that shares nothing with anybody those are all that there is.
//
// Whoever is suspect has no voice. And nobody is held to be failed unless most of the members are well: the leader of `sys` may sit
// on the smaller side of a cut, with most replicas of `sys` and few of the nodes, and must not give the larger side up.
type Table struct {
	cfg     Config
	nodes   map[uint64]*node
	policy  Policy       // of the last step: what a node's health is told with
	stepped base.Instant // when that was; 0: never
}

// node is one row.
type node struct {
	record *metapb.NodeRecord
	since  base.Instant // from when on its silence counts: since it is in the table, or has started again
	beat   *metapb.Heartbeat
	heard  base.Instant // when beat came

	voices    voices
	against   base.Instant // since when most voices are against it; Never: they are not
	well      base.Instant // since when they are not
	suspected base.Instant // since when it is suspect, as far as this table knows; Never: it is not
	slow      slowness
}

// voices are those who could say whether they support a node, and those of them who do not.
type voices struct {
	reporters, supporters []uint64
	silent                bool // its own heartbeats stay away
}

// against says whether they are against it, all together.
func (v *voices) against() bool {
	no := len(v.reporters) - len(v.supporters)
	switch len(v.reporters) {
	case 0:
		return v.silent
	case 1:
		return no == 1 && v.silent
	}
	return 2*no > len(v.reporters)
}

// New makes an empty table.
func New(cfg Config) (*Table, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("liveness: %w", err)
	}
	return &Table{cfg: cfg, nodes: make(map[uint64]*node), policy: PolicyOf(nil)}, nil
}

// SetRecords says what the nodes' records are now. They must not be changed afterwards.
func (t *Table) SetRecords(now base.Instant, records []*metapb.NodeRecord) {
	there := make(map[uint64]bool, len(records))
	for _, r := range records {
		there[r.NodeId] = true
		n := t.nodes[r.NodeId]
		switch {
		case n == nil:
			n = &node{}
			t.nodes[r.NodeId] = n
			n.restart(now)
		case r.Generation < n.record.Generation:
			continue
		case r.Incarnation > n.record.Incarnation || !member(n.record) && member(r):
			n.restart(now) // it has announced itself: what was held against it is over
		}
		n.record = r
		n.settle(now)
	}
	maps.DeleteFunc(t.nodes, func(id uint64, _ *node) bool { return !there[id] })
}

func (n *node) restart(now base.Instant) {
	n.since, n.against, n.well, n.suspected = now, base.Never, now, base.Never
}

// settle brings the time of suspicion in step with the record. One that leaves has no such state: the table alone knows of it.
func (n *node) settle(now base.Instant) {
	switch n.record.State {
	case metapb.NodeState_NODE_STATE_SUSPECT:
		n.suspected = min(n.suspected, now)
	case metapb.NodeState_NODE_STATE_LEAVING:
	default:
		n.suspected = base.Never
	}
}

// member says whether a node's silence would matter.
func member(r *metapb.NodeRecord) bool {
	switch r.GetState() {
	case metapb.NodeState_NODE_STATE_ACTIVE, metapb.NodeState_NODE_STATE_SUSPECT, metapb.NodeState_NODE_STATE_LEAVING:
		return true
	}
	return false
}

// Heartbeat takes what a node says. What is older than what it has said already is dropped; so is a stranger's.
func (t *Table) Heartbeat(now base.Instant, h *metapb.Heartbeat) {
	n := t.nodes[h.GetNodeId()]
	if n == nil {
		return
	}
	if b := n.beat; b != nil && (h.Incarnation < b.Incarnation || h.Incarnation == b.Incarnation && h.Seq <= b.Seq) {
		return
	}
	n.beat, n.heard = h, now
}

// Record is a node's record as the table knows it; nil if it knows none.
func (t *Table) Record(id uint64) *metapb.NodeRecord {
	if n := t.nodes[id]; n != nil {
		return n.record
	}
	return nil
}

// Step looks at everything, and returns what is to become of which record. The records stay as they are until SetRecords says
// otherwise: what did not go through is returned again, as long as it is still so.
func (t *Table) Step(now base.Instant, unixMicros int64, p Policy) (out []Transition) {
	t.policy = p
	if t.stepped != 0 && now.Sub(t.stepped) > t.cfg.Window/2 {
		t.grace(now)
	}
	t.stepped = now
	ids := slices.Sorted(maps.Keys(t.nodes))
	voices := t.hear(now)
	for _, id := range ids {
		t.nodes[id].judge(now, voices[id])
	}
	t.watchSlow(now)
	members, well := t.count(now)
	for _, id := range ids {
		n := t.nodes[id]
		e, reason, ok := t.due(now, n, 2*well > members)
		if !ok {
			continue
		}
		if after, err := Apply(n.record, e, reason, unixMicros); err == nil && after != n.record {
			out = append(out, Transition{Before: n.record, After: after, Event: e, Reason: reason})
		}
	}
	return out
}

// grace begins everybody's window anew: it was the leader itself that was paused, and what it has not heard says nothing.
func (t *Table) grace(now base.Instant) {
	for _, n := range t.nodes {
		suspected := n.suspected
		n.restart(now)
		n.suspected = suspected
	}
}

// hear gathers the voices about every member. Whoever is suspect, has not been heard of for a window, or speaks under an epoch that
// is over has none.
func (t *Table) hear(now base.Instant) map[uint64]*voices {
	out := make(map[uint64]*voices, len(t.nodes))
	for id, n := range t.nodes {
		out[id] = &voices{silent: !t.fresh(now, n)}
	}
	for id, n := range t.nodes {
		if !member(n.record) || n.suspected != base.Never || !t.fresh(now, n) || n.beat.Epoch < n.record.Epoch {
			continue
		}
		for _, h := range n.beat.Heard {
			v := out[h.NodeId]
			if v == nil || h.NodeId == id {
				continue
			}
			v.reporters = append(v.reporters, id)
			if h.Supports {
				v.supporters = append(v.supporters, id)
			}
		}
	}
	for _, v := range out {
		slices.Sort(v.reporters)
		slices.Sort(v.supporters)
	}
	return out
}

func (t *Table) fresh(now base.Instant, n *node) bool {
	return n.beat != nil && n.beat.Incarnation >= n.record.GetIncarnation() && now.Sub(n.heard) < t.cfg.Window
}

// judge takes note of since when the voices are against a node. Silence is against it from its last word on.
func (n *node) judge(now base.Instant, v *voices) {
	n.voices = *v
	if !member(n.record) || !v.against() {
		if n.against != base.Never {
			n.against, n.well = base.Never, now
		}
		return
	}
	since := now
	if len(v.reporters) == 0 {
		since = max(n.since, min(n.heard, now))
	}
	n.against = min(n.against, since)
}

// count is how many members there are, and how many of them are well.
func (t *Table) count(now base.Instant) (members, well int) {
	for _, n := range t.nodes {
		if !member(n.record) {
			continue
		}
		members++
		if n.suspected == base.Never && n.against == base.Never && t.fresh(now, n) {
			well++
		}
	}
	return members, well
}

// due is what is to happen to a node now.
func (t *Table) due(now base.Instant, n *node, majority bool) (e Event, reason string, ok bool) {
	if !member(n.record) {
		return 0, "", false
	}
	held := n.against != base.Never && now.Sub(n.against) >= t.cfg.Window
	calm := n.against == base.Never && now.Sub(n.well) >= t.cfg.Window
	leaving := n.record.State == metapb.NodeState_NODE_STATE_LEAVING
	switch {
	case n.suspected == base.Never && held && leaving:
		n.suspected = now
	case n.suspected == base.Never && held:
		return Suspected, n.said(now), true
	case n.suspected != base.Never && calm && leaving:
		n.suspected = base.Never
	case n.suspected != base.Never && calm:
		return Cleared, n.said(now), true
	case n.suspected != base.Never && held && !leaving && majority && now.Sub(n.suspected) >= t.policy.FailedAfter:
		return Failed, fmt.Sprintf("it was suspect for %s: %s", words(now.Sub(n.suspected)), n.said(now)), true
	}
	return 0, "", false
}
