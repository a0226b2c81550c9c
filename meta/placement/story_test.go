package placement_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/placement"
)

// TestStories runs the dialogues in testdata/stories in a world without lost messages. Verbs: cluster (nodes=; a descriptor a line),
// decider (at=: a new one), dies (at=), run (for=), down and up (node=), state (node=, is=), cordon (node=), against (node=, the input
// says what its reservations are refused with), relocate (range=, voters=(…), lead=), becomes (a descriptor: by somebody
// else's doing), slow (learners
// take a minute to catch up), load (node=, the input is its NodeLoad), pause (of the last operation), deaf and hears (of the leaders of
// ranges), old (they know of no withdrawals), why (range=), underway. What the deciders tell is printed, and what the ranges have become.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{}
		datadriven.RunTest(t, path, func(t *testing.T, c *datadriven.TestData) string { return s.verb(t, c) })
	})
}

type story struct {
	w     *world
	shown map[base.RangeID]string
}

func (s *story) verb(t *testing.T, c *datadriven.TestData) string {
	var node, id, at, lead uint64
	for key, to := range map[string]*uint64{"node": &node, "range": &id, "at": &at, "lead": &lead} {
		c.MaybeScanArgs(t, key, to)
	}
	h := func() *host { return s.w.nodes[base.NodeID(node)] }
	switch c.Cmd {
	case "cluster":
		var nodes int
		c.ScanArgs(t, "nodes", &nodes)
		s.w, s.shown = newWorld(7, nodes), make(map[base.RangeID]string)
		s.w.policy[0].Cluster.NoBalance = true
		for _, l := range strings.Split(c.Input, "\n") {
			s.w.addRange(parse(t, l))
		}
	case "decider":
		s.w.decider(int(at) - 1)
	case "dies":
		s.w.deciders[at-1] = nil
	case "run":
		d := time.Second
		for _, arg := range c.CmdArgs {
			if v, err := time.ParseDuration(arg.Vals[0]); err == nil && arg.Key == "for" {
				d = v
			}
		}
		s.w.run(d)
	case "slow":
		s.w.catchUp = time.Minute
	case "deaf", "hears":
		s.w.deaf = c.Cmd == "deaf"
	case "old":
		s.w.old = true
	case "down", "up":
		h().down = c.Cmd == "down"
	case "state":
		var is string
		c.ScanArgs(t, "is", &is)
		h().set(func(r *metapb.NodeRecord) {
			r.State = metapb.NodeState(metapb.NodeState_value["NODE_STATE_"+strings.ToUpper(is)])
		})
	case "cordon":
		h().set(func(r *metapb.NodeRecord) { r.Cordoned = true })
	case "against":
		h().against = c.Input
	case "load":
		l := &metapb.NodeLoad{}
		if err := prototext.Unmarshal([]byte(c.Input), l); err != nil {
			t.Fatal(err)
		}
		h().health.Load = l
	case "relocate":
		op := &metapb.Operation{OpId: uint64(len(s.w.ops) + 1), Kind: metapb.OperationKind_OPERATION_KIND_RELOCATE, RangeId: id, Leader: lead, State: metapb.OperationState_OPERATION_STATE_RUNNING}
		for _, a := range c.CmdArgs {
			for _, v := range a.Vals {
				var n uint64
				if _, err := fmt.Sscan(v, &n); err == nil && a.Key == "voters" {
					op.Voters = append(op.Voters, n)
				}
			}
		}
		s.w.ops = append(s.w.ops, op)
	case "pause":
		s.w.ops[len(s.w.ops)-1].State = metapb.OperationState_OPERATION_STATE_PAUSED
	case "becomes":
		d := parse(t, c.Input)
		s.w.ranges[base.RangeID(d.RangeId)].desc = d
	case "why":
		return explain(s.w.deciders[0].Explain(base.RangeID(id)))
	case "underway":
		return s.underway()
	default:
		c.Fatalf(t, "there is no verb %s", c.Cmd)
	}
	return s.says()
}

func parse(t *testing.T, s string) *metapb.RangeDescriptor {
	d, err := desctest.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// says is what the deciders told since the last verb, and the ranges that are others now.
func (s *story) says() string {
	out := s.w.log.String()
	s.w.log.Reset()
	for _, id := range slices.Sorted(maps.Keys(s.w.ranges)) {
		r := s.w.ranges[id]
		now := fmt.Sprintf("%s, led by %s\n", desc.Format(r.desc), r.leader)
		if s.shown[id] != now {
			s.shown[id] = now
			out += now
		}
	}
	return out
}

func (s *story) underway() (out string) {
	for i, d := range s.w.deciders {
		if d == nil {
			continue
		}
		for _, e := range d.UnderWay() {
			out += fmt.Sprintf("d%d: %s: reserved %v, directed %v, %q; %s\n", i+1, e.Range, e.Reserved, e.Directed, e.Doing, e.Waiting)
		}
		for _, h := range d.Withheld() {
			out += fmt.Sprintf("d%d: withheld: %s, of %d ranges: %s\n", i+1, placement.GoalName(h.Goal), h.Count, h.Reason)
		}
	}
	return out
}

func explain(x *metapb.Explanation) (out string) {
	if x == nil {
		return "not known\n"
	}
	out = fmt.Sprintf("decision: %s\nreason: %s\ngoal: %s\nunder way: %s\n", x.Decision, x.Reason, x.Goal, x.UnderWay)
	for _, c := range x.Candidates {
		out += fmt.Sprintf("  n%d holds=%v allowed=%v %v\n", c.NodeId, c.Holds, c.Allowed, c.Against)
	}
	for _, a := range x.Advice {
		out += "advice: " + a + "\n"
	}
	return out
}

// TestReservations runs the dialogue in testdata/reservations. Verbs: reserve (decider, seq, range, mib, urgent, release), wait (for);
// what the node can say of itself is set by room (a line each: against, moves, snapshots, disk, used in GiB).
func TestReservations(t *testing.T) {
	r, now, room := placement.NewReservations(), base.Instant(0), placement.Room{Moves: 2}
	datadriven.RunTest(t, "testdata/reservations", func(t *testing.T, c *datadriven.TestData) string {
		switch c.Cmd {
		case "room":
			room = placement.Room{Moves: 2, Against: c.Input}
			c.MaybeScanArgs(t, "moves", &room.Moves)
			c.MaybeScanArgs(t, "snapshots", &room.Snapshots)
			c.MaybeScanArgs(t, "disk", &room.DiskBytes)
			c.MaybeScanArgs(t, "used", &room.DiskUsed)
			room.DiskBytes, room.DiskUsed = room.DiskBytes<<30, room.DiskUsed<<30
		case "wait":
			var s int64
			c.ScanArgs(t, "seconds", &s)
			now = now.Add(time.Duration(s) * time.Second)
		case "reserve":
			m := &rangepb.Reserve{TimeoutMicros: 10_000_000}
			for key, to := range map[string]*uint64{"decider": &m.Decider, "seq": &m.Seq, "range": &m.RangeId, "mib": &m.Bytes} {
				c.MaybeScanArgs(t, key, to)
			}
			m.Bytes <<= 20
			m.Urgent, m.Release = c.HasArg("urgent"), c.HasArg("release")
			a := r.Reserve(m, room, now)
			ranges, bytes := r.Held(now)
			return fmt.Sprintf("granted=%v %s\nheld: %d ranges, %d MiB\n", a.Granted, a.Refused, ranges, bytes>>20)
		}
		return ""
	})
}
