package store

import (
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/kvpb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/kv/engine"
)

// Who asks page after page is served from what one walk gathered, and so is who asks for a part of it; not below a compaction, nor when
// nobody has asked for long.
func TestChangesOfARun(t *testing.T) {
	n := newSplitNode(t, func(engine.Writer) {})
	for i := range 60 {
		must(t, n.propose(leftRange, putCommand(t, fmt.Sprint("k", i%7))))
	}
	v := n.s.View(leftRange)
	ask := func(from int64, start string) *rangepb.ChangesResponse {
		t.Helper()
		resp, err := n.s.Changes(leftRange, &rangepb.ChangesRequest{KeyspaceId: uint64(splitSpace), Start: []byte(start), From: from, MostBytes: 600})
		must(t, err)
		return resp
	}
	walks, events := 0, 0
	var last *run
	var from []int64
	for next := int64(1); next <= int64(v.Counters.Revision); {
		resp := ask(next, "")
		if kept := n.s.runs.all; len(kept) > 0 && kept[len(kept)-1] != last {
			walks, last = walks+1, kept[len(kept)-1]
		}
		from, events, next = append(from, next), events+len(resp.Events), resp.Next
	}
	if events != 62 || len(from) < 3*walks || walks < 2 || len(n.s.runs.all) > base.WatchRuns {
		t.Errorf("%d events on %d pages of %d walks, of which %d are kept", events, len(from), walks, len(n.s.runs.all))
	}
	at := int64(last.page.Next) - 2
	kept := len(n.s.runs.all)
	if resp := ask(at, "k3"); len(n.s.runs.all) != kept || resp.Next != int64(last.page.Next) || len(resp.Events) > 2 {
		t.Errorf("a part: %d events up to %d", len(resp.Events), resp.Next)
	}
	must(t, n.propose(leftRange, &kvpb.Command{Body: &kvpb.Command_Compaction{Compaction: body(t, &pb.CompactionRequest{Revision: at + 1})}}))
	if resp := ask(at, ""); len(resp.Events) != 0 || resp.Compacted != at+1 {
		t.Errorf("below the mark: %v", resp)
	}
	if resp := ask(at+1, ""); len(resp.Events) == 0 || resp.Next <= at+1 {
		t.Errorf("at the mark: %v", resp)
	}
	n.now = n.now.Add(base.WatchRunTime + time.Second)
	n.h.Expire()
	if len(n.s.runs.all) != 0 {
		t.Error("it is kept for ever")
	}
}
