package apply_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/raftgroup"
)

func freeze(at, left *metapb.RangeDescriptor) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_Freeze{Freeze: &kvpb.Freeze{ExpectedGeneration: at.Generation, Left: left}}}
}

func thaw(at, left *metapb.RangeDescriptor) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_Thaw{Thaw: &kvpb.Thaw{ExpectedGeneration: at.Generation, Left: left}}}
}

func merge(expected uint64, right *kvpb.FrozenRange) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_Merge{Merge: &kvpb.Merge{ExpectedGeneration: expected, Right: right}}}
}

func giveUp(expected uint64) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_GiveUpMerge{GiveUpMerge: &kvpb.GiveUpMerge{ExpectedGeneration: expected}}}
}

func absorbed(expected uint64) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_Absorbed{Absorbed: &kvpb.Absorbed{ExpectedGeneration: expected}}}
}

// parseMerge reads the steps of a merge, each as one who knows the range as it is before it, unless it says otherwise: freeze <left
// descriptor> | freeze-stale … (generation 1) | thaw <what holds the left one's first key> | thaw-stale … | merge (of what the
// last freeze answered, as it was planned then) | merge-now (of the same, by the generation that the range has now) | merge-of
// <right descriptor> | give-up | give-up-stale | absorbed | absorbed-stale | raise <revision> | unpublish <generation>
// <descriptor> | unpublish-at <key> <generation>.
func (s *story) parseMerge(t *testing.T, verb, arg string, at *metapb.RangeDescriptor) (*kvpb.Command, *metapb.RangeDescriptor) {
	next := func(d *metapb.RangeDescriptor, err error) *metapb.RangeDescriptor {
		if err != nil {
			return at
		}
		return d
	}
	old := &metapb.RangeDescriptor{Generation: 1}
	switch first, second, _ := strings.Cut(arg, " "); verb {
	case "freeze":
		left := descriptor(t, arg)
		return freeze(at, left), next(desc.Freeze(left, at))
	case "freeze-stale":
		return freeze(old, descriptor(t, arg)), at
	case "thaw":
		left := descriptor(t, arg)
		return thaw(at, left), next(desc.Thaw(at, left))
	case "thaw-stale":
		return thaw(old, descriptor(t, arg)), at
	case "merge":
		planned := s.frozen.Descriptor_.Frozen.IntoGeneration
		if planned != at.Generation {
			return merge(planned, s.frozen), at
		}
		return merge(planned, s.frozen), next(desc.Merge(at, s.frozen.Descriptor_))
	case "merge-now":
		return merge(at.Generation, s.frozen), at
	case "merge-of":
		return merge(at.Generation, &kvpb.FrozenRange{Descriptor_: descriptor(t, arg), AppliedIndex: 12}), at
	case "give-up":
		return giveUp(at.Generation), next(desc.GiveUp(at))
	case "give-up-stale":
		return giveUp(1), at
	case "absorbed":
		return absorbed(at.Generation), next(desc.Absorbed(at))
	case "absorbed-stale":
		return absorbed(1), at
	case "raise":
		return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_RaiseRevision{RaiseRevision: &kvpb.RaiseRevision{Key: at.Start, Revision: number(t, first)}}}, at
	case "unpublish":
		return unpublish(route.DescriptorKey(descriptor(t, second)), number(t, first)), at
	case "unpublish-at":
		return unpublish([]byte(first), number(t, second)), at
	}
	if cmd := parseLease(t, verb, arg); cmd != nil {
		return cmd, at
	}
	t.Fatalf("there is no entry %q %q", verb, arg)
	return nil, nil
}

func number(t *testing.T, s string) (n int64) {
	_, err := fmt.Sscan(s, &n)
	must(t, err)
	return n
}

func unpublish(key []byte, generation int64) *kvpb.Command {
	return &kvpb.Command{NowMicros: 1000, Body: &kvpb.Command_UnpublishDescriptor{
		UnpublishDescriptor: &kvpb.UnpublishDescriptor{Key: key, Generation: uint64(generation)},
	}}
}

func (s *story) printMerge(b *strings.Builder, m proto.Message) {
	switch r := m.(type) {
	case *kvpb.FreezeResponse:
		s.frozen = r.Right
		fmt.Fprintf(b, "frozen at index %d, revision %d, compacted %d\n", r.Right.AppliedIndex, r.Right.Revision, r.Right.Compacted)
	case *kvpb.ThawResponse:
		fmt.Fprintf(b, "thawed: %s\n", desc.Format(r.Descriptor_))
	case *kvpb.MergeResponse:
		fmt.Fprintf(b, "merged: %s\n", desc.Format(r.Descriptor_))
	case *kvpb.GiveUpMergeResponse:
		fmt.Fprintf(b, "given up: %s\n", desc.Format(r.Descriptor_))
	case *kvpb.AbsorbedResponse:
		fmt.Fprintf(b, "absorbed: %s\n", desc.Format(r.Descriptor_))
	case *kvpb.UnpublishDescriptorResponse:
		fmt.Fprintf(b, "deleted %v\n", r.Deleted)
	default:
		printLease(b, m)
	}
}

// drawMergeStep draws a step of a merge of d with a neighbour on either side, legal or not, and what d is then.
func drawMergeStep(t *rapid.T, d *metapb.RangeDescriptor) (*kvpb.Command, *metapb.RangeDescriptor) {
	left := desc.Clone(d)
	left.RangeId, left.Start, left.End, left.Frozen, left.Absorbing = d.RangeId+1<<40, nil, d.Start, nil, 0
	right := desc.Clone(d)
	right.RangeId, right.Start, right.End, right.Frozen, right.Absorbing = d.RangeId+2<<40, d.End, []byte("z"), nil, 0
	expected := desc.Clone(d)
	stale := rapid.IntRange(0, 3).Draw(t, "stale") == 0
	if stale {
		expected.Generation--
	}
	var cmd *kvpb.Command
	var next *metapb.RangeDescriptor
	var err error
	switch rapid.IntRange(0, 4).Draw(t, "step of a merge") {
	case 0:
		cmd = freeze(expected, left)
		next, err = desc.Freeze(left, d)
	case 1:
		left.Generation = d.GetFrozen().GetIntoGeneration() + rapid.Uint64Range(0, 2).Draw(t, "grown")
		cmd = thaw(expected, left)
		next, err = desc.Thaw(d, left)
	case 2:
		cmd = giveUp(expected.Generation)
		next, err = desc.GiveUp(d)
	case 3:
		cmd = absorbed(expected.Generation)
		next, err = desc.Absorbed(d)
	case 4:
		right.Frozen = &metapb.Frozen{IntoRangeId: d.RangeId, IntoGeneration: d.Generation, IntoStart: d.Start}
		revision := rapid.Int64Range(1, 2000).Draw(t, "its revision")
		cmd = merge(expected.Generation, &kvpb.FrozenRange{
			Descriptor_: right, AppliedIndex: 11, Revision: revision, Compacted: rapid.Int64Range(-1, revision).Draw(t, "its mark"),
		})
		next, err = desc.Merge(d, right)
	}
	if err != nil || stale || desc.IsFrozen(d) && next.Frozen != nil {
		return cmd, d
	}
	return cmd, next
}

// TestMergeIsOneBatch: a merge that is not committed in the end leaves both ranges as they were.
func TestMergeIsOneBatch(t *testing.T) {
	eng := openEngine(t)
	left := bootstrap(t, eng, 1, descriptor(t, "r9 ks9 [b, k) gen 5: 1@n1 next 2"))
	right := bootstrap(t, eng, 1, descriptor(t, "r10 ks9 [k, p) gen 5: 1@n1 next 2 frozen for r9 gen 5 at b"))
	before, _ := right.at(t)
	cmd := merge(5, &kvpb.FrozenRange{Descriptor_: right.sm.Descriptor(), AppliedIndex: apply.InitialIndex, Revision: 7, Compacted: -1})
	e := entry(t, apply.InitialIndex+1, raftgroup.ProposalID{Node: 1, Seq: 1}, cmd, nil)
	if err := left.apply(t, true, e); err != errDropped {
		t.Fatal(err)
	}
	if after, _ := right.at(t); !desc.Equal(after.Descriptor, before.Descriptor) || desc.Format(left.sm.Descriptor()) != "r9 ks9 [b, k) gen 5: 1@n1 next 2" {
		t.Errorf("%s and %s", desc.Format(left.sm.Descriptor()), desc.Format(after.Descriptor))
	}
	must(t, left.apply(t, false, e))
	if _, err := apply.ReadView(eng, base.RangeID(10)); err == nil {
		t.Error("the right one is still there")
	}
}
