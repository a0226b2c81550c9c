package change

import (
	"testing"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
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
