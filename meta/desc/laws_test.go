package desc_test

import (
	"slices"
	"testing"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/quorum"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/raftgroup"
)

const nodes = 7

// TestWalk takes random legal steps and holds each to the laws of this package.
func TestWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := desctest.First(base.RangeDefault, base.KeyspaceDefault)
		raft := configure(t, d)
		used := map[uint64]uint64{1: 1} // replica id to node: an id means one node for ever
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			before := desc.Clone(d)
			next := rapid.SampledFrom(desctest.Steps(d, nodes)).Draw(t, "step")
			if !desc.Equal(d, before) {
				t.Fatalf("a step changed its argument from %s to %s", desc.Format(before), desc.Format(d))
			}
			if err := desc.Validate(next); err != nil {
				t.Fatalf("%s is not valid: %v", desc.Format(next), err)
			}
			change, err := desc.Check(d, next)
			if err != nil {
				t.Fatal(err)
			}
			raft = step(t, raft, change)
			sameAs(t, raft, next)
			intersect(t, d, next)
			for _, r := range next.Replicas {
				if node, ok := used[r.ReplicaId]; ok && node != r.NodeId || !ok && r.ReplicaId < d.NextReplicaId {
					t.Fatalf("%s uses replica id %d again", desc.Format(next), r.ReplicaId)
				}
				used[r.ReplicaId] = r.NodeId
			}
			d = next
		}
	})
}

// TestSplitTiles: both parts are valid and share the replicas, no key is in both and each key of the whole is in one; and both
// take the whole's place in a cache or an index, by a newer generation.
func TestSplitTiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := desctest.First(9, 9)
		for range rapid.IntRange(0, 12).Draw(t, "steps") {
			d = rapid.SampledFrom(desctest.Steps(d, nodes)).Draw(t, "step")
		}
		key := rapid.SliceOfN(rapid.ByteRange('a', 'd'), 0, 3)
		d = desc.Clone(d)
		d.Start = key.Draw(t, "start")
		if end := key.Draw(t, "end"); len(end) == 0 || string(end) > string(d.Start) {
			d.End = end
		}
		at := key.Draw(t, "at")
		whole := desc.Clone(d)
		left, right, err := desc.Split(d, at, 10)
		if !desc.Equal(d, whole) {
			t.Fatalf("the split changed its argument")
		}
		if inside := desc.Contains(d, 9, at) && string(at) != string(d.Start); inside != (err == nil) && !desc.Joint(d) {
			t.Fatalf("%s split at %q: %v", desc.Format(d), at, err)
		}
		if err != nil {
			return
		}
		for _, part := range []*metapb.RangeDescriptor{left, right} {
			if err := desc.Validate(part); err != nil || part.Generation <= d.Generation {
				t.Fatalf("%s: %v", desc.Format(part), err)
			}
			if !slices.EqualFunc(part.Replicas, d.Replicas, func(a, b *metapb.Replica) bool { return proto.Equal(a, b) }) || part.NextReplicaId != d.NextReplicaId {
				t.Fatalf("%s has other replicas than %s", desc.Format(part), desc.Format(d))
			}
		}
		if left.RangeId != d.RangeId || right.RangeId != 10 || desc.Overlap(left, right) {
			t.Fatalf("%s and %s", desc.Format(left), desc.Format(right))
		}
		probe := key.Draw(t, "probe")
		if desc.Contains(d, 9, probe) != (desc.Contains(left, 9, probe) || desc.Contains(right, 9, probe)) {
			t.Fatalf("%q of %s is in neither %s nor %s", probe, desc.Format(d), desc.Format(left), desc.Format(right))
		}
	})
}

// TestCheckRefuses changes one legal step in one place: it is a step no longer, or a different legal one.
func TestCheckRefuses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := desctest.Reachable(t, nodes)
		legal := desctest.Steps(from, nodes)
		to := desc.Clone(rapid.SampledFrom(legal).Draw(t, "step"))
		r := to.Replicas[rapid.IntRange(0, len(to.Replicas)-1).Draw(t, "replica")]
		rapid.SampledFrom([]func(){
			func() { to.Generation++ },
			func() { to.Generation-- },
			func() { to.RangeId++ },
			func() { to.KeyspaceId++ },
			func() { to.Start = append(to.Start, 1) },
			func() { to.End = append(to.End, 1) },
			func() { to.NextReplicaId++ },
			func() { to.NextReplicaId-- },
			func() { r.NodeId++ },
			func() { r.ReplicaId++ },
			func() { r.Role = metapb.ReplicaRole(rapid.Int32Range(0, 5).Draw(t, "role")) },
			func() { to.Replicas = to.Replicas[1:] },
			func() { slices.Reverse(to.Replicas) },
		}).Draw(t, "mutation")()
		_, err := desc.Check(from, to)
		isLegal := slices.ContainsFunc(legal, func(l *metapb.RangeDescriptor) bool { return desc.Equal(l, to) })
		if err == nil && !isLegal && !addsElsewhere(from, to) {
			t.Fatalf("from %s to %s was accepted", desc.Format(from), desc.Format(to))
		}
		if err != nil && isLegal {
			t.Fatalf("a legal step was refused: %v", err)
		}
	})
}

// addsElsewhere: the mutation moved the new learner to a node that desctest.Steps does not think of.
func addsElsewhere(from, to *metapb.RangeDescriptor) bool {
	return len(to.Replicas) == len(from.Replicas)+1 && to.Replicas[len(to.Replicas)-1].NodeId > nodes
}

func TestCheckFromJoint(t *testing.T) {
	from := parse(t, "r4 default [-∞, +∞) gen 6: 1@n1(outgoing) 2@n2 3@n3 4@n4(incoming) next 5")
	change, err := desc.Check(from, parse(t, "r4 default [-∞, +∞) gen 7: 2@n2 3@n3 4@n4 next 5"))
	if err != nil || !change.LeaveJoint() || !proto.Equal(change, &raftpb.ConfChangeV2{}) {
		t.Errorf("leaving: %v, %v", change, err)
	}
	for _, to := range []string{
		"r4 default [-∞, +∞) gen 7: 1@n1 2@n2 3@n3 next 5", // going back is not among the steps
		"r4 default [-∞, +∞) gen 7: 2@n2 3@n3 4@n4 5@n5(learner) next 6",
		"r4 default [-∞, +∞) gen 7: 1@n1(outgoing) 2@n2 3@n3 4@n4(incoming) 5@n5(learner) next 6",
	} {
		if _, err := desc.Check(from, parse(t, to)); err == nil {
			t.Errorf("%s was accepted", to)
		}
	}
}

// configure builds Raft's own configuration of a range with one voter, as confchange would.
func configure(t *rapid.T, d *metapb.RangeDescriptor) tracker.ProgressTracker {
	cs := &raftpb.ConfState{Voters: []uint64{d.Replicas[0].ReplicaId}}
	trk := tracker.MakeProgressTracker(1, 0)
	cfg, prs, err := confchange.Restore(confchange.Changer{Tracker: trk, LastIndex: 10}, cs)
	if err != nil {
		t.Fatal(err)
	}
	trk.Config, trk.Progress = cfg, prs
	return trk
}

// step does what raft does when a conf change is applied.
func step(t *rapid.T, trk tracker.ProgressTracker, cc *raftpb.ConfChangeV2) tracker.ProgressTracker {
	c := confchange.Changer{Tracker: trk, LastIndex: 10}
	var err error
	if cc.LeaveJoint() {
		trk.Config, trk.Progress, err = c.LeaveJoint()
	} else if auto, joint := cc.EnterJoint(); joint {
		trk.Config, trk.Progress, err = c.EnterJoint(auto, cc.Changes...)
	} else {
		trk.Config, trk.Progress, err = c.Simple(cc.Changes...)
	}
	if err != nil {
		t.Fatalf("raft refuses %v: %v", cc, err)
	}
	return trk
}

func sameAs(t *rapid.T, trk tracker.ProgressTracker, d *metapb.RangeDescriptor) {
	if err := raftgroup.ConfState(d).Equivalent(trk.ConfState()); err != nil {
		t.Fatalf("%s: %v", desc.Format(d), err)
	}
	if len(trk.Progress) != len(d.Replicas) {
		t.Fatalf("raft tracks %d replicas of %s", len(trk.Progress), desc.Format(d))
	}
}

// intersect tries every set of replicas: two disjoint sets are never quorums of two descriptors in a row.
func intersect(t *rapid.T, a, b *metapb.RangeDescriptor) {
	ids := map[uint64]bool{}
	for _, d := range []*metapb.RangeDescriptor{a, b} {
		for _, r := range d.Replicas {
			ids[r.ReplicaId] = true
		}
	}
	all := make([]uint64, 0, len(ids))
	for id := range ids {
		all = append(all, id)
	}
	qa, qb := config(a), config(b)
	for set := range 1 << len(all) {
		yes, no := map[uint64]bool{}, map[uint64]bool{}
		for i, id := range all {
			in := set&(1<<i) != 0
			yes[id], no[id] = in, !in
		}
		if qa.VoteResult(yes) == quorum.VoteWon && qb.VoteResult(no) == quorum.VoteWon {
			t.Fatalf("%v decides in %s and all others in %s", yes, desc.Format(a), desc.Format(b))
		}
	}
}

func config(d *metapb.RangeDescriptor) quorum.JointConfig {
	c := quorum.JointConfig{quorum.MajorityConfig{}, nil}
	if desc.Joint(d) {
		c[1] = quorum.MajorityConfig{}
	}
	for _, r := range d.Replicas {
		inNew, inOld := desc.Votes(r.Role)
		if inNew {
			c[0][r.ReplicaId] = struct{}{}
		}
		if inOld && c[1] != nil {
			c[1][r.ReplicaId] = struct{}{}
		}
	}
	return c
}
