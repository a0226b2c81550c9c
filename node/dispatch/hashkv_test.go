package dispatch

import (
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
)

func (w *world) hash(from base.NodeID, ks base.KeyspaceID, revision int64) *pb.HashKVResponse {
	w.t.Helper()
	h, err := w.nodes[from].HashKV(w.ctx(), ks, revision)
	must(w.t, err)
	return h
}

func (w *world) compact(ks base.KeyspaceID, revision int64) error {
	_, err := w.nodes[1].Propose(w.ctx(), ks, []byte{0}, &kvpb.Command{Body: &kvpb.Command_Compaction{
		Compaction: encode(w.t, &pb.CompactionRequest{Revision: revision})}})
	return err
}

// TestHashKV: a keyspace has one hash at a revision, whoever is asked, with a replica or without, and keeps it under later writes;
// a revision that is not there, or no longer, is refused as etcd refuses it.
func TestHashKV(t *testing.T) {
	w := newWorld(t, 2)
	put := func(i int) {
		t.Helper()
		_, err := w.nodes[1].Propose(w.ctx(), base.KeyspaceDefault, []byte("k"), putCommand(t, fmt.Sprint("k", i%7), fmt.Sprint("value ", i)))
		must(t, err)
	}
	for i := range 40 {
		put(i)
	}
	newest := w.hash(1, base.KeyspaceDefault, 0)
	if newest.HashRevision != 41 || newest.Header.Revision != 41 || newest.CompactRevision != 0 || newest.Hash == 0 {
		t.Errorf("the newest: %v", newest)
	}
	if other := w.hash(2, base.KeyspaceDefault, 0); other.Hash != newest.Hash {
		t.Errorf("from a node without a replica: %v, and not %v", other, newest)
	}
	if old := w.hash(1, base.KeyspaceDefault, 40); old.Hash == newest.Hash || old.HashRevision != 40 || old.Header.Revision != 41 {
		t.Errorf("a revision earlier: %v", old)
	}
	put(40)
	if same := w.hash(2, base.KeyspaceDefault, 41); same.Hash != newest.Hash || same.Header.Revision != 42 {
		t.Errorf("after a later write: %v, and not %v", same, newest)
	}
	if now := w.hash(1, base.KeyspaceDefault, 0); now.Hash == newest.Hash || now.HashRevision != 42 {
		t.Errorf("the newest after a later write: %v", now)
	}
	_, err := w.nodes[2].HashKV(w.ctx(), base.KeyspaceDefault, 43)
	if !errors.Is(err, rpctypes.ErrGRPCFutureRev) {
		t.Errorf("a future revision: %v", err)
	}
	must(t, w.compact(base.KeyspaceDefault, 20))
	if _, err := w.nodes[2].HashKV(w.ctx(), base.KeyspaceDefault, 19); !errors.Is(err, rpctypes.ErrGRPCCompacted) {
		t.Errorf("a compacted revision: %v", err)
	}
	if at, other := w.hash(1, base.KeyspaceDefault, 20), w.hash(2, base.KeyspaceDefault, 20); at.CompactRevision != 20 || at.Hash != other.Hash {
		t.Errorf("at the compaction: %v and %v", at, other)
	}
}

// TestHashKVOfManyRanges: the hash of a keyspace does not depend on where it is cut, and is made at one revision of all its ranges.
func TestHashKVOfManyRanges(t *testing.T) {
	w := newSharded(t, 3, 4)
	var last int64
	for i := range 30 {
		last = w.put(w.nodes[1], fmt.Sprintf("%d/%d", i%4, i), fmt.Sprint("value ", i))
	}
	newest := w.hash(1, sharded, 0)
	if newest.HashRevision < last {
		t.Errorf("%v is older than the last write, at %d", newest, last)
	}
	for from := base.NodeID(1); from <= 3; from++ {
		if h := w.hash(from, sharded, newest.HashRevision); h.Hash != newest.Hash {
			t.Errorf("from n%d: %v, and not %v", from, h, newest)
		}
	}
	d, err := w.nodes[1].Descriptor(w.ctx(), sharded, []byte("0/8"))
	must(t, err)
	cut, err := w.nodes[1].Propose(w.ctx(), sharded, d.Start, &kvpb.Command{Body: &kvpb.Command_Split{Split: &kvpb.Split{
		Key: []byte("0/8"), RightRangeId: 500, ExpectedGeneration: d.Generation}}})
	must(t, err)
	for _, n := range w.nodes { // nothing carries a split into the index here
		n.Learn(cut.(*kvpb.SplitResponse).Left, cut.(*kvpb.SplitResponse).Right)
	}
	for from := base.NodeID(1); from <= 3; from++ {
		if h := w.hash(from, sharded, newest.HashRevision); h.Hash != newest.Hash {
			t.Errorf("from n%d, after a cut: %v, and not %v", from, h, newest)
		}
	}
	must(t, w.compact(sharded, newest.HashRevision))
	if h := w.hash(2, sharded, newest.HashRevision); h.CompactRevision != newest.HashRevision {
		t.Errorf("at the compaction: %v", h)
	}
	if _, err := w.nodes[3].HashKV(w.ctx(), sharded, newest.HashRevision-1); !errors.Is(err, rpctypes.ErrGRPCCompacted) {
		t.Errorf("a compacted revision: %v", err)
	}
	if _, err := w.nodes[3].HashKV(w.ctx(), sharded, 1<<62); status.Code(err) != codes.OutOfRange {
		t.Errorf("a future revision: %v", err)
	}
}

// A hash goes on where it is, when a range turns out to be another than was thought, and begins anew at a compaction.
func TestHashKVGoesOn(t *testing.T) {
	w := newWorld(t, 1)
	h := &keyspaceHash{d: w.nodes[1], ks: base.KeyspaceDefault}
	d, err := w.nodes[1].Descriptor(w.ctx(), base.KeyspaceDefault, nil)
	must(t, err)
	take := func(r *rangepb.ChecksumResponse) {
		t.Helper()
		r.Descriptor_ = d
		must(t, h.take(r))
	}
	take(&rangepb.ChecksumResponse{Revision: 9})
	take(&rangepb.ChecksumResponse{Revision: 10, Hashed: true, State: []byte("s"), Sum: 5, Reached: &rangepb.VersionPosition{Key: []byte("k"), Revision: 3}})
	if h.revision != 9 || string(h.after.GetKey()) != "k" {
		t.Fatalf("a page: %+v", h)
	}
	take(&rangepb.ChecksumResponse{Revision: 10})
	if h.sum != 5 || string(h.after.GetKey()) != "k" {
		t.Errorf("another generation: %+v", h)
	}
	take(&rangepb.ChecksumResponse{Revision: 11, Compacted: 7})
	if h.after != nil || h.state != nil || h.mark != 7 || h.revision != 11 {
		t.Errorf("a compaction: %+v", h)
	}
	h.asked = 8
	if err := h.take(&rangepb.ChecksumResponse{Descriptor_: d, Revision: 11, Compacted: 9}); !errors.Is(err, rpctypes.ErrGRPCCompacted) {
		t.Errorf("a compaction above what was asked for: %v", err)
	}
}

// A hash that has come to the end of a range goes on in the midst of another that has taken the next one over.
func TestHashKVGoesOnAfterAMerge(t *testing.T) {
	w := newWorld(t, 2)
	for i := range 40 {
		_, err := w.nodes[1].Propose(w.ctx(), base.KeyspaceDefault, []byte("k"), putCommand(t, fmt.Sprint("k", i%7), fmt.Sprint("value ", i)))
		must(t, err)
	}
	whole := w.hash(1, base.KeyspaceDefault, 41)
	d, err := w.nodes[1].Descriptor(w.ctx(), base.KeyspaceDefault, nil)
	must(t, err)
	left, err := w.nodes[1].Checksum(w.ctx(), 1, base.RangeDefault, &rangepb.ChecksumRequest{
		Revision: 41, Generation: d.Generation, Until: &rangepb.VersionPosition{Key: []byte("k2")}})
	must(t, err)
	left.Descriptor_ = desc.Clone(d)
	left.Descriptor_.End = []byte("k3")
	for _, n := range w.nodes {
		h := &keyspaceHash{d: n, ks: base.KeyspaceDefault, asked: 41, revision: 41}
		must(t, h.take(left))
		for !h.end {
			must(t, h.page(w.ctx()))
		}
		if h.answer().Hash != whole.Hash {
			t.Errorf("%v, and at once %v", h.answer(), whole)
		}
	}
}
