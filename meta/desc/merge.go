package desc

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/internal/mutant"
)

// The steps of a merge, which two neighbours take in turn, each in its own log. The right one freezes for just this left one at
// just this generation. Then the left one either takes it over, or grows its generation by whatever it does, GiveUp at the
// least, so that it never will; and only that lets the right one thaw. So between the two there is one decision, in one log.
//
// A left one that has taken its neighbour over changes in nothing else until Absorbed: it could be cut again at the very key
// where the other began, and would look as one that has given the merge up. Until most replicas of the other are gone, those
// that have not heard of the merge could believe that, and thaw.

var (
	errFrozen    = errors.New("the range is frozen, to be merged into its left neighbour")
	errAbsorbing = errors.New("the range has just taken over its right neighbour, whose replicas are not gone yet")
)

// IsFrozen says whether the range takes no writes, because it may be another's at any moment.
func IsFrozen(d *metapb.RangeDescriptor) bool { return d.GetFrozen() != nil }

// Freeze begins a merge: the right one of two neighbours on the same nodes changes in nothing from then on.
func Freeze(left, right *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	if err := Mergeable(left, right); err != nil {
		return nil, err
	}
	next := successor(right)
	next.Frozen = &metapb.Frozen{IntoRangeId: left.RangeId, IntoGeneration: left.Generation, IntoStart: left.Start}
	return next, nil
}

// Mergeable says why two ranges cannot be merged as they are; nil if they can.
func Mergeable(left, right *metapb.RangeDescriptor) error {
	switch {
	case !Neighbours(left, right):
		return fmt.Errorf("%s does not end where %s begins", Format(left), Format(right))
	case busy(left) != nil:
		return fmt.Errorf("the left one: %w", busy(left))
	case busy(right) != nil:
		return fmt.Errorf("the right one: %w", busy(right))
	case !SameNodes(left, right):
		return errors.New("their replicas are on different nodes, or do not all vote")
	}
	return nil
}

// Merge ends a merge: the left one takes over the keys of the right one, which is frozen for it.
func Merge(left, right *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	f := right.GetFrozen()
	switch {
	case f == nil || f.IntoRangeId != left.GetRangeId() || f.IntoGeneration != left.GetGeneration():
		return nil, fmt.Errorf("%s is not frozen for generation %d of %s", base.RangeID(right.GetRangeId()), left.GetGeneration(), base.RangeID(left.GetRangeId()))
	case !Neighbours(left, right) || !SameNodes(left, right) || busy(left) != nil:
		return nil, errors.New("they were to be neighbours on the same nodes") // or it would not be frozen for just this
	}
	next := successor(left)
	next.End, next.Absorbing = bytes.Clone(right.End), right.RangeId
	next.Generation = max(left.Generation, right.Generation) + 1 // it takes the places of both in every cache and index
	return next, nil
}

// Absorbed lets a range that has taken another over change again.
func Absorbed(d *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	if d.GetAbsorbing() == 0 {
		return nil, errors.New("it has taken no other over")
	}
	next := successor(d)
	next.Absorbing = 0
	return next, nil
}

// GiveUp ends a merge the other way: after it no Merge that was planned before can take effect.
func GiveUp(left *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	if err := busy(left); err != nil {
		return nil, err
	}
	return successor(left), nil
}

// Thaw has a frozen range go on. What holds its left neighbour's first key now proves that it will never be taken over.
func Thaw(right, now *metapb.RangeDescriptor) (*metapb.RangeDescriptor, error) {
	if fate := Fate(right, now); fate != GoesOn && !(mutant.Is(mutant.ThawAnyway) && fate == Undecided) {
		return nil, fmt.Errorf("%s may still be merged, by what %s says", base.RangeID(right.GetRangeId()), Format(now))
	}
	next := successor(right)
	next.Frozen = nil
	return next, nil
}

// Verdict is what becomes of a frozen range.
type Verdict int

// The verdicts.
const (
	Unknown   Verdict = iota // what was found says nothing of it: look again
	Undecided                // the left neighbour may take it over, or give that up
	GoesOn                   // it never will be taken over: it may thaw
	Merged                   // it was: this replica is a remnant
)

// Fate says what becomes of a frozen range, by the descriptor that holds its left neighbour's first key, as that range's own
// leader had it after the freeze. A range keeps its first key and its id until it is taken over itself, for which its generation
// grows before.
func Fate(right, now *metapb.RangeDescriptor) Verdict {
	f, ks := right.GetFrozen(), base.KeyspaceID(right.GetKeyspaceId())
	switch {
	case f == nil || !Contains(now, ks, f.IntoStart) || now.RangeId == right.RangeId:
		return Unknown
	case Contains(now, ks, right.Start) && now.Generation > right.Generation:
		return Merged
	case Contains(now, ks, right.Start):
		return Unknown // from before it was cut off
	case now.RangeId == f.IntoRangeId && now.Generation < f.IntoGeneration:
		return Unknown // older than the freeze
	case now.RangeId == f.IntoRangeId && now.Generation == f.IntoGeneration:
		return Undecided
	}
	// It has gone on without this one. (Had it taken this one over, and been cut again at the same key since, then most replicas
	// of this one would be gone: what the others decide is never committed.)
	return GoesOn
}

// Neighbours says whether right begins where left ends.
func Neighbours(left, right *metapb.RangeDescriptor) bool {
	return left.GetKeyspaceId() == right.GetKeyspaceId() && left.GetRangeId() != right.GetRangeId() &&
		len(left.GetEnd()) > 0 && bytes.Equal(left.GetEnd(), right.GetStart())
}

// SameNodes says whether two ranges have voters on the same nodes, and no other replicas.
func SameNodes(a, b *metapb.RangeDescriptor) bool {
	if len(a.GetReplicas()) != len(b.GetReplicas()) {
		return false
	}
	for _, r := range a.GetReplicas() {
		other := ReplicaOn(b, base.NodeID(r.NodeId))
		if r.Role != voter || other == nil || other.Role != voter {
			return false
		}
	}
	return true
}

// busy says why no step but the one that ends what was begun is legal now.
func busy(d *metapb.RangeDescriptor) error {
	switch {
	case Joint(d):
		return errJoint
	case IsFrozen(d):
		return errFrozen
	case d.GetAbsorbing() != 0:
		return errAbsorbing
	}
	return nil
}

// Busy is what a request to a frozen range is answered with: the range thaws, or is another's, in a moment.
func Busy(d *metapb.RangeDescriptor) error {
	return &base.Throttled{What: base.RangeID(d.GetRangeId()).String() + ", which is being merged", RetryAfter: base.ThrottleRetry}
}

func validateFrozen(d *metapb.RangeDescriptor) error {
	f := d.GetFrozen()
	switch {
	case d.Absorbing != 0 && (d.Absorbing == d.RangeId || Joint(d)):
		return fmt.Errorf("it has taken over %s, and has a joint configuration, or is that range", base.RangeID(d.Absorbing))
	case f == nil:
		return nil
	case f.IntoRangeId == 0 || f.IntoRangeId == d.RangeId || f.IntoGeneration == 0:
		return fmt.Errorf("it is frozen for generation %d of %s", f.IntoGeneration, base.RangeID(f.IntoRangeId))
	case len(d.Start) == 0 || Joint(d) || d.Absorbing != 0:
		return errors.New("it is frozen, and has no left neighbour, or another step under way")
	}
	return nil
}
