package change

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/meta/desc"
)

// Follower is when the leader of a range does what a decider directs, and when no longer. There is one for each range that a node
// leads, from when it leads until it does not; nothing of it is kept beyond that. It has no clock: every call is told the time.
//
// The rule. A directive is followed as long as the range's descriptor is the one that was decided on, or one that the steps taken
// for this directive have led to. Whatever else changes the range (a split, a merge, another leader) ends it: the decider sees the
// new descriptor and decides anew. It ends, too, when it has not been renewed for its time-out. Of one decider the newest directive
// holds; of two deciders that both believe to decide the first, as long as it is renewed: a step that was taken for it refuses the
// other by the generation. Without a directive the leader leaves joint configurations, and does nothing else.
//
// What a decider gives up it withdraws: nothing more is done for it, from now on. What was begun is not undone here: a step that is in
// the log goes through, a joint configuration is left as always, to where it leads, and a learner stays until somebody says that it
// goes, for whoever decides next may want it. The withdrawal counts for what was sent before and comes after it, too, and a leader that
// has heard of no directive takes it like any other.
type Follower struct {
	decider, seq uint64
	goal         Goal
	at           uint64                  // the generation that was decided on, or that its own steps have led to
	proposed     *metapb.RangeDescriptor // by the step that was taken last
	until        base.Instant
	following    bool
	done         bool
	doing        string // the step that was taken last
	waiting      string // what the next one waits for
	withdrawn    withdrawal
}

// withdrawal is the last one that was heard: of that decider nothing up to seq is followed for as long as it may be on its way.
type withdrawal struct {
	decider, seq uint64
	until        base.Instant
}

// Direct takes in a directive; d is the range as applied here. It says why the directive is not followed; empty: it is.
func (f *Follower) Direct(m *rangepb.Directive, d *metapb.RangeDescriptor, now base.Instant) (refused string) {
	f.settle(d, now)
	if m.Withdraw {
		f.withdraw(m, now)
		return ""
	}
	same := f.following && f.decider == m.Decider && f.seq == m.Seq
	switch w := f.withdrawn; {
	case w.decider == m.Decider && w.seq >= m.Seq && now < w.until:
		return fmt.Sprintf("stale: %s has given it up", base.NodeID(m.Decider))
	case same:
		f.until = now.Add(micros(m.TimeoutMicros))
		return ""
	case f.following && f.decider == m.Decider && f.seq > m.Seq:
		return fmt.Sprintf("stale: %s has directed something newer", base.NodeID(m.Decider))
	case f.following && f.decider != m.Decider && !f.done:
		return fmt.Sprintf("%s directs the range, too, and was first", base.NodeID(f.decider))
	case m.ExpectedGeneration != d.Generation && !mutant.Is(mutant.DecisionWithoutGeneration):
		return fmt.Sprintf("stale: decided on at generation %d, it is at %d", m.ExpectedGeneration, d.Generation)
	}
	*f = Follower{decider: m.Decider, seq: m.Seq, at: d.Generation, until: now.Add(micros(m.TimeoutMicros)), following: true, withdrawn: f.withdrawn}
	f.goal = Goal{Leader: base.NodeID(m.Leader)}
	for _, n := range m.Voters {
		f.goal.Voters = append(f.goal.Voters, base.NodeID(n))
	}
	slices.Sort(f.goal.Voters)
	return ""
}

// withdraw ends what a decider has given up. What another directs, or that one since then, goes on.
func (f *Follower) withdraw(m *rangepb.Directive, now base.Instant) {
	if f.decider == m.Decider && f.seq <= m.Seq && !mutant.Is(mutant.WithdrawnGoesOn) {
		f.following = false
	}
	if w := f.withdrawn; w.decider == m.Decider && w.seq > m.Seq && now < w.until {
		return
	}
	f.withdrawn = withdrawal{m.Decider, m.Seq, now.Add(base.DirectTimeout + base.DecideAskTimeout)}
}

// Next is the step to take now, and true if there is none: the one towards where the directive wants the range or, if none is
// followed, the one out of a joint configuration. Whoever takes the step need not say so: the descriptor does.
func (f *Follower) Next(d *metapb.RangeDescriptor, o Observed, now base.Instant) (step Step, rest bool) {
	f.settle(d, now)
	if !f.following {
		return LeaveJoint(d, o)
	}
	goal := f.goal
	if len(goal.Voters) == 0 {
		goal.Voters = Voters(d)
	}
	step, f.done = Next(d, o, goal)
	switch {
	case f.done:
		f.waiting = ""
	case step.Propose != nil:
		f.doing, f.waiting, f.proposed = step.Reason, "", step.Propose
	case step.Transfer != 0:
		f.doing, f.waiting = step.Reason, ""
	default:
		f.waiting = step.Reason
	}
	return step, f.done
}

// Follows says whether a directive is followed now.
func (f *Follower) Follows(d *metapb.RangeDescriptor, now base.Instant) bool {
	f.settle(d, now)
	return f.following
}

// Over says whether nothing is followed, and nothing need be remembered.
func (f *Follower) Over(d *metapb.RangeDescriptor, now base.Instant) bool {
	return !f.Follows(d, now) && now >= f.withdrawn.until
}

// Answer is what the sender of a directive is told; refused is what Direct said of it. The bytes of a snapshot under way are added
// by whoever knows them.
func (f *Follower) Answer(m *rangepb.Directive, d *metapb.RangeDescriptor, refused string, now base.Instant) *rangepb.DirectiveAnswer {
	a := &rangepb.DirectiveAnswer{Refused: refused, Descriptor_: d}
	switch {
	case refused != "":
	case !m.Withdraw:
		a.Done, a.Doing, a.Waiting = f.done, f.doing, f.waiting
	case f.following || f.rests(d, now):
		a.Withdrawn = true
	default:
		a.Waiting = "a step that was begun is finished first"
	}
	return a
}

// rests says whether the range stays as it is if nobody directs it: no step that was taken waits to be applied, and no joint
// configuration to be left. A step that may have been lost is waited for as long as its directive would have held.
func (f *Follower) rests(d *metapb.RangeDescriptor, now base.Instant) bool {
	return !desc.Joint(d) && (now >= f.until || f.proposed.GetGeneration() <= d.Generation)
}

// settle ends a directive that holds no longer.
func (f *Follower) settle(d *metapb.RangeDescriptor, now base.Instant) {
	if !f.following {
		return
	}
	if now >= f.until && !mutant.Is(mutant.FollowForEver) {
		f.following = false
		return
	}
	if d.Generation == f.at {
		return
	}
	if f.proposed != nil && proto.Equal(f.proposed, d) {
		f.at, f.done = d.Generation, false
		return
	}
	f.following = mutant.Is(mutant.DecisionWithoutGeneration)
}

// Voters are the nodes whose replicas vote, and are to go on voting; ascending.
func Voters(d *metapb.RangeDescriptor) (nodes []base.NodeID) {
	for _, r := range d.GetReplicas() {
		if inNew, _ := desc.Votes(r.Role); inNew {
			nodes = append(nodes, node(r))
		}
	}
	slices.Sort(nodes)
	return nodes
}

func micros(n uint64) time.Duration {
	return time.Duration(min(n, uint64(time.Hour/time.Microsecond))) * time.Microsecond
}
