package gossip

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
)

// Whatever bytes arrive, a node takes nothing that does not hold together, changes nothing that is its own, and answers what
// another would take.
func FuzzGossip(f *testing.F) {
	version := func(id uint64) *rangepb.GossipVersion {
		return &rangepb.GossipVersion{NodeId: id, Incarnation: 2, Seq: 3}
	}
	for _, g := range []*rangepb.Gossip{
		{},
		{Sum: 7},
		{Entries: []*rangepb.GossipEntry{{Version: version(3), Address: "c:1", Record: &metapb.NodeRecord{NodeId: 3}, Load: &metapb.NodeLoad{CpuPermille: 1}}}},
		{Entries: []*rangepb.GossipEntry{{Version: version(3), Address: "c:1", Record: &metapb.NodeRecord{NodeId: 4}}}},
		{Entries: []*rangepb.GossipEntry{{Version: version(3), Address: ":1"}}},
		{Entries: []*rangepb.GossipEntry{{Version: version(3), Address: "c:1", Load: &metapb.NodeLoad{RequestsPerSecond: math.NaN()}}}},
		{Entries: []*rangepb.GossipEntry{{}, nil}},
		{DigestTo: math.MaxUint64, Digest: []*rangepb.GossipVersion{version(1), version(2), version(9)}},
		{DigestFrom: 5, DigestTo: 3, Digest: []*rangepb.GossipVersion{version(4)}},
		{DigestTo: 9, Digest: []*rangepb.GossipVersion{version(2), version(2)}},
		{Sum: 1, DigestTo: 9, Wants: []uint64{0, 1, 2, 2, 99}},
	} {
		b, err := proto.Marshal(g)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &rangepb.Gossip{}
		if proto.Unmarshal(b, g) != nil || check(g) != nil {
			return
		}
		s := told(1, 1)
		exchange(t, told(2, 1), s, false)
		s.forget(5)
		own := proto.CloneOf(s.own)
		answer, news := s.receive(g)
		s.sound(t)
		if !proto.Equal(own, s.own) || s.entries[1] != s.own || s.entries[5] != nil {
			t.Fatal("it took what is its own, or gone")
		}
		for _, e := range news {
			if err := checkEntry(e); err != nil {
				t.Fatal(err)
			}
		}
		if answer != nil {
			fits(t, answer)
		}
		fits(t, s.open(false))
	})
}
