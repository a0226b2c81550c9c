package placement

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

// What a Decider tells people.

// GoalName is a goal of the planner in a word or two.
func GoalName(g allocator.Goal) string {
	names := [...]string{"", "end what was begun", "save a quorum", "asked for", "replace what failed", "drain", "number of replicas", "constraints",
		"keep apart", "balance", "leaders", "hot ranges"}
	return names[min(int(g), len(names)-1)]
}

// Explain says what would be decided for a range now, and why, and what is under way with it; nil: it is not known here.
func (d *Decider) Explain(id base.RangeID) *metapb.Explanation {
	r := d.ranges[id]
	if r == nil {
		return nil
	}
	x := allocator.Explain(d.snap, id)
	out := &metapb.Explanation{Range: proto.CloneOf(r.desc), Reason: x.Why, Advice: x.Advice}
	if x.Decision.Goal != allocator.GoalNone {
		out.Decision, out.Reason, out.Goal = describe(&x.Decision), x.Decision.Reason, GoalName(x.Decision.Goal)
	}
	if !d.Ready() {
		out.Advice = append(out.Advice, "ask again in some seconds: whoever decides for this range has only begun to, and does not know all of it yet")
	}
	for _, w := range x.Withheld {
		out.Advice = append(out.Advice, GoalName(w.Goal)+": "+w.Reason)
	}
	for _, c := range x.Candidates {
		out.Candidates = append(out.Candidates, candidate(r.desc, &c))
	}
	if e := d.ledger[id]; e != nil {
		out.UnderWay = d.say(e)
	}
	return out
}

func candidate(m *metapb.RangeDescriptor, c *allocator.Score) *metapb.Candidate {
	out := &metapb.Candidate{NodeId: uint64(c.Node), Holds: desc.ReplicaOn(m, c.Node) != nil, Allowed: c.Against == "", Score: c.Score}
	if c.Against != "" {
		out.Against = []string{c.Against}
	}
	if c.Parts != "" {
		out.InFavour = strings.Split(c.Parts, ", ")
	}
	return out
}

// Finding is one thing that speaks against something.
type Finding struct {
	Range    base.RangeID // the first that it is about; 0: of no one range
	Keyspace base.KeyspaceID
	Count    int // of ranges, if it is about several
	What     string
	Next     string // what to do
}

// SafeToStop says what speaks against stopping a set of nodes at once, as far as the ranges go that this decides for; ranges is how
// many that is.
func (d *Decider) SafeToStop(nodes []base.NodeID) (findings []Finding, ranges int) {
	return d.findings(allocator.SafeToStop(d.snap, slices.Clone(nodes))), len(d.ranges)
}

// CanDecommission says what speaks against taking a set of nodes out for good.
func (d *Decider) CanDecommission(nodes []base.NodeID) (findings []Finding, ranges int) {
	return d.findings(allocator.CanDecommission(d.snap, slices.Clone(nodes))), len(d.ranges)
}

func (d *Decider) findings(in []allocator.Finding) (out []Finding) {
	for _, f := range in {
		found := Finding{Range: f.Range, Count: f.Count, What: f.What, Next: f.Next}
		if r := d.ranges[f.Range]; r != nil {
			found.Keyspace = base.KeyspaceID(r.desc.KeyspaceId)
		}
		out = append(out, found)
	}
	return out
}

// Ready says whether the Decider knows the nodes, and has listened for long enough to decide.
func (d *Decider) Ready() bool { return d.told && d.decided }

// say describes an entry in one line.
func (d *Decider) say(e *entry) string {
	s := describe(&e.decision)
	if e.doing != "" {
		s += "; " + e.doing
	}
	if e.size > 0 {
		s += "; " + fmt.Sprintf("%d of %d MiB are sent", e.sent>>20, e.size>>20)
	}
	if w := d.waits(e); w != "" {
		s += "; " + w
	}
	return s
}
