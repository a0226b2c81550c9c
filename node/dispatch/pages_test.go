package dispatch

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/apply"
	"github.com/cairndb/cairn/meta/route"
)

const (
	paged = base.KeyspaceID(100)
	page  = rangepb.RequestKind_REQUEST_KIND_PAGE
)

// shard makes a paged keyspace on node 1, of one range that the index knows.
func shard(t *testing.T, w *world) *Dispatcher {
	t.Helper()
	d := w.nodes[1]
	desc := &metapb.RangeDescriptor{RangeId: 100, KeyspaceId: uint64(paged), Generation: 1, NextReplicaId: 2,
		Replicas: []*metapb.Replica{{ReplicaId: 1, NodeId: 1, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER}}}
	must(t, d.cfg.Store.Place(desc))
	d.Learn(desc)
	publish(t, w, desc)
	return d
}

// publish tells the index of ranges.
func publish(t *testing.T, w *world, ds ...*metapb.RangeDescriptor) {
	t.Helper()
	for _, desc := range ds {
		key := route.DescriptorKey(desc)
		must2(w.nodes[1].Propose(w.ctx(), base.KeyspaceMeta, key, &kvpb.Command{Body: &kvpb.Command_PublishDescriptor{
			PublishDescriptor: &kvpb.PublishDescriptor{Key: key, Descriptor_: desc}}}))(t)
	}
}

// cut splits the range that holds a key there.
func cut(t *testing.T, w *world, key string, id base.RangeID) {
	t.Helper()
	d := w.nodes[1]
	desc, err := d.Descriptor(w.ctx(), paged, []byte(key))
	must(t, err)
	cmd, err := apply.Split(desc, []byte(key), id)
	must(t, err)
	m, err := d.Propose(w.ctx(), paged, []byte(key), cmd)
	must(t, err)
	publish(t, w, m.(*kvpb.SplitResponse).Left, m.(*kvpb.SplitResponse).Right)
}

// fillKeys writes the keys k000 … with values of size bytes.
func fillKeys(t *testing.T, w *world, n, size int) {
	t.Helper()
	for i := range n {
		key := fmt.Sprintf("k%03d", i)
		must2(w.nodes[1].Propose(w.ctx(), paged, []byte(key), putCommand(t, key, string(make([]byte, size)))))(t)
	}
}

// Pages are one snapshot, whatever is written, deleted and split between two of them; seen from the node that has the ranges, and
// from one that has none.
func TestPagesAreOneSnapshot(t *testing.T) {
	for node := base.NodeID(1); node <= 2; node++ {
		t.Run(node.String(), func(t *testing.T) {
			w := newWorld(t, 2)
			d := shard(t, w)
			fillKeys(t, w, 60, 60_000)
			cut(t, w, "k020", 101)
			cut(t, w, "k040", 102)
			asker := w.nodes[node]
			all := &pb.RangeRequest{Key: []byte("k001"), RangeEnd: []byte("k059"), MinModRevision: 1}
			want, err := asker.Range(w.ctx(), paged, all)
			must(t, err)
			ask := proto.CloneOf(all)
			got := &pb.RangeResponse{}
			for pages := 0; ; pages++ {
				resp, next, err := asker.Page(w.ctx(), paged, ask)
				must(t, err)
				if pages == 0 {
					if ask.Revision = resp.Header.Revision; ask.Revision < want.Header.Revision {
						t.Errorf("the pages are of revision %d, and %d was read before", ask.Revision, want.Header.Revision)
					}
				}
				got.Kvs, got.Count = append(got.Kvs, resp.Kvs...), got.Count+resp.Count
				if next == nil {
					break
				}
				if proto.Size(resp) > base.PageBytes+100_000 {
					t.Errorf("a page of %d bytes", proto.Size(resp))
				}
				ask.Key = next
				must2(d.Propose(w.ctx(), paged, []byte("k058"), putCommand(t, "k058", "changed")))(t)
				must2(d.Propose(w.ctx(), paged, []byte("k05"), putCommand(t, "k05", "new")))(t)
				gone, err := proto.Marshal(&pb.DeleteRangeRequest{Key: []byte("k045")})
				must(t, err)
				must2(d.Propose(w.ctx(), paged, []byte("k045"), &kvpb.Command{Body: &kvpb.Command_DeleteRange{DeleteRange: gone}}))(t)
				cut(t, w, fmt.Sprintf("k%03d", 50-pages), base.RangeID(200+pages))
			}
			got.Header = want.Header
			if !proto.Equal(got, want) {
				t.Errorf("%d pairs, count %d; want %d", len(got.Kvs), got.Count, len(want.Kvs))
			}
			must2(d.Propose(w.ctx(), paged, []byte("k"), putCommand(t, "k", "later")))(t)
			after, err := asker.Range(w.ctx(), paged, &pb.RangeRequest{Key: all.Key, RangeEnd: all.RangeEnd, Revision: ask.Revision})
			must(t, err)
			if after.Header = want.Header; !proto.Equal(after, want) {
				t.Error("the snapshot's revision came to hold something else")
			}
		})
	}
}

// A page at a revision asks the range that holds its first key, and no other.
func TestAPageAsksOneRange(t *testing.T) {
	w := newWorld(t, 2)
	shard(t, w)
	fillKeys(t, w, 30, 10)
	cut(t, w, "k010", 101)
	cut(t, w, "k020", 102)
	d := w.nodes[2]
	ask := &pb.RangeRequest{Key: []byte("k000"), RangeEnd: []byte{0}}
	first, next, err := d.Page(w.ctx(), paged, ask)
	must(t, err)
	if string(next) != "k010" || first.Count != 10 {
		t.Errorf("the first page has %d keys and ends before %q", first.Count, next)
	}
	reads, pages, proposals := w.requests(read), w.requests(page), w.requests(propose)
	ask.Key, ask.Revision = next, first.Header.Revision
	second, next, err := d.Page(w.ctx(), paged, ask)
	must(t, err)
	if string(next) != "k020" || second.Count != 10 {
		t.Errorf("the second page has %d keys and ends before %q", second.Count, next)
	}
	if r, p, w := w.requests(read)-reads, w.requests(page)-pages, w.requests(propose)-proposals; r != 0 || p != 1 || w != 0 {
		t.Errorf("it took %d reads, %d pages and %d proposals", r, p, w)
	}
}

// A span within one range is read there alone, at the revision that the range has.
func TestAPageWithinOneRange(t *testing.T) {
	w := newWorld(t, 2)
	shard(t, w)
	fillKeys(t, w, 20, 10)
	cut(t, w, "k010", 101)
	d := w.nodes[2]
	for _, serializable := range []bool{false, true} {
		for id, asker := range w.nodes {
			resp, next, err := asker.Page(w.ctx(), paged, &pb.RangeRequest{
				Key: []byte("k002"), RangeEnd: []byte("k010"), Limit: 5, Serializable: serializable})
			must(t, err)
			if string(next) != "k006\x00" || resp.Count != 5 || len(resp.Kvs) != 5 {
				t.Errorf("%s: %d keys, count %d, then %q", id, len(resp.Kvs), resp.Count, next)
			}
		}
	}
	if p := w.requests(propose); p != 0 {
		t.Errorf("%d proposals", p)
	}
	resp, next, err := d.Page(w.ctx(), paged, &pb.RangeRequest{Key: []byte("k003")})
	if err != nil || next != nil || resp.Count != 1 {
		t.Errorf("one key: %v, then %q, %v", resp, next, err)
	}
}

// What a lookup of a descriptor was told on its way stays as it was told: the cache has it by then.
func TestDescriptorOfWhatWasCut(t *testing.T) {
	w := newWorld(t, 2)
	shard(t, w)
	d := w.nodes[2]
	whole, err := d.Descriptor(w.ctx(), paged, []byte("b"))
	must(t, err)
	d.Learn(whole)
	cut(t, w, "m", 101)
	right, err := d.Descriptor(w.ctx(), paged, []byte("z"))
	must(t, err)
	left := d.routes.find(paged, []byte("b"))
	if right.RangeId != 101 || left == nil || left.RangeId != 100 || string(left.End) != "m" {
		t.Errorf("the left part is known as %v, the right one as %v", left, right)
	}
	cut(t, w, "c", 102)
	for _, key := range []string{"b", "d", "z"} {
		if _, err := d.Range(w.ctx(), paged, &pb.RangeRequest{Key: []byte(key)}); err != nil {
			t.Errorf("reading %q: %v", key, err)
		}
	}
}
