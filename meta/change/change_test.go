package change_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/change"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
)

// TestStories runs the dialogues in testdata/stories. Verbs: range (a descriptor; down=(…) nodes), down, leader, lag
// (id= entries=), next and run (goal=(…)), behind (nodes whose replicas are).
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{}
		datadriven.RunTest(t, path, func(t *testing.T, c *datadriven.TestData) string {
			out, err := s.verb(t, c)
			if err != nil {
				c.Fatalf(t, "%v", err)
			}
			return out
		})
	})
}

type story struct{ w *world }

func (s *story) verb(t *testing.T, c *datadriven.TestData) (string, error) {
	switch c.Cmd {
	case "range":
		d, err := desctest.Parse(c.Input)
		if err != nil {
			return "", err
		}
		if err := desc.Validate(d); err != nil {
			return "", err
		}
		s.w = newWorld(d, nodeArgs(c, "down")...)
		return fmt.Sprintf("leader %d\n", s.w.leader), nil
	case "down":
		s.w.down = nodeArgs(c, "nodes")
		s.w.elect()
		return fmt.Sprintf("leader %d\n", s.w.leader), nil
	case "leader":
		var id uint64
		c.ScanArgs(t, "id", &id)
		s.w.leader = base.ReplicaID(id)
		return "", nil
	case "lag":
		var id, n uint64
		c.ScanArgs(t, "id", &id)
		c.ScanArgs(t, "entries", &n)
		s.w.match[base.ReplicaID(id)] = s.w.last - n
		return "", nil
	case "next":
		return describe(change.Next(s.w.d, s.w.observe(), change.Goal{Voters: nodeArgs(c, "goal")})), nil
	case "run":
		return s.run(change.Goal{Voters: nodeArgs(c, "goal")}), nil
	case "behind":
		return fmt.Sprintln(change.Behind(s.w.d, s.w.observe())), nil
	}
	return "", fmt.Errorf("there is no verb %s", c.Cmd)
}

// run carries steps out until the goal is reached or nothing moves any more.
func (s *story) run(g change.Goal) string {
	var b strings.Builder
	for range maxSteps {
		step, done := change.Next(s.w.d, s.w.observe(), g)
		b.WriteString(describe(step, done))
		if done || !s.w.do(step) {
			return b.String()
		}
	}
	return b.String() + "no end\n"
}

func describe(s change.Step, done bool) string {
	switch {
	case done:
		return "done\n"
	case s.Propose != nil:
		return fmt.Sprintf("propose: %s\n  %s\n", s.Reason, desc.Format(s.Propose))
	case s.Transfer != 0:
		return fmt.Sprintf("transfer to %d: %s\n", s.Transfer, s.Reason)
	}
	return fmt.Sprintf("wait: %s\n", s.Reason)
}

func nodeArgs(c *datadriven.TestData, key string) []base.NodeID {
	var out []base.NodeID
	for _, a := range c.CmdArgs {
		if a.Key != key {
			continue
		}
		for _, v := range a.Vals {
			var n uint64
			if _, err := fmt.Sscan(v, &n); err == nil {
				out = append(out, base.NodeID(n))
			}
		}
	}
	return out
}

const (
	nodes    = 7
	maxSteps = 60 // from any reachable descriptor; five seats cost at most four steps each, and as many waits
)

// TestEndsInTheGoal: from wherever legal steps may lead, with a minority down, steps lost and leadership moving, the
// replicas end where they are wanted, and what is up is a quorum all along.
func TestEndsInTheGoal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := make([]base.NodeID, nodes)
		for i := range all {
			all[i] = base.NodeID(i + 1)
		}
		d := desctest.Reachable(t, nodes)
		goal := change.Goal{Voters: rapid.Permutation(all).Draw(t, "goal")[:rapid.IntRange(1, 5).Draw(t, "seats")]}
		slices.Sort(goal.Voters)
		var down []base.NodeID
		for _, n := range all {
			if slices.Contains(goal.Voters, n) || !rapid.Bool().Draw(t, "down") {
				continue
			}
			if w := newWorld(d, append(slices.Clone(down), n)...); w.quorum() && w.leader != 0 {
				down = append(down, n)
			}
		}
		w := newWorld(d, down...)
		if w.leader == 0 || !w.quorum() {
			t.Skip("nobody can lead")
		}
		lost, steps := 0, 0
		for {
			step, done := change.Next(w.d, w.observe(), goal)
			if again, _ := change.Next(w.d, w.observe(), goal); describe(step, done) != describe(again, done) {
				t.Fatalf("not deterministic: %s", describe(step, done))
			}
			if done {
				break
			}
			if steps++; steps > maxSteps+lost {
				t.Fatalf("no end: %s; %s", desc.Format(w.d), describe(step, done))
			}
			if lost < maxSteps && rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
				lost++
				moveLeader(t, w)
				continue
			}
			take(t, w, step)
		}
		atGoal(t, w.d, goal)
	})
}

// take carries a step out and holds it to what a range demands.
func take(t *rapid.T, w *world, step change.Step) {
	before := w.d
	if !w.do(step) {
		t.Fatalf("%s waits for ever: %s", desc.Format(w.d), step.Reason)
	}
	if step.Propose != nil {
		if _, err := desc.Check(before, step.Propose); err != nil {
			t.Fatal(err)
		}
	}
	if r := desc.Replica(w.d, w.leader); r == nil || r.Role == metapb.ReplicaRole_REPLICA_ROLE_LEARNER {
		t.Fatalf("%s is led by %d", desc.Format(w.d), w.leader)
	}
	if !w.quorum() {
		t.Fatalf("no quorum in %s, down %v", desc.Format(w.d), w.down)
	}
}

// moveLeader lets another voter that has the log lead, of whichever half.
func moveLeader(t *rapid.T, w *world) {
	var able []base.ReplicaID
	for _, r := range w.d.Replicas {
		inNew, inOld := desc.Votes(r.Role)
		if (inNew || inOld) && !w.isDown(r) && w.match[base.ReplicaID(r.ReplicaId)] == w.last {
			able = append(able, base.ReplicaID(r.ReplicaId))
		}
	}
	w.leader = rapid.SampledFrom(able).Draw(t, "leader")
}

func atGoal(t *rapid.T, d *metapb.RangeDescriptor, g change.Goal) {
	var at []base.NodeID
	for _, r := range d.Replicas {
		if r.Role != metapb.ReplicaRole_REPLICA_ROLE_VOTER {
			t.Fatalf("done with %s", desc.Format(d))
		}
		at = append(at, base.NodeID(r.NodeId))
	}
	slices.Sort(at)
	if !slices.Equal(at, g.Voters) {
		t.Fatalf("done with %s, wanted %v", desc.Format(d), g.Voters)
	}
}

// TestKeepsAQuorum: whoever is down, be it wanted or not, and wherever the voters are to be: a configuration whose voters that have
// caught up are a quorum is followed by another such.
func TestKeepsAQuorum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := make([]base.NodeID, nodes)
		for i := range all {
			all[i] = base.NodeID(i + 1)
		}
		d := desctest.Reachable(t, nodes)
		goal := change.Goal{Voters: rapid.Permutation(all).Draw(t, "goal")[:rapid.IntRange(1, 5).Draw(t, "seats")]}
		slices.Sort(goal.Voters)
		var down []base.NodeID
		for _, n := range all {
			if w := newWorld(d, append(slices.Clone(down), n)...); rapid.Bool().Draw(t, "down") && w.quorum() && w.leader != 0 {
				down = append(down, n)
			}
		}
		w := newWorld(d, down...)
		if w.leader == 0 || !w.quorum() {
			t.Skip("nobody can lead")
		}
		for range maxSteps {
			step, done := change.Next(w.d, w.observe(), goal)
			if done || !w.do(step) {
				return
			}
			if !w.quorum() {
				t.Fatalf("%s: no quorum in %s, down %v", describe(step, false), desc.Format(w.d), w.down)
			}
		}
		t.Fatalf("no end: %s, to %v, down %v", desc.Format(w.d), goal.Voters, down)
	})
}
