package change

import (
	"testing"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc/desctest"
)

func TestOrphaned(t *testing.T) {
	descriptor := func(id, generation, next uint64, at ...uint64) *metapb.RangeDescriptor {
		d := &metapb.RangeDescriptor{RangeId: id, Generation: generation, NextReplicaId: next}
		for i := 0; i < len(at); i += 2 {
			d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: at[i], NodeId: at[i+1]})
		}
		return d
	}
	own := descriptor(7, 5, 4, 1, 1, 2, 2, 3, 3) // this is replica 3 on node 3
	for _, c := range []struct {
		name    string
		indexed *metapb.RangeDescriptor
		below   base.ReplicaID
		ok      bool
	}{
		{"removed", descriptor(7, 6, 8, 5, 4, 6, 5, 7, 6), 8, true},
		{"replaced on its node", descriptor(7, 6, 8, 5, 3, 6, 5, 7, 6), 5, true},
		{"still a member", descriptor(7, 6, 8, 3, 3, 6, 5), 0, false},
		{"the index is as old", descriptor(7, 5, 8, 6, 5), 0, false},
		{"the index is older", descriptor(7, 4, 8, 6, 5), 0, false},
		{"another range", descriptor(8, 6, 8, 6, 5), 0, false},
		{"nothing indexed", nil, 0, false},
	} {
		if below, ok := Orphaned(own, 3, 3, c.indexed); below != c.below || ok != c.ok {
			t.Errorf("%s: %d %v, want %d %v", c.name, below, ok, c.below, c.ok)
		}
	}
}

func TestRemnant(t *testing.T) {
	const frozen = "r10 ks9 [k, p) gen 8: 1@n1 2@n2 3@n3 next 4 frozen for r9 gen 5 at b"
	const merged = "r9 ks9 [b, p) gen 9: 1@n1 2@n2 3@n3 next 4 absorbing r10"
	for _, c := range []struct {
		name, own, left, indexed string
		remnant                  bool
	}{
		{"merged, and no left one is here", frozen, "", merged, true},
		{"the left one here has merged too", frozen, merged, merged, true},
		{"the left one here has not come to it", frozen, "r9 ks9 [b, k) gen 5: 1@n1 2@n2 3@n3 next 4", merged, false},
		{"the left one here is older than the freeze", frozen, "r9 ks9 [b, k) gen 4: 1@n1 2@n2 3@n3 next 4", merged, false},
		{"another range is on the left here", frozen, "r7 ks9 [b, k) gen 5: 1@n1 2@n2 3@n3 next 4", merged, true},
		{"merged, and cut within", frozen, "", "r9 ks9 [b, l) gen 11: 1@n1 2@n2 3@n3 next 4", true},
		{"merged, and cut at its key", frozen, "", "r12 ks9 [k, p) gen 11: 1@n1 2@n2 3@n3 next 4", true},
		{"merged, and taken over in turn", frozen, "", "r8 ks9 [-∞, +∞) gen 20: 1@n4 2@n5 next 3", true},
		{"it missed the freeze as well", "r10 ks9 [k, p) gen 7: 1@n1 2@n2 3@n3 next 4", "", merged, true},
		{"it missed the freeze, and the left one is here", "r10 ks9 [k, p) gen 7: 1@n1 2@n2 3@n3 next 4", "r9 ks9 [b, k) gen 5: 1@n1 2@n2 3@n3 next 4", merged, true},
		{"it is there", frozen, "", "r10 ks9 [k, p) gen 8: 1@n1 2@n2 3@n3 next 4", false},
		{"it is there, and newer", frozen, "", "r10 ks9 [k, p) gen 12: 1@n1 2@n2 3@n3 next 4", false},
		{"the index is as old", frozen, "", "r9 ks9 [b, p) gen 8: 1@n1 2@n2 3@n3 next 4", false},
		{"the index is of before it was cut off", frozen, "", "r9 ks9 [b, p) gen 3: 1@n1 2@n2 3@n3 next 4", false},
		{"the index has a hole here", frozen, "", "r9 ks9 [b, k) gen 9: 1@n1 2@n2 3@n3 next 4", false},
		{"another keyspace", frozen, "", "r9 ks8 [b, p) gen 9: 1@n1 2@n2 3@n3 next 4", false},
		{"nothing indexed", frozen, "", "", false},
	} {
		parse := func(s string) *metapb.RangeDescriptor {
			if s == "" {
				return nil
			}
			d, err := desctest.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		if got := Remnant(parse(c.own), parse(c.left), parse(c.indexed)); got != c.remnant {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
