package placement

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
)

// listing is an index range in memory, and the decider that follows it.
type listing struct {
	entries map[string]*metapb.RangeDescriptor
	known   map[base.RangeID]*metapb.RangeDescriptor
	page    int // entries
	reads   int
	during  func() // called in the middle of a read
	broken  bool
}

func (l *listing) View(id base.RangeID) *apply.View {
	return &apply.View{Descriptor: &metapb.RangeDescriptor{RangeId: uint64(id), KeyspaceId: uint64(base.KeyspaceMeta)}}
}

func (l *listing) Read(_ base.RangeID, req, out proto.Message) error {
	if l.broken {
		return errors.New("the disk is broken")
	}
	l.reads++
	ask := &pb.RangeRequest{}
	if err := proto.Unmarshal(req.(*rangepb.PageRequest).Range, ask); err != nil {
		return err
	}
	resp := out.(*pb.RangeResponse)
	for _, key := range slices.Sorted(maps.Keys(l.entries)) {
		if key < string(ask.Key) {
			continue
		}
		if len(resp.Kvs) == l.page {
			resp.More = true
			break
		}
		raw, err := desc.Encode(l.entries[key])
		if err != nil {
			return err
		}
		resp.Kvs = append(resp.Kvs, &mvccpb.KeyValue{Key: []byte(key), Value: raw})
	}
	if l.during != nil {
		l.during()
	}
	return nil
}

func (l *listing) Learn(d *metapb.RangeDescriptor) {
	if old := l.known[base.RangeID(d.RangeId)]; old.GetGeneration() <= d.Generation {
		l.known[base.RangeID(d.RangeId)] = d
	}
}

func (l *listing) Forget(id base.RangeID) { delete(l.known, id) }

func entryOf(id base.RangeID, end string, generation uint64) *metapb.RangeDescriptor {
	return &metapb.RangeDescriptor{
		RangeId: uint64(id), KeyspaceId: uint64(base.FirstFreeID), End: []byte(end), Generation: generation, NextReplicaId: 2,
		Replicas: []*metapb.Replica{{ReplicaId: 1, NodeId: 1, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}},
	}
}

// Ranges are published, cut, taken out and told of late; whenever the follower has taken in what it was told, the decider knows just
// the ranges that are listed, and the newest that is listed of each.
func TestFollowsTheIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &listing{entries: map[string]*metapb.RangeDescriptor{}, known: map[base.RangeID]*metapb.RangeDescriptor{}, page: rapid.IntRange(1, 4).Draw(t, "page")}
		x := newIndex(base.RangeMeta, func() {})
		generation := uint64(0)
		write := func() {
			end := fmt.Sprintf("k%d", rapid.IntRange(1, 6).Draw(t, "end"))
			key := route.IndexKey(base.FirstFreeID, []byte(end))
			generation++
			var d *metapb.RangeDescriptor
			if rapid.IntRange(0, 3).Draw(t, "gone") > 0 {
				d = entryOf(base.RangeID(rapid.IntRange(101, 106).Draw(t, "range")), end, generation)
				l.entries[string(key)] = d
			} else {
				delete(l.entries, string(key))
			}
			x.tell([]apply.Indexed{{Key: key, Descriptor: d}})
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			default:
				write()
			case 0:
				x.again()
			case 1:
				l.broken = true
				if _, all := x.news, x.all; all && x.follow(l, l) == nil {
					t.Fatal("an index that cannot be read was followed")
				}
				l.broken = false
			case 2:
				l.during = func() { l.during = nil; write() }
				fallthrough
			case 3:
				if err := x.follow(l, l); err != nil {
					t.Fatal(err)
				}
			}
		}
		l.during = nil
		for range 2 { // what was written during the first is told by the second
			if err := x.follow(l, l); err != nil {
				t.Fatal(err)
			}
		}
		want := map[base.RangeID]uint64{}
		for _, d := range l.entries {
			want[base.RangeID(d.RangeId)] = max(want[base.RangeID(d.RangeId)], d.Generation)
		}
		have := map[base.RangeID]uint64{}
		for id, d := range l.known {
			have[id] = d.Generation
		}
		for id := range want {
			if _, ok := have[id]; !ok {
				t.Fatalf("%s is listed and not known: listed %v, known %v", id, want, have)
			}
		}
		for id := range have {
			if _, ok := want[id]; !ok {
				t.Fatalf("%s is known and not listed: listed %v, known %v", id, want, have)
			}
		}
		before := l.reads
		if err := x.follow(l, l); err != nil || l.reads != before {
			t.Fatalf("nothing has changed, and it was read %d times: %v", l.reads-before, err)
		}
	})
}

// More news than are kept are replaced by a look at everything.
func TestTooManyNews(t *testing.T) {
	l := &listing{entries: map[string]*metapb.RangeDescriptor{}, known: map[base.RangeID]*metapb.RangeDescriptor{}, page: 1000}
	x := newIndex(base.RangeMeta, func() {})
	for i := range base.IndexNews + 5 {
		d := entryOf(base.RangeID(100+i), fmt.Sprintf("k%06d", i), 1)
		key := route.DescriptorKey(d)
		l.entries[string(key)] = d
		x.tell([]apply.Indexed{{Key: key, Descriptor: d}})
	}
	if len(x.news) > base.IndexNews {
		t.Errorf("%d news are kept", len(x.news))
	}
	if err := x.follow(l, l); err != nil || len(l.known) != len(l.entries) {
		t.Errorf("%d of %d ranges are known: %v", len(l.known), len(l.entries), err)
	}
}
