package dispatch

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/latency"
)

// TestHeartbeat: it finds the leader of sys from a node that has no replica, and from the leader's own; a lost one is given up in time.
func TestHeartbeat(t *testing.T) {
	w := newWorld(t, 2)
	if _, _, err := w.nodes[2].Heartbeat(w.ctx(), &metapb.Heartbeat{NodeId: 2}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a leader without a table: %v", err)
	}
	w.nodes[1].cfg.Heartbeat = func(h *metapb.Heartbeat) (*metapb.HeartbeatAnswer, error) {
		return &metapb.HeartbeatAnswer{Own: &metapb.NodeRecord{NodeId: h.NodeId, Epoch: h.Seq}}, nil
	}
	for id, d := range w.nodes {
		answer, by, err := d.Heartbeat(w.ctx(), &metapb.Heartbeat{NodeId: uint64(id), Seq: 7})
		if want := (&metapb.HeartbeatAnswer{Own: &metapb.NodeRecord{NodeId: uint64(id), Epoch: 7}}); err != nil || by != 1 || !proto.Equal(answer, want) {
			t.Errorf("from %s: %v by %s, %v", id, answer, by, err)
		}
	}
	for what, raw := range map[string][]byte{"nobody's": encode(t, &metapb.Heartbeat{}), "garbage": {0xff, 0xff, 0xff}} {
		if _, err := w.nodes[1].heartbeatHere(raw); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	var notLeader *base.NotLeader
	if _, err := w.nodes[2].heartbeatHere(encode(t, &metapb.Heartbeat{NodeId: 1})); !errors.As(err, &notLeader) {
		t.Errorf("at a node that does not lead: %v", err)
	}

	w.loseFrames(func(_ base.NodeID, f *rangepb.ControlFrame) bool {
		for _, q := range f.GetRequests().GetRequests() {
			if q.Kind == rangepb.RequestKind_REQUEST_KIND_HEARTBEAT {
				return true
			}
		}
		return false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, by, err := w.nodes[2].Heartbeat(ctx, &metapb.Heartbeat{NodeId: 2, Seq: 8}); err == nil || by != 0 {
		t.Errorf("a lost heartbeat was answered by %s", by)
	}
}

// latencies counts the writes that a node times from now on.
func latencies(d *Dispatcher) func() uint64 {
	w := latency.NewWindow(d.Puts())
	return func() uint64 {
		w.Look()
		_, of := w.P99()
		return of
	}
}

// TestPutsAreTimed: a write that is led here counts, whoever's it is; one that this node only sends on does not.
func TestPutsAreTimed(t *testing.T) {
	w := newWorld(t, 2)
	led, sent := latencies(w.nodes[1]), latencies(w.nodes[2])
	for _, d := range w.nodes {
		_, err := d.Propose(w.ctx(), base.KeyspaceDefault, []byte("k"), putCommand(t, "k", "v"))
		must(t, err)
	}
	if n := led(); n != 2 {
		t.Errorf("%d writes were timed where they were led, want 2", n)
	}
	if n := sent(); n != 0 {
		t.Errorf("%d writes were timed where they were sent on", n)
	}
}
