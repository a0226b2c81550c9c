package node

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

func TestWhatIsKnownOfANode(t *testing.T) {
	const active, failed = metapb.NodeState_NODE_STATE_ACTIVE, metapb.NodeState_NODE_STATE_FAILED
	const left, replaced = metapb.NodeState_NODE_STATE_LEFT, metapb.NodeState_NODE_STATE_REPLACED
	rec := func(gen, inc uint64, state metapb.NodeState) *metapb.NodeRecord {
		return &metapb.NodeRecord{NodeId: 2, Generation: gen, Incarnation: inc, State: state, Address: "record:1", Version: "1.0.0"}
	}
	moved := func(r *metapb.NodeRecord, inc uint64, address string) *metapb.NodeRecord {
		r.Incarnation, r.Address = inc, address
		return r
	}
	var none known
	for _, c := range []struct {
		name string
		got  known
		want *metapb.NodeRecord
	}{
		{"nothing but an address", none.withAddress(3, "own:1"), &metapb.NodeRecord{NodeId: 2, Incarnation: 3, Address: "own:1"}},
		{"a newer generation", none.withRecord(rec(4, 1, active)).withRecord(rec(5, 1, failed)), rec(5, 1, failed)},
		{"an older generation of a later start", none.withRecord(rec(5, 1, failed)).withRecord(rec(4, 2, active)), rec(5, 1, failed)},
		{"no generations: a later start", none.withRecord(rec(0, 1, failed)).withRecord(rec(0, 2, active)), rec(0, 2, active)},
		{"no generations: an earlier start", none.withRecord(rec(0, 2, active)).withRecord(rec(0, 1, failed)), rec(0, 2, active)},
		{"no generations: the same start changes", none.withRecord(rec(0, 2, failed)).withRecord(rec(0, 2, active)), rec(0, 2, active)},
		{"a hint that nothing orders", none.withRecord(rec(0, 2, active)).withHint(rec(0, 2, failed)), rec(0, 2, active)},
		{"a hint that is newer", none.withRecord(rec(3, 2, active)).withHint(rec(4, 2, failed)), rec(4, 2, failed)},
		{"generations go before none", none.withRecord(rec(1, 1, active)).withRecord(rec(0, 9, failed)), rec(1, 1, active)},
		{"replaced stays so", none.withRecord(rec(1, 1, replaced)).withRecord(rec(2, 2, active)), rec(1, 1, replaced)},
		{"left stays so", none.withRecord(rec(1, 1, left)).withHint(rec(2, 2, active)), rec(1, 1, left)},
		{"of two ends the newer", none.withRecord(rec(1, 1, left)).withRecord(rec(2, 1, replaced)), rec(2, 1, replaced)},
		{"it moved, and its record does not know", none.withRecord(rec(5, 1, failed)).withAddress(2, "own:1"),
			moved(rec(5, 1, failed), 2, "own:1")},
		{"an older record after it moved", none.withAddress(2, "own:1").withRecord(rec(5, 1, active)), moved(rec(5, 1, active), 2, "own:1")},
		{"its record is of a later start", none.withAddress(2, "own:1").withRecord(rec(5, 3, active)), rec(5, 3, active)},
		{"what an earlier start says", none.withAddress(2, "own:1").withAddress(1, "old:1"), &metapb.NodeRecord{NodeId: 2, Incarnation: 2, Address: "own:1"}},
	} {
		if got := c.got.merged(2); !proto.Equal(got, c.want) {
			t.Errorf("%s:\n  %v\nwant\n  %v", c.name, got, c.want)
		}
	}
}

// However news arrives, and whatever of it twice, all nodes come to know the same: what is said is drawn so that it could be
// true, which is that one generation is one record, and one start one address.
func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		states := []metapb.NodeState{metapb.NodeState_NODE_STATE_ACTIVE, metapb.NodeState_NODE_STATE_FAILED, metapb.NodeState_NODE_STATE_LEFT,
			metapb.NodeState_NODE_STATE_REPLACED}
		type news func(known) known
		var said []news
		for i := range rapid.IntRange(0, 6).Draw(t, "records") {
			r := &metapb.NodeRecord{
				NodeId: 2, Generation: uint64(i), Address: "record:1",
				Incarnation: rapid.Uint64Range(1, 4).Draw(t, "incarnation"), State: rapid.SampledFrom(states).Draw(t, "state"),
			}
			said = append(said, func(k known) known { return k.withRecord(r) }, func(k known) known { return k.withHint(r) })
		}
		for i := range rapid.IntRange(0, 4).Draw(t, "addresses") {
			said = append(said, func(k known) known { return k.withAddress(base.Incarnation(i+1), string(rune('a'+i))+":1") })
		}
		hear := func(order []news) (k known) {
			for _, n := range order {
				k = n(k)
			}
			return k
		}
		a := hear(rapid.Permutation(said).Draw(t, "one order"))
		b := hear(append(rapid.Permutation(said).Draw(t, "another"), rapid.SliceOfN(rapid.SampledFrom(append(said, func(k known) known { return k })), 0, 4).Draw(t, "again")...))
		if x, y := a.merged(2), b.merged(2); !proto.Equal(x, y) {
			t.Fatalf("%v\nand\n%v", x, y)
		}
		if a.start != b.start || !proto.Equal(a.record, b.record) {
			t.Fatalf("%v and %v will differ", a, b)
		}
	})
}
