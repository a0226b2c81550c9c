package allocator_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/allocator"
	"github.com/cairndb/cairn/internal/base"
)

// TestStories tells what the planner does, in words. The verbs:
//
//	policy [moves=8] [per-node=2] [share=0.3] [tier=zone] [no-balance]   lines: keyspace (or default) factor=3 +zone=a:1 leaders=~zone=b
//	put        lines: n1 zone=a,rack=1 ssd state=suspect for=40s cordoned draining slow=disk slow-for=20m strained=io weight=2 lead-weight=1 disk=90/100
//	                  r1 ks=100 n1* n2 n3 n4l bytes=10 load=5 behind=n2,n3 busy=merge wanted=n1,n2 lead=n2 (* leads; l, i, o: learner …)
//	                  r1..r9 and n1..n9 stand for each of them
//	rm         nodes and ranges that are no more
//	decide [limit=9] [seed=1] [begin]    what would be decided; begin: it is taken up
//	done, give-up                        what was taken up is
//	doubt r1                             what is under way for it may or may not come about
//	rest       decides and carries out until nothing is decided, and says how much that was, and what nodes hold
//	explain, safe, decommission, check   the questions
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{snap: allocator.NewSnapshot(), begun: map[base.RangeID]allocator.Decision{}}
		datadriven.RunTest(t, path, func(t *testing.T, c *datadriven.TestData) string { return s.run(t, c) })
	})
}

type story struct {
	snap  *allocator.Snapshot
	begun map[base.RangeID]allocator.Decision
	out   strings.Builder
}

func (s *story) run(t *testing.T, c *datadriven.TestData) string {
	s.out.Reset()
	switch c.Cmd {
	case "policy":
		s.policy(t, c)
	case "put":
		for _, line := range strings.Split(c.Input, "\n") {
			s.put(t, strings.Fields(line))
		}
	case "rm":
		for _, w := range strings.Fields(c.Input) {
			if w[0] == 'n' {
				s.snap.RemoveNode(nodeID(t, w))
			} else {
				s.snap.Delete(base.RangeID(nodeID(t, w)))
			}
		}
	case "decide":
		s.decide(t, c)
	case "done", "give-up":
		s.end(c.Cmd == "done")
	case "doubt":
		s.snap.Doubt(base.RangeID(nodeID(t, c.CmdArgs[0].Key)))
	case "rest":
		s.rest(t)
	case "explain":
		s.explain(base.RangeID(nodeID(t, c.CmdArgs[0].Key)))
	case "safe", "decommission":
		var ids []base.NodeID
		for _, a := range c.CmdArgs {
			ids = append(ids, nodeID(t, a.Key))
		}
		found := allocator.SafeToStop(s.snap, ids)
		if c.Cmd == "decommission" {
			found = allocator.CanDecommission(s.snap, ids)
		}
		for _, f := range found {
			fmt.Fprintf(&s.out, "%s, %d: %s; %s\n", f.Range, f.Count, f.What, f.Next)
		}
	case "check":
		for _, w := range allocator.CheckPlacement(s.snap, placement(t, strings.Fields(c.Input))) {
			fmt.Fprintln(&s.out, w)
		}
	default:
		t.Fatalf("unknown verb %s", c.Cmd)
	}
	if s.out.Len() == 0 && c.Cmd != "put" && c.Cmd != "rm" && c.Cmd != "policy" && c.Cmd != "done" && c.Cmd != "give-up" {
		return "nothing\n"
	}
	return s.out.String()
}

func nodeID(t *testing.T, w string) base.NodeID {
	n, err := strconv.Atoi(w[1:])
	if err != nil {
		t.Fatalf("%q is no node or range", w)
	}
	return base.NodeID(n)
}

func number(t *testing.T, w string) float64 {
	f, err := strconv.ParseFloat(w, 64)
	if err != nil {
		t.Fatalf("%q is no number", w)
	}
	return f
}

func (s *story) policy(t *testing.T, c *datadriven.TestData) {
	p := allocator.Policy{Keyspaces: map[base.KeyspaceID]allocator.Placement{}, NoBalance: c.HasArg("no-balance")}
	for _, a := range c.CmdArgs {
		switch a.Key {
		case "moves":
			p.Moves = int(number(t, a.Vals[0]))
		case "per-node":
			p.MovesPerNode = int(number(t, a.Vals[0]))
		case "share":
			p.FailedShare = number(t, a.Vals[0])
		case "tier":
			p.FailedTier = a.Vals[0]
		}
	}
	for _, line := range strings.Split(c.Input, "\n") {
		w := strings.Fields(line)
		switch {
		case len(w) == 0:
		case w[0] == "default":
			p.Default = placement(t, w[1:])
		default:
			p.Keyspaces[base.KeyspaceID(number(t, w[0]))] = placement(t, w[1:])
		}
	}
	s.snap.SetPolicy(p)
	p = s.snap.Policy()
	if err := p.Validate(); err != nil {
		fmt.Fprintln(&s.out, err)
	}
}

func placement(t *testing.T, words []string) (p allocator.Placement) {
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "factor":
			p.Replicas = int(number(t, v))
		case "at-least":
			p.AtLeast = int(number(t, v))
		case "leaders":
			p.Leaders = append(p.Leaders, constraint(t, v))
		default:
			p.Constraints = append(p.Constraints, constraint(t, w))
		}
	}
	return p
}

func constraint(t *testing.T, w string) allocator.Constraint {
	c, err := allocator.ParseConstraint(w)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// put takes n1..n9 and r1..r9 apart.
func (s *story) put(t *testing.T, w []string) {
	if len(w) == 0 {
		return
	}
	from, to, several := strings.Cut(w[0], "..")
	first, last := nodeID(t, from), nodeID(t, from)
	if several {
		last = nodeID(t, to)
	}
	for id := first; id <= last; id++ {
		if w[0][0] == 'n' {
			s.snap.SetNode(node(t, id, w[1:]))
		} else {
			s.snap.Put(aRange(t, base.RangeID(id), w[1:]))
		}
	}
}

func node(t *testing.T, id base.NodeID, words []string) allocator.Node {
	n := allocator.Node{ID: id, State: allocator.Active}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "state":
			n.State = allocator.NodeState(slices.Index([]string{"joining", "active", "suspect", "failed", "leaving", "left"}, v))
		case "for", "slow-for":
			d, err := time.ParseDuration(v)
			if err != nil {
				t.Fatal(err)
			}
			if k == "for" {
				n.Suspected = d
			} else {
				n.SlowFor = d
			}
		case "cordoned":
			n.Cordoned = true
		case "draining":
			n.Draining = true
		case "slow":
			n.Slow = v
		case "strained":
			n.Strained = v
		case "weight":
			n.Weight = number(t, v)
		case "lead-weight":
			n.LeadWeight = number(t, v)
		case "disk":
			used, all, _ := strings.Cut(v, "/")
			n.DiskUsed, n.DiskBytes = int64(number(t, used)), int64(number(t, all))
		default:
			if v == "" {
				n.Attributes = append(n.Attributes, w)
				continue
			}
			for _, tier := range strings.Split(w, ",") {
				k, v, _ := strings.Cut(tier, "=")
				n.Locality = append(n.Locality, allocator.Tier{Key: k, Value: v})
			}
		}
	}
	return n
}

func aRange(t *testing.T, id base.RangeID, words []string) allocator.Range {
	r := allocator.Range{ID: id, Keyspace: 100, Generation: 1, Bytes: 1}
	nodes := func(v string) (ids []base.NodeID) {
		for _, w := range strings.Split(v, ",") {
			ids = append(ids, nodeID(t, w))
		}
		return ids
	}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		switch {
		case k == "ks":
			r.Keyspace = base.KeyspaceID(number(t, v))
		case k == "bytes":
			r.Bytes = int64(number(t, v))
		case k == "load":
			r.Load = number(t, v)
		case k == "behind":
			r.Behind = nodes(v)
		case k == "busy":
			r.Busy = v
		case k == "wanted":
			r.Wanted = nodes(v)
		case k == "lead":
			r.WantedLeader = nodeID(t, v)
		case !ok:
			role := allocator.Voter
			if i := strings.IndexByte("lio", w[len(w)-1]); i >= 0 {
				role, w = allocator.Role(i+1), w[:len(w)-1]
			}
			id := nodeID(t, strings.TrimSuffix(w, "*"))
			if strings.HasSuffix(w, "*") {
				r.Leader = id
			}
			r.Replicas = append(r.Replicas, allocator.Replica{Node: id, Role: role})
		default:
			t.Fatalf("%q of a range", w)
		}
	}
	return r
}

func goalName(g allocator.Goal) string {
	return [...]string{"none", "joint", "quorum", "wanted", "replace", "drain", "factor", "constraint", "diversity", "balance", "leader", "split"}[g]
}

func (s *story) decide(t *testing.T, c *datadriven.TestData) {
	limit, seed := 9, 1
	c.MaybeScanArgs(t, "limit", &limit)
	c.MaybeScanArgs(t, "seed", &seed)
	got, held := allocator.Decide(s.snap, uint64(seed), limit)
	for _, d := range got {
		s.decision(d)
		if c.HasArg("begin") {
			s.snap.Begin(d)
			s.begun[d.Range] = d
		}
	}
	s.withheld(held)
}

func (s *story) decision(d allocator.Decision) {
	fmt.Fprintf(&s.out, "%s @%d %s:", d.Range, d.Generation, goalName(d.Goal))
	if d.Voters != nil {
		fmt.Fprintf(&s.out, " %v +%v -%v", d.Voters, d.Adds, d.Removes)
	}
	if d.Leader != 0 {
		fmt.Fprintf(&s.out, " led by %s", d.Leader)
	}
	fmt.Fprintf(&s.out, " because %s\n", d.Reason)
}

func (s *story) withheld(held []allocator.Withheld) {
	for _, h := range held {
		fmt.Fprintf(&s.out, "withheld %s", goalName(h.Goal))
		if h.Count > 0 {
			fmt.Fprintf(&s.out, " of %d", h.Count)
		}
		fmt.Fprintf(&s.out, ": %s\n", h.Reason)
	}
}

func (s *story) end(done bool) {
	var ids []base.RangeID
	for id := range s.begun {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		d := s.begun[id]
		delete(s.begun, id)
		if r, ok := s.snap.Range(id); ok && done {
			s.snap.Put(carriedOut(r, d))
		}
		s.snap.End(id)
	}
}

// carriedOut is the range after the decision.
func carriedOut(r allocator.Range, d allocator.Decision) allocator.Range {
	if d.Voters != nil {
		r.Replicas = nil
		for _, n := range d.Voters {
			r.Replicas = append(r.Replicas, allocator.Replica{Node: n})
		}
		if !slices.Contains(d.Voters, r.Leader) {
			r.Leader = d.Voters[0]
		}
		r.Generation++
	}
	if d.Leader != 0 {
		r.Leader = d.Leader
	}
	return r
}

func (s *story) rest(t *testing.T) {
	moves, transfers := map[allocator.Goal]int{}, map[allocator.Goal]int{}
	var held []allocator.Withheld
	for round := 0; ; round++ {
		var got []allocator.Decision
		if got, held = allocator.Decide(s.snap, uint64(round), 1000); len(got) == 0 {
			break
		}
		if round == 1000 {
			t.Fatal("no rest")
		}
		for _, d := range got {
			s.snap.Begin(d)
			s.begun[d.Range] = d
			if d.Voters == nil {
				transfers[d.Goal]++
			} else {
				moves[d.Goal]++
			}
		}
		s.end(true)
	}
	for g := allocator.GoalNone; g <= allocator.GoalSplit; g++ {
		if moves[g]+transfers[g] > 0 {
			fmt.Fprintf(&s.out, "%s: %d moves, %d of leaders\n", goalName(g), moves[g], transfers[g])
		}
	}
	s.withheld(held)
	for _, n := range s.snap.Nodes() {
		h := s.snap.Holding(n.ID)
		fmt.Fprintf(&s.out, "%s: %d replicas, %d led, %d bytes, load %.0f\n", n.ID, h.Replicas, h.Leaders, h.Bytes, h.Load)
	}
}

func (s *story) explain(id base.RangeID) {
	x := allocator.Explain(s.snap, id)
	if x.Underway.Goal != allocator.GoalNone {
		s.out.WriteString("under way: ")
		s.decision(x.Underway)
	}
	if x.Decision.Goal != allocator.GoalNone {
		s.decision(x.Decision)
	}
	if x.Why != "" {
		fmt.Fprintln(&s.out, x.Why)
	}
	s.withheld(x.Withheld)
	for _, c := range x.Candidates {
		if c.Against != "" {
			fmt.Fprintf(&s.out, "  %s: %s\n", c.Node, c.Against)
			continue
		}
		fmt.Fprintf(&s.out, "  %s: %.4f (%s)\n", c.Node, c.Score, c.Parts)
	}
	for _, a := range x.Advice {
		fmt.Fprintf(&s.out, "  advice: %s\n", a)
	}
}
