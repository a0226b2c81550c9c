package dispatch

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/api/rangepb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/store"
)

// asked is a node's part in placement that says who was asked.
type asked struct{ node base.NodeID }

func (a asked) Direct(id base.RangeID, d *rangepb.Directive) *rangepb.DirectiveAnswer {
	return &rangepb.DirectiveAnswer{Doing: a.node.String() + " follows for " + id.String() + ": " + d.Reason}
}

func (a asked) Reserve(r *rangepb.Reserve) *rangepb.Reservation {
	return &rangepb.Reservation{Refused: a.node.String() + " takes no " + base.RangeID(r.RangeId).String()}
}

func (a asked) Report(r *rangepb.ReportRequest) *rangepb.Report {
	return &rangepb.Report{Version: r.After + uint64(a.node)}
}

func (a asked) Explain(_ context.Context, index base.RangeID, d *metapb.RangeDescriptor) (*metapb.Explanation, error) {
	return &metapb.Explanation{Range: d, Reason: a.node.String() + " decides by " + index.String()}, nil
}

// placing has every node take part in placement.
func placing(t *testing.T) *world {
	w := newWorld(t, 2)
	for id, d := range w.nodes {
		d.cfg.Placement = asked{id}
	}
	return w
}

// A directive goes to the range's leader from wherever it is sent, and once more if its answer is lost.
func TestDirectGoesToTheLeader(t *testing.T) {
	w := placing(t)
	r := store.FirstDescriptors(1)[3]
	for id, d := range w.nodes {
		answer, by, err := d.Direct(w.ctx(), r, &rangepb.Directive{Reason: "a test"})
		must(t, err)
		if want := "n1 follows for r4: a test"; answer.Doing != want || by != 1 {
			t.Errorf("asked by %s: %q of %s, want %q of n1", id, answer.Doing, by, want)
		}
	}
	lost := false
	w.loseFrames(func(_ base.NodeID, f *rangepb.ControlFrame) bool {
		answers := len(f.GetResponses().GetResponses()) > 0 && !lost
		lost = lost || answers
		return answers
	})
	go func() {
		<-w.lost
		w.nodes[2].PeerDown(1, context.DeadlineExceeded)
	}()
	answer, _, err := w.nodes[2].Direct(w.ctx(), r, &rangepb.Directive{Reason: "again"})
	must(t, err)
	if answer.Doing != "n1 follows for r4: again" {
		t.Errorf("after its answer was lost: %q", answer.Doing)
	}
}

// What was decided for a range that has become part of another is refused, with that one's descriptor.
func TestDirectOfARangeThatIsGone(t *testing.T) {
	w := placing(t)
	r := store.FirstDescriptors(1)[3]
	gone := &metapb.RangeDescriptor{RangeId: 77, KeyspaceId: r.KeyspaceId, Start: []byte("m"), Generation: 1, Replicas: r.Replicas, NextReplicaId: 2}
	answer, _, err := w.nodes[1].Direct(w.ctx(), gone, &rangepb.Directive{})
	must(t, err)
	if answer.Refused == "" || answer.Descriptor_.GetRangeId() != r.RangeId {
		t.Errorf("answered %v, want a refusal that names %s", answer, base.RangeID(r.RangeId))
	}
}

// Nodes are asked for themselves, whether or not they hold anything.
func TestNodesAreAskedForThemselves(t *testing.T) {
	w := placing(t)
	for _, node := range []base.NodeID{1, 2} {
		res, err := w.nodes[1].Reserve(w.ctx(), node, &rangepb.Reserve{RangeId: 4})
		must(t, err)
		if want := node.String() + " takes no r4"; res.Refused != want {
			t.Errorf("reserved at %s: %q, want %q", node, res.Refused, want)
		}
		rep, err := w.nodes[1].Report(w.ctx(), node, &rangepb.ReportRequest{After: 40})
		must(t, err)
		if rep.Version != 40+uint64(node) {
			t.Errorf("reported by %s: version %d", node, rep.Version)
		}
	}
}

// The leader of the index range that lists a range explains it, and root's leader explains root.
func TestWhoExplains(t *testing.T) {
	w := placing(t)
	for i, index := range []string{"r1", "r1", "r2", "r2"} { // of root, meta, sys, default
		e, by, err := w.nodes[2].Explain(w.ctx(), store.FirstDescriptors(1)[i])
		must(t, err)
		if want := "n1 decides by " + index; e.Reason != want || by != 1 {
			t.Errorf("%s: %q of %s, want %q of n1", store.FirstDescriptors(1)[i].String(), e.Reason, by, want)
		}
	}
}

// A node that takes no part says so, and does not seem to be away.
func TestTakesNoPart(t *testing.T) {
	w := newWorld(t, 2)
	_, _, err := w.nodes[2].Direct(w.ctx(), store.FirstDescriptors(1)[3], &rangepb.Directive{})
	_, err2 := w.nodes[2].Reserve(w.ctx(), 1, &rangepb.Reserve{})
	_, err3 := w.nodes[1].Report(w.ctx(), 1, &rangepb.ReportRequest{})
	_, _, err4 := w.nodes[2].Explain(w.ctx(), store.FirstDescriptors(1)[3])
	for _, err := range []error{err, err2, err3, err4} {
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%v, want FailedPrecondition", err)
		}
	}
}
