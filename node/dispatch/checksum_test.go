package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/desc"
	"github.com/cairndb/cairn/meta/route"
	"github.com/cairndb/cairn/node/check"
	"github.com/cairndb/cairn/node/store"
)

// TestChecksum: a replica's versions at a revision have one hash, wherever it is asked from and in whatever pages, and keep it
// while the range is written to; a compaction above the mark is said, and so is another generation.
func TestChecksum(t *testing.T) {
	w := newWorld(t, 2)
	for i := range 40 {
		_, err := w.nodes[1].Propose(w.ctx(), base.KeyspaceDefault, []byte("k"), putCommand(t, fmt.Sprint("k", i%7), fmt.Sprint("value ", i)))
		must(t, err)
	}
	ask := func(from base.NodeID, req *rangepb.ChecksumRequest) *rangepb.ChecksumResponse {
		t.Helper()
		resp, err := w.nodes[from].Checksum(w.ctx(), 1, base.RangeDefault, req)
		must(t, err)
		return resp
	}
	how := ask(2, &rangepb.ChecksumRequest{})
	if how.Hashed || how.Revision != 41 || how.Descriptor_.GetRangeId() != uint64(base.RangeDefault) {
		t.Fatalf("how it is: %v", how)
	}
	req := &rangepb.ChecksumRequest{Revision: how.Revision, Compacted: how.Compacted, Generation: how.Descriptor_.Generation}
	all := ask(1, req)
	if !all.Hashed || !all.End || all.Versions != 40 {
		t.Fatalf("at once: %v", all)
	}
	_, err := w.nodes[1].Propose(w.ctx(), base.KeyspaceDefault, []byte("k"), putCommand(t, "k3", "later"))
	must(t, err)
	if again := ask(2, req); again.Sum != all.Sum {
		t.Errorf("%x after a later write, and %x before", again.Sum, all.Sum)
	}
	paged, pages := &rangepb.ChecksumResponse{}, 0
	for ; !paged.End; pages++ {
		paged = ask(2, &rangepb.ChecksumRequest{Revision: req.Revision, Compacted: req.Compacted, Generation: req.Generation,
			Limit: 100, After: paged.Reached, State: paged.State})
	}
	if paged.Sum != all.Sum || pages < 10 {
		t.Errorf("%x in %d pages, and %x at once", paged.Sum, pages, all.Sum)
	}
	if resp := ask(2, &rangepb.ChecksumRequest{Revision: 41, Compacted: how.Compacted, Generation: 99}); resp.Hashed {
		t.Error("hashed at a generation that it does not have")
	}
	_, err = w.nodes[1].Propose(w.ctx(), base.KeyspaceDefault, []byte{0}, &kvpb.Command{Body: &kvpb.Command_Compaction{
		Compaction: encode(t, &pb.CompactionRequest{Revision: 20})}})
	must(t, err)
	if resp := ask(2, req); resp.Hashed || resp.Compacted != 20 {
		t.Errorf("compacted since: %v", resp)
	}
	req.Compacted = 20
	if resp := ask(2, req); !resp.Hashed || resp.Sum == all.Sum {
		t.Errorf("above the new mark: %v", resp)
	}
}

func TestChecksumRefused(t *testing.T) {
	w := newWorld(t, 2)
	how, err := w.nodes[1].Checksum(w.ctx(), 1, base.RangeDefault, &rangepb.ChecksumRequest{})
	must(t, err)
	for _, c := range []struct {
		node base.NodeID
		id   base.RangeID
		req  *rangepb.ChecksumRequest
		code codes.Code
	}{
		{1, base.RangeDefault, &rangepb.ChecksumRequest{Revision: math.MaxInt64, Compacted: how.Compacted, Generation: 1}, codes.OutOfRange},
		{1, base.RangeDefault, &rangepb.ChecksumRequest{Revision: 1, Compacted: 2, Generation: 1}, codes.InvalidArgument},
		{1, base.RangeDefault, &rangepb.ChecksumRequest{Revision: how.Revision, Compacted: how.Compacted, Generation: 1, State: []byte("x")}, codes.InvalidArgument},
	} {
		if _, err := w.nodes[2].Checksum(w.ctx(), c.node, c.id, c.req); status.Code(err) != c.code {
			t.Errorf("%v: %v, want %s", c.req, err, c.code)
		}
	}
	var moved *base.RangeMoved
	for from := base.NodeID(1); from <= 2; from++ {
		if _, err := w.nodes[from].Checksum(w.ctx(), 2, base.RangeDefault, &rangepb.ChecksumRequest{}); !errors.As(err, &moved) {
			t.Errorf("a node without a replica, asked from n%d: %v", from, err)
		}
	}
	w.mu.Lock()
	w.fails[1] = true
	w.mu.Unlock()
	var notLeader *base.NotLeader
	if _, err := w.nodes[2].Checksum(w.ctx(), 1, base.RangeDefault, &rangepb.ChecksumRequest{}); !errors.As(err, &notLeader) {
		t.Errorf("a node that nothing reaches: %v", err)
	}
}

// TestCheckFindsWrongEntries: a check of real ranges, made from a node that has none of them, finds what is wrong in the index.
func TestCheckFindsWrongEntries(t *testing.T) {
	w := newWorld(t, 2)
	run := func() (said []string) {
		t.Helper()
		var sum *clusterpb.CheckSummary
		must(t, check.Run(w.ctx(), check.Config{
			Cluster: w.nodes[2], LookPause: 1,
			Keyspaces: func(context.Context) ([]*metapb.KeyspaceRecord, error) { return nil, nil },
			Status: func(context.Context) *clusterpb.StatusResponse {
				st := &clusterpb.StatusResponse{}
				for _, d := range store.FirstDescriptors(1) {
					st.Ranges = append(st.Ranges, &clusterpb.RangeEntry{Descriptor_: d})
				}
				return st
			},
		}, &clusterpb.CheckRequest{}, func(r *clusterpb.CheckResponse) error {
			if f := r.GetFinding(); f != nil {
				said = append(said, fmt.Sprintf("%s r%d: %s", f.Keyspace, f.RangeId, f.What))
			}
			if u := r.GetUnseen(); u != nil {
				said = append(said, "unseen: "+u.Reason)
			}
			sum = r.GetSummary()
			return nil
		}))
		if sum.GetRanges() < 4 {
			t.Errorf("it looked at %v", sum)
		}
		return said
	}
	if said := run(); len(said) > 0 {
		t.Fatalf("nothing is wrong, and it says %q", said)
	}
	entry := func(d *metapb.RangeDescriptor, ks base.KeyspaceID, end string) {
		t.Helper()
		raw, err := desc.Encode(d)
		must(t, err)
		key := route.IndexKey(ks, []byte(end))
		_, err = w.nodes[1].Propose(w.ctx(), base.KeyspaceMeta, key, &kvpb.Command{Body: &kvpb.Command_Put{Put: encode(t, &pb.PutRequest{Key: key, Value: raw})}})
		must(t, err)
	}
	good := store.FirstDescriptors(1)[3]
	bad := desc.Clone(good)
	bad.End = []byte("m")
	bad.Generation += 5
	entry(bad, base.KeyspaceDefault, "m")
	want := []string{"default r4: as the index says, two ranges hold the keys from \"\"", "default r4: the index is ahead of the range"}
	if said := run(); strings.Join(said, "|") != strings.Join(want, "|") {
		t.Errorf("an entry too many: %q, want %q", said, want)
	}
}
