package desc_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
)

// drawPair draws two neighbours on the same nodes: a range of voters that was cut in two, each of which has gone its own way since.
func drawPair(t *rapid.T) (whole, left, right *metapb.RangeDescriptor) {
	whole = desctest.First(9, 9)
	for node := range rapid.IntRange(0, 4).Draw(t, "more nodes") {
		whole = upReplicate(t, whole, uint64(node)+2)
	}
	whole.Start, whole.End = []byte("b"), []byte("x")
	if rapid.Bool().Draw(t, "all") {
		whole.Start, whole.End = nil, nil
	}
	left, right, err := desc.Split(whole, []byte("k"), 10)
	if err != nil {
		t.Fatal(err)
	}
	goOn := func(d *metapb.RangeDescriptor, label string) *metapb.RangeDescriptor {
		d = desc.Clone(d)
		d.Generation += rapid.Uint64Range(0, 3).Draw(t, label)
		return d
	}
	return whole, goOn(left, "left went on"), goOn(right, "right went on")
}

func upReplicate(t *rapid.T, d *metapb.RangeDescriptor, node uint64) *metapb.RangeDescriptor {
	d = desc.Clone(d)
	d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: d.NextReplicaId, NodeId: node, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
	d.NextReplicaId++
	d.Generation += 2
	if err := desc.Validate(d); err != nil {
		t.Fatal(err)
	}
	return d
}

func legal(t *rapid.T, d *metapb.RangeDescriptor, err error) *metapb.RangeDescriptor {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if err := desc.Validate(d); err != nil {
		t.Fatalf("%s is not valid: %v", desc.Format(d), err)
	}
	if got := parse(t, desc.Format(d)); !desc.Equal(got, d) {
		t.Fatalf("%s was read back as %s", desc.Format(d), desc.Format(got))
	}
	return d
}

// TestMergeUndoesSplit: what was cut and is merged is the whole again, with its replicas, and newer than both parts; neither step
// changes its arguments.
func TestMergeUndoesSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole, left, right := drawPair(t)
		keepLeft, keepRight := desc.Clone(left), desc.Clone(right)
		f, err := desc.Freeze(left, right)
		frozen := legal(t, f, err)
		keepFrozen := desc.Clone(frozen)
		m, err := desc.Merge(left, frozen)
		merged := legal(t, m, err)
		if !desc.Equal(left, keepLeft) || !desc.Equal(right, keepRight) || !desc.Equal(frozen, keepFrozen) {
			t.Fatal("a step changed its argument")
		}
		if frozen.Generation != right.Generation+1 || !desc.IsFrozen(frozen) || !desc.SameSpan(frozen, right) {
			t.Fatalf("from %s to %s", desc.Format(right), desc.Format(frozen))
		}
		if !desc.SameSpan(merged, whole) || merged.RangeId != left.RangeId || merged.Absorbing != right.RangeId ||
			merged.Generation <= left.Generation || merged.Generation <= frozen.Generation || !desc.SameNodes(merged, whole) {
			t.Fatalf("%s and %s became %s", desc.Format(left), desc.Format(frozen), desc.Format(merged))
		}
		if desc.Fate(frozen, merged) != desc.Merged {
			t.Fatalf("%s does not know itself in %s", desc.Format(frozen), desc.Format(merged))
		}
		a, err := desc.Absorbed(merged)
		after := legal(t, a, err)
		if after.Absorbing != 0 || after.Generation != merged.Generation+1 || !desc.SameSpan(after, whole) {
			t.Fatalf("after it, %s", desc.Format(after))
		}
		if _, err := desc.Absorbed(after); err == nil {
			t.Fatal("it is absorbed twice")
		}
		if _, _, err := desc.Split(after, []byte("k"), 11); err != nil {
			t.Fatalf("it cannot be cut again: %v", err)
		}
	})
}

// TestOnlyVotersMerge: Freeze is legal for just those neighbours that no other step is under way in, and whose replicas are
// voters on the same nodes.
func TestOnlyVotersMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		left, right := desctest.Reachable(t, 4), desctest.Reachable(t, 4)
		left.KeyspaceId, right.KeyspaceId, right.RangeId = 9, 9, 10
		key := rapid.SampledFrom([]string{"", "k", "m"})
		left.End, right.Start = []byte(key.Draw(t, "end")), []byte(key.Draw(t, "start"))
		frozen, err := desc.Freeze(left, right)
		want := len(left.End) > 0 && string(left.End) == string(right.Start) && onlyVoters(left) != "" && onlyVoters(left) == onlyVoters(right)
		if want != (err == nil) {
			t.Fatalf("%s and %s: %v", desc.Format(left), desc.Format(right), err)
		}
		if err == nil {
			legal(t, frozen, nil)
		}
	})
}

// onlyVoters is the set of a range's nodes; empty if some replica does not just vote.
func onlyVoters(d *metapb.RangeDescriptor) string {
	var nodes [8]byte
	for _, r := range d.Replicas {
		if r.Role != metapb.ReplicaRole_REPLICA_ROLE_VOTER {
			return ""
		}
		nodes[r.NodeId] = 1
	}
	return string(nodes[:])
}

// TestOnlyOneWayOut: a frozen range can do nothing but thaw, and one that has taken another over nothing but be done with it.
func TestOnlyOneWayOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, left, right := drawPair(t)
		frozen, err := desc.Freeze(left, right)
		legal(t, frozen, err)
		merged, err := desc.Merge(left, frozen)
		legal(t, merged, err)
		next := desc.Clone(right) // beside the merged one, if that is not the last
		next.RangeId, next.Start, next.End = 11, merged.End, nil
		before := desc.Clone(left) // beside all of them, if they are not the first
		before.RangeId, before.Start, before.End = 12, nil, left.Start
		for _, d := range []*metapb.RangeDescriptor{frozen, merged} {
			if steps := desctest.Steps(d, nodes); len(steps) > 0 {
				t.Fatalf("%s becomes %s", desc.Format(d), desc.Format(steps[0]))
			}
			refuse := func(what string, err error) {
				if err == nil {
					t.Fatalf("%s: %s is legal", desc.Format(d), what)
				}
			}
			_, _, err := desc.Split(d, []byte("l"), 13)
			refuse("Split", err)
			_, err = desc.GiveUp(d)
			refuse("GiveUp", err)
			_, err = desc.Freeze(d, next)
			refuse("Freeze as the left one", err)
			_, err = desc.Freeze(before, d)
			refuse("Freeze as the right one", err)
			forIt := desc.Clone(next)
			forIt.Frozen = &metapb.Frozen{IntoRangeId: d.RangeId, IntoGeneration: d.Generation, IntoStart: d.Start}
			_, err = desc.Merge(d, forIt)
			refuse("Merge", err)
			for _, to := range desctest.Steps(right, nodes) { // what would be legal but for that
				to = desc.Clone(to)
				to.RangeId, to.Start, to.End, to.Frozen, to.Absorbing = d.RangeId, d.Start, d.End, d.Frozen, d.Absorbing
				to.Generation = d.Generation + 1
				_, err = desc.Check(d, to)
				refuse("a change of replicas", err)
			}
		}
		if _, err := desc.Absorbed(frozen); err == nil {
			t.Fatal("a frozen range is done with another")
		}
		if _, err := desc.Thaw(merged, left); err == nil {
			t.Fatal("a range thaws that is not frozen")
		}
	})
}

// TestGivenUp: once the left one has gone on, by GiveUp or any other step, no Merge that was planned before is legal again, and
// the right one may thaw; and not before.
func TestGivenUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, left, right := drawPair(t)
		frozen, err := desc.Freeze(left, right)
		legal(t, frozen, err)
		if fate := desc.Fate(frozen, left); fate != desc.Undecided {
			t.Fatalf("its fate is %d", fate)
		}
		if _, err := desc.Thaw(frozen, left); err == nil {
			t.Fatal("it thaws while it may be taken over")
		}
		now, err := desc.GiveUp(left)
		legal(t, now, err)
		if now.Generation != left.Generation+1 || !desc.SameSpan(now, left) {
			t.Fatalf("from %s to %s", desc.Format(left), desc.Format(now))
		}
		for range rapid.IntRange(0, 5).Draw(t, "steps") {
			now = rapid.SampledFrom(desctest.Steps(now, nodes)).Draw(t, "step")
		}
		if _, err := desc.Merge(now, frozen); err == nil {
			t.Fatalf("%s takes %s over", desc.Format(now), desc.Format(frozen))
		}
		thawed, err := desc.Thaw(frozen, now)
		legal(t, thawed, err)
		want := desc.Clone(right)
		want.Generation = frozen.Generation + 1
		if !desc.Equal(thawed, want) {
			t.Fatalf("%s thaws as %s", desc.Format(frozen), desc.Format(thawed))
		}
		if _, err := desc.Merge(left, thawed); err == nil {
			t.Fatal("a range is taken over that is not frozen")
		}
		again, err := desc.Freeze(left, thawed) // by one who has not heard of it
		legal(t, again, err)
		if _, err := desc.Merge(now, again); err == nil {
			t.Fatalf("%s takes %s over", desc.Format(now), desc.Format(again))
		}
	})
}

// fates: of r10, frozen for generation 5 of r9, by what holds c.
const frozenForR9 = "r10 ks9 [k, p) gen 7: 1@n1 2@n2 next 3 frozen for r9 gen 5 at c"

func TestFate(t *testing.T) {
	names := map[desc.Verdict]string{desc.Unknown: "unknown", desc.Undecided: "undecided", desc.GoesOn: "goes on", desc.Merged: "merged"}
	for _, c := range []struct{ what, now, want string }{
		{"as it was", "r9 ks9 [c, k) gen 5: 1@n1 2@n2 next 3", "undecided"},
		{"given up", "r9 ks9 [c, k) gen 6: 1@n1 2@n2 next 3", "goes on"},
		{"cut since", "r9 ks9 [c, d) gen 6: 1@n1 2@n2 next 3", "goes on"},
		{"moved since", "r9 ks9 [c, k) gen 9: 1@n1 2@n2 4@n4(learner) next 5", "goes on"},
		{"frozen itself", "r9 ks9 [c, k) gen 6: 1@n1 2@n2 next 3 frozen for r8 gen 2 at a", "goes on"},
		{"taken over itself", "r8 ks9 [a, k) gen 3: 1@n1 2@n2 next 3 absorbing r9", "goes on"},
		{"taken over itself, and cut before it", "r20 ks9 [b, k) gen 8: 1@n1 2@n2 next 3", "goes on"},
		{"merged", "r9 ks9 [c, p) gen 8: 1@n1 2@n2 next 3 absorbing r10", "merged"},
		{"merged, and more", "r9 ks9 [c, z) gen 11: 1@n1 2@n2 next 3", "merged"},
		{"merged, and taken over", "r8 ks9 [a, +∞) gen 11: 1@n1 2@n2 next 3", "merged"},
		{"merged, and cut within", "r9 ks9 [c, l) gen 11: 1@n1 2@n2 next 3", "merged"},
		{"merged, done, and cut there", "r9 ks9 [c, k) gen 10: 1@n1 2@n2 next 3", "goes on"}, // of a remnant without a quorum
		{"before the freeze", "r9 ks9 [c, k) gen 4: 1@n1 2@n2 next 3", "unknown"},
		{"before it was cut off", "r9 ks9 [c, p) gen 3: 1@n1 2@n2 next 3", "unknown"},
		{"another key", "r11 ks9 [p, z) gen 9: 1@n1 2@n2 next 3", "unknown"},
		{"another keyspace", "r9 ks8 [c, k) gen 6: 1@n1 2@n2 next 3", "unknown"},
		{"itself", "r10 ks9 [c, p) gen 9: 1@n1 2@n2 next 3", "unknown"},
	} {
		right, now := parse(t, frozenForR9), parse(t, c.now)
		fate := desc.Fate(right, now)
		if names[fate] != c.want {
			t.Errorf("%s: %s, want %s", c.what, names[fate], c.want)
		}
		if thawed, err := desc.Thaw(right, now); (err == nil) != (fate == desc.GoesOn) {
			t.Errorf("%s: it thaws as %s: %v", c.what, desc.Format(thawed), err)
		}
	}
	if desc.Fate(parse(t, frozenForR9), nil) != desc.Unknown {
		t.Error("nothing says something")
	}
	if desc.Fate(parse(t, "r10 ks9 [k, p) gen 7: 1@n1 2@n2 next 3"), parse(t, "r9 ks9 [c, k) gen 6: 1@n1 2@n2 next 3")) != desc.Unknown {
		t.Error("a range that is not frozen goes on")
	}
}

// TestThawNeedsProof: whatever is held against a frozen range, it thaws by nothing but what proves that it goes on.
func TestThawNeedsProof(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		right, now := parse(t, frozenForR9), desctest.First(1, 9)
		now.RangeId = rapid.Uint64Range(8, 11).Draw(t, "id")
		now.Generation = rapid.Uint64Range(1, 9).Draw(t, "generation")
		key := rapid.SampledFrom([]string{"", "a", "c", "d", "k", "l", "p"})
		now.Start, now.End = []byte(key.Draw(t, "start")), []byte(key.Draw(t, "end"))
		_, err := desc.Thaw(right, now)
		holds := func(k string) bool { return desc.Contains(now, 9, []byte(k)) }
		proof := now.RangeId != 10 && holds("c") && !holds("k") && (now.RangeId != 9 || now.Generation > 5)
		if (err == nil) != proof {
			t.Fatalf("by %s: %v", desc.Format(now), err)
		}
	})
}

func TestMergeRefused(t *testing.T) {
	const left, right = "r9 ks9 [c, k) gen 5: 1@n1 2@n2 next 3", "r10 ks9 [k, p) gen 7: 1@n1 2@n2 next 3"
	for _, c := range []struct{ what, left, right, wrong string }{
		{"as planned", left, right + " frozen for r9 gen 5 at c", ""},
		{"other replica ids", left, "r10 ks9 [k, p) gen 7: 5@n2 6@n1 next 9 frozen for r9 gen 5 at c", ""},
		{"not frozen", left, right, "not frozen"},
		{"frozen for another", left, right + " frozen for r8 gen 5 at c", "not frozen"},
		{"frozen for an older one", left, right + " frozen for r9 gen 4 at c", "not frozen"},
		{"frozen for a newer one", left, right + " frozen for r9 gen 6 at c", "not frozen"},
		{"no neighbour", left, "r10 ks9 [l, p) gen 7: 1@n1 2@n2 next 3 frozen for r9 gen 5 at c", "neighbours"},
		{"another keyspace", left, "r10 ks8 [k, p) gen 7: 1@n1 2@n2 next 3 frozen for r9 gen 5 at c", "neighbours"},
		{"other nodes", left, "r10 ks9 [k, p) gen 7: 1@n1 2@n3 next 3 frozen for r9 gen 5 at c", "neighbours"},
		{"a learner", left, "r10 ks9 [k, p) gen 7: 1@n1 2@n2(learner) next 3 frozen for r9 gen 5 at c", "neighbours"},
		{"one more", left, "r10 ks9 [k, p) gen 7: 1@n1 2@n2 3@n3 next 4 frozen for r9 gen 5 at c", "neighbours"},
		{"a frozen left one", left + " frozen for r8 gen 2 at a", right + " frozen for r9 gen 5 at c", "neighbours"},
		{"an absorbing left one", left + " absorbing r7", right + " frozen for r9 gen 5 at c", "neighbours"},
	} {
		merged, err := desc.Merge(parse(t, c.left), parse(t, c.right))
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %s, %v, want %q", c.what, desc.Format(merged), err, c.wrong)
		}
	}
	if _, err := desc.Merge(parse(t, left), nil); err == nil {
		t.Error("nothing is taken over")
	}
}

// TestValidateFrozen: of what is stored and received.
func TestValidateFrozen(t *testing.T) {
	for _, c := range []struct {
		d  string
		ok bool
	}{
		{frozenForR9, true},
		{"r9 ks9 [c, p) gen 8: 1@n1 next 2 absorbing r10", true},
		{"r10 ks9 [k, p) gen 7: 1@n1 next 3 frozen for r0 gen 5 at c", false},
		{"r10 ks9 [k, p) gen 7: 1@n1 next 3 frozen for r10 gen 5 at c", false},
		{"r10 ks9 [k, p) gen 7: 1@n1 next 3 frozen for r9 gen 0 at c", false},
		{"r10 ks9 [-∞, p) gen 7: 1@n1 next 3 frozen for r9 gen 5 at c", false},
		{"r10 ks9 [k, p) gen 7: 1@n1 next 3 frozen for r9 gen 5 at c absorbing r11", false},
		{"r10 ks9 [k, p) gen 7: 1@n1(outgoing) 2@n2(incoming) next 3 frozen for r9 gen 5 at c", false},
		{"r9 ks9 [c, p) gen 8: 1@n1 next 2 absorbing r9", false},
		{"r9 ks9 [c, p) gen 8: 1@n1(outgoing) 2@n2(incoming) next 3 absorbing r10", false},
	} {
		d := parse(t, c.d)
		if err := desc.Validate(d); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.d, err)
		}
		raw, err := desc.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := desc.Decode(raw); c.ok && (err != nil || !proto.Equal(back, d) || desc.Format(back) != c.d) {
			t.Errorf("%s came back as %s: %v", c.d, desc.Format(back), err)
		}
	}
}
