package operation_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/liveness"
	"github.com/cairndb/cairn/meta/operation"
)

// TestStories runs the dialogues in testdata/stories. Verbs: nodes (a count), state (node= is=), range (id= on=(…)), start (kind= nodes=(…)
// range= voters=(…) leader= for=seconds), look (after=seconds, leads=(node=count …), silent=node, why=, unknown=), cancel, pause and resume (id=), node
// (id= change=), held.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{pace: map[uint64]*operation.Pace{}, ranges: map[uint64]*metapb.RangeDescriptor{}, now: 1_000_000_000}
		datadriven.RunTest(t, path, func(t *testing.T, c *datadriven.TestData) string {
			out, err := s.verb(c)
			if err != nil {
				var refused *base.Refused
				if !errors.As(err, &refused) {
					c.Fatalf(t, "%v", err)
				}
				return "refused: " + err.Error() + "\n"
			}
			return out
		})
	})
}

// story is a cluster's records, and nobody who works on them but the operations.
type story struct {
	now    int64
	nodes  []*metapb.NodeRecord
	ops    []*metapb.Operation
	ranges map[uint64]*metapb.RangeDescriptor
	pace   map[uint64]*operation.Pace
}

func number(c *datadriven.TestData, name string) uint64 {
	if n := numbers(c, name); len(n) == 1 {
		return n[0]
	}
	return 0
}

func numbers(c *datadriven.TestData, name string) (out []uint64) {
	for _, a := range c.CmdArgs {
		if a.Key == name {
			for _, v := range a.Vals {
				n, _ := strconv.ParseUint(v, 10, 64)
				out = append(out, n)
			}
		}
	}
	return out
}

func word(c *datadriven.TestData, name string) string {
	for _, a := range c.CmdArgs {
		if a.Key == name && len(a.Vals) == 1 {
			return strings.ReplaceAll(a.Vals[0], "_", " ")
		}
	}
	return ""
}

func (s *story) verb(c *datadriven.TestData) (string, error) {
	switch c.Cmd {
	case "nodes":
		for i := range number(c, "n") {
			s.nodes = append(s.nodes, &metapb.NodeRecord{NodeId: i + 1, State: metapb.NodeState_NODE_STATE_ACTIVE, Generation: 1, Epoch: 1})
		}
		return "", nil
	case "state":
		s.node(number(c, "node")).State = metapb.NodeState(metapb.NodeState_value["NODE_STATE_"+strings.ToUpper(word(c, "is"))])
		return "", nil
	case "range":
		d := &metapb.RangeDescriptor{RangeId: number(c, "id"), Generation: number(c, "gen")}
		for _, n := range numbers(c, "on") {
			d.Replicas = append(d.Replicas, &metapb.Replica{NodeId: n, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
		}
		if s.ranges[d.RangeId] = d; len(d.Replicas) == 0 {
			delete(s.ranges, d.RangeId)
		}
		return "", nil
	case "start":
		return s.start(c)
	case "look":
		return s.look(c)
	case "cancel", "pause", "resume":
		f := map[string]func(*metapb.Operation, []*metapb.NodeRecord, int64) (operation.Change, error){
			"cancel": operation.Cancel, "pause": operation.Pause, "resume": operation.Resume}[c.Cmd]
		ch, err := f(s.op(number(c, "id")), s.nodes, s.now)
		return s.apply(ch), err // of a refusal there is nothing to apply
	case "node":
		return s.changeNode(c)
	case "held":
		return operation.Names(operation.Held(s.ops, s.now)) + "\n", nil
	}
	return "", fmt.Errorf("there is no verb %s", c.Cmd)
}

func (s *story) start(c *datadriven.TestData) (string, error) {
	asked := &metapb.Operation{Kind: metapb.OperationKind(metapb.OperationKind_value["OPERATION_KIND_"+strings.ToUpper(word(c, "kind"))]),
		Nodes: numbers(c, "nodes"), RangeId: number(c, "range"), Voters: numbers(c, "voters"), Leader: number(c, "leader")}
	if n := number(c, "for"); n > 0 {
		asked.UntilUnixMicros = s.now + int64(n)*1_000_000
	}
	ch, err := operation.Start(asked, uint64(len(s.ops)+1), &operation.Known{NowMicros: s.now, Operations: s.ops, Nodes: s.nodes, Range: s.ranges[asked.RangeId]})
	return s.apply(ch), err
}

func (s *story) look(c *datadriven.TestData) (string, error) {
	s.now += int64(number(c, "after")) * 1_000_000
	now := base.Instant(s.now * 1000)
	w := &operation.World{NowMicros: s.now, Now: now, Unknown: word(c, "unknown"), Leads: map[uint64]operation.Leads{}, Tally: &operation.Tally{At: now}, Why: word(c, "why"),
		Leader: number(c, "leader"), Bytes: map[uint64]uint64{}}
	for _, n := range s.nodes {
		w.Leads[n.NodeId] = operation.Leads{}
	}
	for _, a := range c.CmdArgs {
		if a.Key == "leads" {
			for _, v := range a.Vals {
				node, count, _ := strings.Cut(v, ":")
				n, _ := strconv.ParseUint(node, 10, 64)
				k, _ := strconv.ParseUint(count, 10, 64)
				w.Leads[n] = operation.Leads{Ranges: k}
			}
		}
	}
	if n := number(c, "silent"); n > 0 {
		w.Leads[n] = operation.Leads{Silent: "it does not answer"}
	}
	for _, d := range s.ranges {
		w.Tally.Add(d)
		for _, r := range d.Replicas {
			w.Bytes[r.NodeId] += 1 << 20
		}
	}
	var b strings.Builder
	for _, op := range slices.Clone(s.ops) {
		w.Nodes, w.Range = s.nodes, s.ranges[op.RangeId]
		if s.pace[op.OpId] == nil {
			s.pace[op.OpId] = &operation.Pace{}
		}
		ch, err := operation.Next(op, w, s.pace[op.OpId])
		if err != nil {
			return "", err
		}
		b.WriteString(s.apply(ch))
	}
	return b.String(), nil
}

func (s *story) changeNode(c *datadriven.TestData) (string, error) {
	old := s.node(number(c, "id"))
	change := clusterpb.NodeChange(clusterpb.NodeChange_value["NODE_CHANGE_"+strings.ToUpper(word(c, "change"))])
	rec, err := operation.ChangeNode(old, change, s.now)
	if err != nil {
		return "", err
	}
	out := s.apply(operation.Change{Nodes: []*metapb.NodeRecord{rec}})
	for _, op := range slices.Clone(s.ops) {
		if operation.Undone(op, rec) {
			out += s.apply(operation.Change{Op: operation.Released(op, rec.NodeId, s.now)})
		}
	}
	return out, nil
}

func (s *story) node(id uint64) *metapb.NodeRecord { return s.nodes[id-1] }
func (s *story) op(id uint64) *metapb.Operation    { return s.ops[id-1] }

// apply writes a change, and says what of it is new.
func (s *story) apply(ch operation.Change) string {
	var b strings.Builder
	for _, n := range ch.Nodes {
		old := s.node(n.NodeId)
		if n.Generation != old.Generation+1 {
			fmt.Fprintf(&b, "GENERATION of n%d: %d after %d\n", n.NodeId, n.Generation, old.Generation)
		}
		s.nodes[n.NodeId-1] = n
		fmt.Fprintf(&b, "n%d: %s", n.NodeId, liveness.StateName(n.State))
		for _, f := range []struct {
			on   bool
			name string
		}{{n.Cordoned, "cordoned"}, {n.Draining, "draining"}, {n.Epoch != old.Epoch, fmt.Sprintf("epoch %d", n.Epoch)}} {
			if f.on {
				b.WriteString(", " + f.name)
			}
		}
		b.WriteString("\n")
	}
	if op := ch.Op; op != nil {
		if op.OpId > uint64(len(s.ops)) {
			s.ops = append(s.ops, op)
		} else if old := s.op(op.OpId); old != op && op.Generation != old.Generation+1 {
			fmt.Fprintf(&b, "GENERATION of %d: %d after %d\n", op.OpId, op.Generation, old.Generation)
		}
		s.ops[op.OpId-1] = op
		fmt.Fprintf(&b, "op %d, %s: %s", op.OpId, operation.Describe(op), operation.State(op.State))
		if op.Total > 0 {
			fmt.Fprintf(&b, ", %d of %d left", op.Left, op.Total)
		}
		if op.EstimateMicros > 0 {
			fmt.Fprintf(&b, ", %d s", op.EstimateMicros/1_000_000)
		}
		if op.Waiting+op.Outcome != "" {
			b.WriteString("; " + op.Waiting + op.Outcome)
		}
		b.WriteString("\n")
	}
	return b.String()
}
