// Package merge brings two neighbours together, and ends what another began: one merge as a value that is stepped. Next says what
// to do (propose, ask nodes to confirm, look a descriptor up), whoever drives it does that and tells how it ended, and so on until
// Next says Done. The node and the simulator drive the same.
//
// The steps and why no crash between two of them leaves a hole or an overlap are told in docs/life-of-a-split.md; which steps are
// legal, in meta/desc. In short: Begin freezes the right range, has all its nodes confirm that they hold all of it on disk, and
// has the left one take it over. If that cannot be done it is given up in the left one's log, and only then does the right one
// thaw. Resume ends what stands frozen after whoever began it is gone, by what the left one says has become of it. Finish lets the
// left one change again, once most of the right one's replicas are gone.
//
// A Run keeps nothing that could be lost: any number may be under way for one range, on several nodes, for every step is guarded
// by the generation that it expects.
package merge

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
	"github.com/cairndb/cairn/meta/desc"
)

// Step is what a Run wants done next. Exactly one field is set.
type Step struct {
	Propose *Proposal
	Confirm *Confirm
	Look    *Look
	Done    *Done
}

// Proposal asks for a command to be proposed to the range that holds a key. Answered tells how that ended.
type Proposal struct {
	Keyspace base.KeyspaceID
	Key      []byte
	Command  *kvpb.Command
}

// Confirm asks nodes whether their replicas of a range have durably applied a generation of it (store.Confirm). Confirmed tells how
// many said so; the others need not be waited for once Need have.
type Confirm struct {
	Nodes      []base.NodeID
	Range      base.RangeID
	Generation base.Generation
	Need       int
}

// Look asks for the descriptor of the range that holds a key, read linearizably from that range. Found tells it.
type Look struct {
	Keyspace base.KeyspaceID
	Key      []byte
}

// Done ends a Run: Merged if the left range has taken the right one over, or has done so before; Err says why not, or why that is
// not known.
type Done struct {
	Merged *metapb.RangeDescriptor
	Err    error
}

// ErrGivenUp: the merge was given up, and both ranges go on as they were.
var ErrGivenUp = errors.New("the merge was given up")

// tries bounds the looks and proposals of a Run: each of its steps may lose a race or two.
const tries = 16

// Run is one merge under way.
type Run struct {
	left, right *metapb.RangeDescriptor // right is nil in Finish
	frozen      *kvpb.FrozenRange
	next        Step
	why         error // it is to be given up
	budget      int   // of looks and answers that are left
}

// Begin merges right into left.
func Begin(left, right *metapb.RangeDescriptor) *Run {
	r := &Run{left: left, right: right, budget: tries}
	if err := desc.Mergeable(left, right); err != nil {
		return r.done(nil, err)
	}
	r.propose(right, &kvpb.Command{Body: &kvpb.Command_Freeze{Freeze: &kvpb.Freeze{ExpectedGeneration: right.Generation, Left: left}}})
	return r
}

// Resume ends the merge for which right is frozen.
func Resume(right *metapb.RangeDescriptor) *Run {
	r := &Run{right: right, budget: tries}
	if !desc.IsFrozen(right) {
		return r.done(nil, fmt.Errorf("%s is not frozen", base.RangeID(right.RangeId)))
	}
	r.look()
	return r
}

// Finish lets left, which has taken another range over, change again.
func Finish(left *metapb.RangeDescriptor) *Run {
	r := &Run{left: left, budget: tries}
	if left.Absorbing == 0 {
		return r.done(left, nil)
	}
	nodes := nodesOf(left)
	r.confirm(left, nodes, len(nodes)/2+1)
	if mutant.Is(mutant.AbsorbedAtOnce) {
		r.Confirmed(len(nodes))
	}
	return r
}

// Next is what is to be done now.
func (r *Run) Next() Step { return r.next }

// Answered tells how the proposal ended.
func (r *Run) Answered(m proto.Message, err error) {
	var ambiguous *base.Ambiguous
	if errors.As(err, &ambiguous) || r.budget <= 0 {
		// It may have happened. Whoever leads the right range finds out, once it has been frozen for long enough.
		r.done(nil, err)
		return
	}
	r.budget--
	switch m := m.(type) {
	case *kvpb.FreezeResponse:
		if err == nil {
			r.froze(m.Right)
			return
		}
	case *kvpb.MergeResponse:
		if err == nil {
			r.done(m.Descriptor_, nil)
			return
		}
	case *kvpb.AbsorbedResponse:
		if err == nil {
			r.done(m.Descriptor_, nil)
			return
		}
	case *kvpb.ThawResponse:
		if err == nil {
			r.done(nil, r.givenUp())
			return
		}
	}
	var stale *base.StaleGeneration
	if _, thaw := r.next.Propose.Command.Body.(*kvpb.Command_Thaw); thaw && errors.As(err, &stale) {
		r.done(nil, r.givenUp()) // somebody else had it thaw
		return
	}
	r.refused(err)
}

// refused goes on after a proposal that changed nothing, or one after which one has to look.
func (r *Run) refused(err error) {
	switch {
	case r.frozen == nil && !desc.IsFrozen(r.right):
		r.done(nil, err) // nothing was begun
	default:
		if r.why == nil {
			r.why = err
		}
		r.look()
	}
}

func (r *Run) froze(f *kvpb.FrozenRange) {
	r.frozen, r.right = f, f.Descriptor_
	nodes := nodesOf(r.right)
	r.confirm(r.right, nodes, len(nodes))
	if mutant.Is(mutant.MergeUnconfirmed) {
		r.Confirmed(len(nodes))
	}
}

// Confirmed tells how many nodes confirmed.
func (r *Run) Confirmed(n int) {
	need := r.next.Confirm.Need
	switch {
	case r.right == nil && n < need:
		r.done(nil, fmt.Errorf("%d of %d nodes have not confirmed the merge yet", need-n, need))
	case r.right == nil:
		r.propose(r.left, &kvpb.Command{Body: &kvpb.Command_Absorbed{Absorbed: &kvpb.Absorbed{ExpectedGeneration: r.left.Generation}}})
	case n < need:
		r.why = fmt.Errorf("%d of %d nodes have not confirmed that they have all of it", need-n, need)
		r.giveUp(r.left)
	default:
		r.propose(r.left, &kvpb.Command{Body: &kvpb.Command_Merge{Merge: &kvpb.Merge{ExpectedGeneration: r.left.Generation, Right: r.frozen}}})
	}
}

// Found tells what holds the left range's first key.
func (r *Run) Found(now *metapb.RangeDescriptor, err error) {
	if r.budget--; err != nil || r.budget <= 0 {
		r.done(nil, errors.Join(errNotResolved, err))
		return
	}
	fate := desc.Fate(r.right, now)
	if mutant.Is(mutant.ThawAnyway) && fate == desc.Undecided {
		fate = desc.GoesOn
	}
	switch fate {
	case desc.Merged:
		r.done(now, nil)
	case desc.Undecided:
		r.giveUp(now)
	case desc.GoesOn:
		r.propose(r.right, &kvpb.Command{Body: &kvpb.Command_Thaw{Thaw: &kvpb.Thaw{ExpectedGeneration: r.right.Generation, Left: now}}})
	default:
		r.done(nil, errNotResolved)
	}
}

var errNotResolved = errors.New("what has become of the merge is not known yet")

func (r *Run) givenUp() error {
	if r.why == nil {
		return ErrGivenUp
	}
	return fmt.Errorf("%w: %w", ErrGivenUp, r.why)
}

func (r *Run) giveUp(left *metapb.RangeDescriptor) {
	r.propose(left, &kvpb.Command{Body: &kvpb.Command_GiveUpMerge{GiveUpMerge: &kvpb.GiveUpMerge{ExpectedGeneration: left.Generation}}})
}

func (r *Run) propose(to *metapb.RangeDescriptor, cmd *kvpb.Command) {
	r.next = Step{Propose: &Proposal{Keyspace: base.KeyspaceID(to.KeyspaceId), Key: to.Start, Command: cmd}}
}

func (r *Run) confirm(d *metapb.RangeDescriptor, nodes []base.NodeID, need int) {
	r.next = Step{Confirm: &Confirm{Nodes: nodes, Range: base.RangeID(d.RangeId), Generation: desc.Generation(d), Need: need}}
}

func (r *Run) look() {
	r.next = Step{Look: &Look{Keyspace: base.KeyspaceID(r.right.KeyspaceId), Key: r.right.GetFrozen().GetIntoStart()}}
}

func (r *Run) done(merged *metapb.RangeDescriptor, err error) *Run {
	r.next = Step{Done: &Done{Merged: merged, Err: err}}
	return r
}

func nodesOf(d *metapb.RangeDescriptor) (nodes []base.NodeID) {
	for _, rep := range d.Replicas {
		nodes = append(nodes, base.NodeID(rep.NodeId))
	}
	return nodes
}
