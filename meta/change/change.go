// Package change brings a range's replicas to where they are wanted, one legal step at a time.
//
// Next is the whole of it: a function of the descriptor as stored, of what the leader observes, and of the goal. There
// is no plan that could be lost: whoever leads the range next, on whatever node, derives the same next step. A step
// that was lost is derived again; a step that was carried out twice is refused by the generation the second time.
//
// The order. A joint configuration left behind is left first. Learners that nobody wants go. Then one new replica at a
// time: add it as a learner, wait until it has caught up, and make it a voter, in a swap if a voter is to go. Last,
// voters are removed for which none came in, and leadership goes where it is wanted. It moves before its replica is
// removed, and inside the joint configuration if it is swapped out.
//
// Guarantees. A step from a configuration in which the replicas seen alive are a quorum leads to one in which they are;
// where none does, Next waits. A replica that is wanted is not removed, except where it goes out of a joint
// configuration that an earlier goal began. What Next observes may be old: then a step may be useless, never unsafe, for
// Raft commits it only with the quorums of the configuration that holds at that time.
package change

import (
	"fmt"
	"slices"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/raftgroup"
)

// Short names of the generated enum.
const (
	voter    = metapb.ReplicaRole_REPLICA_ROLE_VOTER
	learner  = metapb.ReplicaRole_REPLICA_ROLE_LEARNER
	outgoing = metapb.ReplicaRole_REPLICA_ROLE_OUTGOING
)

// Observed is what the range's leader knows of its replicas.
type Observed struct {
	// Leader is the replica that observes. 0: it is not known who leads, and nothing can be done.
	Leader base.ReplicaID
	// Last is the last index of the leader's log.
	Last uint64
	// Progress is what the leader knows of each replica, as in raftgroup.Status.
	Progress []raftgroup.Progress
	// Down are the nodes that are held to be down; the order does not matter.
	Down []base.NodeID
}

// Observe takes from a leader's status what Next needs.
func Observe(s *raftgroup.Status, down []base.NodeID) Observed {
	o := Observed{Last: s.Last, Progress: s.Progress, Down: down}
	if s.Role == raftgroup.Leader {
		o.Leader = s.Replica
	}
	return o
}

// Goal is where the range's voters are to be. There is always at least one.
type Goal struct {
	Voters []base.NodeID // ascending
	Leader base.NodeID   // who is to lead once they are there; 0: anyone of them
}

// On is the goal that the voters are on just these nodes.
func On(nodes ...base.NodeID) Goal {
	g := Goal{Voters: slices.Clone(nodes)}
	slices.Sort(g.Voters)
	return g
}

// Step is what to do now: at most one of Propose and Transfer is set; if neither is, there is nothing to do but wait
// for what Reason says.
type Step struct {
	// Propose is the descriptor after the change, one legal step (desc.Check) from the present one.
	Propose *metapb.RangeDescriptor
	// Transfer is the replica that is to lead.
	Transfer base.ReplicaID
	// Reason says why, for the event log.
	Reason string
}

// Next returns the next step from d to the goal, or true if there is none.
func Next(d *metapb.RangeDescriptor, o Observed, g Goal) (Step, bool) {
	s := state{d: d, o: o, g: g}
	if len(g.Voters) == 0 {
		return wait("the goal names no voter"), false
	}
	if desc.Replica(d, o.Leader) == nil {
		return wait("no replica leads"), false
	}
	for _, rule := range []func() (Step, bool){s.leaveJoint, s.dropLearner, s.promote, s.addLearner, s.removeVoter, s.lead} {
		if step, ok := rule(); ok {
			return step, false
		}
	}
	return Step{}, true
}

// LeaveJoint is what a range's leader does without being told: the step out of a joint configuration that was left behind. True if
// there is none.
func LeaveJoint(d *metapb.RangeDescriptor, o Observed) (Step, bool) {
	s := state{d: d, o: o}
	if desc.Replica(d, o.Leader) == nil {
		return wait("no replica leads"), !desc.Joint(d)
	}
	step, ok := s.leaveJoint()
	return step, !ok
}

// state is the arguments of Next. Each rule returns its step, and whether it has one.
type state struct {
	d *metapb.RangeDescriptor
	o Observed
	g Goal
}

// leaveJoint repairs a joint configuration, whoever began it and whatever for.
func (s *state) leaveJoint() (Step, bool) {
	if !desc.Joint(s.d) || mutant.Is(mutant.JointNeverLeft) {
		return Step{}, false
	}
	if leader := desc.Replica(s.d, s.o.Leader); leader.Role == outgoing {
		return s.moveLeader("the leader is going out"), true
	}
	return propose("leave the joint configuration")(desc.LeaveJoint(s.d)), true
}

// dropLearner removes a learner from a node that is to have no replica.
func (s *state) dropLearner() (Step, bool) {
	for _, r := range s.d.Replicas {
		if r.Role == learner && !s.wanted(r) {
			return propose("no replica is wanted on %s", node(r))(desc.RemoveLearner(s.d, id(r))), true
		}
	}
	return Step{}, false
}

// promote makes the first learner that has caught up a voter: in place of one that is to go, if that one is not alive or
// there are voters enough, and beside the others as long as there are too few.
func (s *state) promote() (Step, bool) {
	for _, r := range s.d.Replicas {
		if r.Role != learner || !s.caughtUp(r) && !mutant.Is(mutant.LearnerPromotedEarly) {
			continue
		}
		if out := s.leaving(); out != nil && (!s.alive(out) || s.voters() >= len(s.g.Voters)) {
			return propose("%s comes in, %s goes out", node(r), node(out))(desc.BeginSwap(s.d, id(r), id(out))), true
		}
		return propose("%s has caught up", node(r))(desc.Promote(s.d, id(r))), true
	}
	return Step{}, false
}

// addLearner adds a replica where one is missing, unless another is on its way already: one snapshot at a time. A
// learner whose node is down holds nothing up if another can come meanwhile.
func (s *state) addLearner() (Step, bool) {
	var coming *metapb.Replica
	for _, r := range s.d.Replicas {
		if r.Role == learner && (coming == nil || s.down(coming)) {
			coming = r
		}
	}
	if coming != nil && !s.down(coming) {
		return wait("%s has not caught up", node(coming)), true
	}
	var missing base.NodeID
	for _, n := range s.g.Voters {
		if desc.ReplicaOn(s.d, n) != nil {
			continue
		}
		if !slices.Contains(s.o.Down, n) {
			return propose("%s lacks its replica", n)(desc.AddLearner(s.d, n)), true
		}
		missing = n
	}
	switch {
	case coming != nil:
		return wait("%s is down", node(coming)), true
	case missing != 0:
		return wait("%s is down", missing), true
	}
	return Step{}, false
}

// removeVoter removes a voter for which none comes in, if a quorum of those that stay has caught up.
func (s *state) removeVoter() (Step, bool) {
	r := s.leaving()
	if r == nil {
		return Step{}, false
	}
	if id(r) == s.o.Leader {
		return s.moveLeader("the leader is to be removed"), true
	}
	voters, alive := 0, 0
	for _, v := range s.d.Replicas {
		if v.Role != voter || v == r {
			continue
		}
		voters++
		if s.caughtUp(v) {
			alive++
		}
	}
	if 2*alive <= voters && !mutant.Is(mutant.RemovalBelowQuorum) {
		return wait("without %s only %d of %d voters would have caught up", node(r), alive, voters), true
	}
	return propose("no replica is wanted on %s", node(r))(desc.RemoveVoter(s.d, id(r))), true
}

// lead hands leadership to the node that is wanted for it, once its voter has caught up.
func (s *state) lead() (Step, bool) {
	r := desc.ReplicaOn(s.d, s.g.Leader)
	switch {
	case s.g.Leader == 0 || r == nil || r.Role != voter || id(r) == s.o.Leader:
		return Step{}, false
	case !s.caughtUp(r):
		return wait("%s is to lead and has not caught up", node(r)), true
	}
	return Step{Transfer: id(r), Reason: fmt.Sprintf("%s is to lead", node(r))}, true
}

// leaving is the voter to go next: one that is not alive before one that is, the leader last, then by replica id.
// Nil if all are wanted.
func (s *state) leaving() *metapb.Replica {
	var best *metapb.Replica
	rank := func(r *metapb.Replica) int {
		switch {
		case id(r) == s.o.Leader:
			return 2
		case s.alive(r):
			return 1
		}
		return 0
	}
	for _, r := range s.d.Replicas {
		if r.Role == voter && !s.wanted(r) && (best == nil || rank(r) < rank(best)) {
			best = r
		}
	}
	return best
}

// moveLeader hands leadership to the voter that is to stay and has the most of the log.
func (s *state) moveLeader(reason string) Step {
	var best *metapb.Replica
	rank := func(r *metapb.Replica) uint64 { // no log is longer than 1<<62: what is wanted comes first
		switch {
		case node(r) == s.g.Leader:
			return 1 << 63
		case s.wanted(r):
			return s.progress(r).Match + 1<<62
		}
		return s.progress(r).Match
	}
	for _, r := range s.d.Replicas {
		inNew, _ := desc.Votes(r.Role)
		if inNew && id(r) != s.o.Leader && s.caughtUp(r) && (best == nil || rank(r) > rank(best)) {
			best = r
		}
	}
	if best == nil {
		return wait("%s, and no other voter has caught up", reason)
	}
	return Step{Transfer: id(best), Reason: fmt.Sprintf("%s; %s leads", reason, node(best))}
}

func (s *state) voters() (n int) {
	for _, r := range s.d.Replicas {
		if r.Role == voter {
			n++
		}
	}
	return n
}

func (s *state) wanted(r *metapb.Replica) bool { return slices.Contains(s.g.Voters, node(r)) }
func (s *state) down(r *metapb.Replica) bool   { return slices.Contains(s.o.Down, node(r)) }

func (s *state) progress(r *metapb.Replica) raftgroup.Progress {
	for _, p := range s.o.Progress {
		if p.Replica == id(r) {
			return p
		}
	}
	return raftgroup.Progress{}
}

// alive says whether the replica takes part in decisions now, as far as is seen.
func (s *state) alive(r *metapb.Replica) bool {
	return id(r) == s.o.Leader || !s.down(r) && s.progress(r).Recent
}

// caughtUp says whether the replica can take over a vote, or leadership, without holding up the range.
func (s *state) caughtUp(r *metapb.Replica) bool {
	p := s.progress(r)
	return s.alive(r) && p.State == "replicate" && p.Match+base.CaughtUpEntries >= s.o.Last
}

func id(r *metapb.Replica) base.ReplicaID { return base.ReplicaID(r.ReplicaId) }
func node(r *metapb.Replica) base.NodeID  { return base.NodeID(r.NodeId) }

func wait(reason string, args ...any) Step { return Step{Reason: fmt.Sprintf(reason, args...)} }

// propose makes a step of what desc says. A step that is not legal now (too many replicas) is waited for.
func propose(reason string, args ...any) func(*metapb.RangeDescriptor, error) Step {
	return func(next *metapb.RangeDescriptor, err error) Step {
		if err != nil {
			return wait("%s, but %v", fmt.Sprintf(reason, args...), err)
		}
		return Step{Propose: next, Reason: fmt.Sprintf(reason, args...)}
	}
}

// Behind are the nodes whose replica takes no part now, or lies behind the log by more than a voter may; ascending.
func Behind(d *metapb.RangeDescriptor, o Observed) (nodes []base.NodeID) {
	s := state{d: d, o: o}
	for _, r := range d.GetReplicas() {
		if !s.caughtUp(r) && id(r) != o.Leader {
			nodes = append(nodes, node(r))
		}
	}
	slices.Sort(nodes)
	return nodes
}
