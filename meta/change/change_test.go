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
// (id= entries=), next and run (goal=(…)), nodes (one a line: id, state, up or down, replicas, locality), seats.
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

type story struct {
	w     *world
	nodes []change.Node
}

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
	case "nodes":
		return "", s.setNodes(c.Input)
	case "seats":
		return fmt.Sprintln(change.UpReplicate(s.w.d, s.nodes).Voters), nil
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

func (s *story) setNodes(input string) error {
	s.nodes = nil
	for _, l := range strings.Split(input, "\n") {
		var (
			id        uint64
			state, up string
			load      int
			where     string
		)
		if _, err := fmt.Sscan(l, &id, &state, &up, &load, &where); err != nil {
			return fmt.Errorf("%q: %w", l, err)
		}
		rec := &metapb.NodeRecord{NodeId: id, State: metapb.NodeState(metapb.NodeState_value["NODE_STATE_"+strings.ToUpper(state)])}
		for _, tier := range strings.Split(where, ",") {
			if key, value, ok := strings.Cut(tier, "="); ok {
				rec.Locality = append(rec.Locality, &metapb.LocalityTier{Key: key, Value: value})
			}
		}
		s.nodes = append(s.nodes, change.Node{Record: rec, Up: up == "up", Load: load})
	}
	return nil
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

// TestUpReplicateIsStable: what the rule chose it chooses again, at every descriptor on the way and at the end.
func TestUpReplicateIsStable(t *testing.T) {
	states := []metapb.NodeState{
		metapb.NodeState_NODE_STATE_ACTIVE, metapb.NodeState_NODE_STATE_ACTIVE, metapb.NodeState_NODE_STATE_JOINING,
		metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED,
	}
	rapid.Check(t, func(t *rapid.T) {
		d := desctest.First(base.RangeID(rapid.IntRange(1, 4).Draw(t, "range")), base.KeyspaceID(rapid.IntRange(1, 4).Draw(t, "keyspace")))
		var members []change.Node
		for id := range rapid.IntRange(1, nodes).Draw(t, "nodes") {
			state, up := metapb.NodeState_NODE_STATE_ACTIVE, true
			if id > 0 {
				state, up = rapid.SampledFrom(states).Draw(t, "state"), rapid.IntRange(0, 3).Draw(t, "up") > 0
			}
			zone := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone")
			members = append(members, change.Node{Up: up, Load: rapid.IntRange(0, 3).Draw(t, "load"), Record: &metapb.NodeRecord{
				NodeId: uint64(id + 1), State: state, Locality: []*metapb.LocalityTier{{Key: "zone", Value: zone}},
			}})
		}
		var down []base.NodeID
		for _, n := range members {
			if !n.Up {
				down = append(down, base.NodeID(n.Record.NodeId))
			}
		}
		goal := change.UpReplicate(d, members)
		if len(goal.Voters) == 0 || len(goal.Voters) > 5 {
			t.Fatalf("%d seats", len(goal.Voters))
		}
		w := newWorld(d, down...)
		for range maxSteps {
			now := change.UpReplicate(w.d, members)
			if !slices.Equal(now.Voters, goal.Voters) {
				t.Fatalf("at %s the goal went from %v to %v", desc.Format(w.d), goal.Voters, now.Voters)
			}
			step, done := change.Next(w.d, w.observe(), now)
			if done {
				atGoal(t, w.d, goal)
				return
			}
			take(t, w, step)
		}
		t.Fatalf("no end: %s", desc.Format(w.d))
	})
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
