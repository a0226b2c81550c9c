package operate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/operation"
	"github.com/cairndb/cairn/meta/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	drain        = metapb.OperationKind_OPERATION_KIND_DRAIN
	decommission = metapb.OperationKind_OPERATION_KIND_DECOMMISSION
	relocate     = metapb.OperationKind_OPERATION_KIND_RELOCATE
)

func refusedWith(t *testing.T, err error, kind base.RefusedFor, says string) {
	t.Helper()
	var r *base.Refused
	if !errors.As(err, &r) || r.For != kind || !strings.Contains(r.Error(), says) {
		t.Errorf("%v; want a refusal (%d) with %q", err, kind, says)
	}
}

// ended watches an operation until it has ended, and returns how it went.
func ended(t *testing.T, m *Manager, id uint64) (all []*metapb.Operation) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := m.Watch(ctx, id, func(op *metapb.Operation) error { all = append(all, op); return nil }); err != nil {
		t.Fatalf("%v after %v", err, all)
	}
	return all
}

// Whoever leads sys carries an operation on, from the records alone; what is watched is told of each change.
func TestCarriedOn(t *testing.T) {
	w := newWorld(t, 5, three...)
	asked, first := w.manager(t, false), w.manager(t, true)
	op, steps, err := asked.Begin(t.Context(), &metapb.Operation{Kind: decommission, Nodes: []uint64{3}}, false, w.status)
	if err != nil || op.OpId != 1 || len(steps) != 3 || !strings.Contains(steps[1], "4 replicas") {
		t.Fatalf("%v, %v, %v", op, steps, err)
	}
	if n := w.node(t, asked, 3); n.State != metapb.NodeState_NODE_STATE_LEAVING || n.Generation != 2 {
		t.Errorf("%v", n)
	}
	first.Start()
	var seen *metapb.Operation
	for seen == nil || seen.Total == 0 { // written by the loop; the next change wakes this
		next := asked.next()
		if seen, err = asked.Operation(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if seen.Total == 0 {
			<-next
		}
	}
	if seen.Total != 4 || seen.Left != 4 {
		t.Errorf("%v", seen)
	}
	first.Stop() // it dies

	for _, r := range []string{"r1 ks1 [-∞, +∞) gen 7: 1@n1 2@n2 4@n4 next 5", "r2 ks2 [-∞, +∞) gen 7: 1@n1 2@n2 4@n4 next 5", "r3 ks3 [-∞, +∞) gen 7: 1@n2 2@n1 4@n4 next 5",
		"r100 ks100 [-∞, m) gen 7: 2@n1 3@n2 4@n4 next 5"} {
		w.put(t, r)
	}
	second := w.manager(t, true)
	second.lookAll() // it finds nothing left, and does not rely on that yet: what was decided before may still come
	if n := w.node(t, asked, 3); n.State != metapb.NodeState_NODE_STATE_LEAVING {
		t.Errorf("%v", n)
	}
	w.later(base.OperationSettle)
	second.Start()
	defer second.Stop()
	all := ended(t, asked, 1)
	if last := all[len(all)-1]; last.State != metapb.OperationState_OPERATION_STATE_DONE || last.Left != 0 || last.Total != 4 {
		t.Errorf("%v", all)
	}
	if n := w.node(t, asked, 3); n.State != metapb.NodeState_NODE_STATE_LEFT || n.Epoch != 2 {
		t.Errorf("%v", n)
	}
}

// A reading of the index that waited for a range without a leader has cost nothing: the next one comes soon, and finds what has changed.
func TestWaitingIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, three...)
		m := w.manager(t, true)
		w.reads = func() { <-time.After(5 * time.Second) } // of the bubble
		if err := m.count(); err != nil || m.drive.tally.Of(3).Replicas == 0 {
			t.Fatalf("%v, %v", m.drive.tally, err)
		}
		w.reads = nil
		for _, r := range []string{"r1 ks1 [-∞, +∞) gen 7: 1@n1 2@n2 4@n4 next 5", "r2 ks2 [-∞, +∞) gen 7: 1@n1 2@n2 4@n4 next 5",
			"r3 ks3 [-∞, +∞) gen 7: 1@n2 2@n1 4@n4 next 5", "r100 ks100 [-∞, m) gen 7: 2@n1 3@n2 4@n4 next 5"} {
			w.put(t, r)
		}
		<-time.After(base.OperationLook)
		if err := m.count(); err != nil || m.drive.tally.Of(3).Replicas != 0 {
			t.Fatalf("n3 is still said to hold %d, %v", m.drive.tally.Of(3).Replicas, err)
		}
	})
}

// A drain that does not come on says why, as the deciders say; and is done when the node leads nothing.
func TestSaysWhy(t *testing.T) {
	w := newWorld(t, 4, three...)
	m := w.manager(t, true)
	op, _, err := m.Begin(t.Context(), &metapb.Operation{Kind: drain, Nodes: []uint64{3}}, false, w.status)
	if err != nil {
		t.Fatal(err)
	}
	look := func() *metapb.Operation {
		m.lookAll()
		now, err := m.Operation(t.Context(), op.OpId)
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	if now := look(); now.Total != 1 || now.Waiting != "" {
		t.Errorf("%v", now)
	}
	if c := m.Counts(); c != (Counts{Running: 1}) {
		t.Errorf("counted %+v", c)
	}
	w.later(base.OperationStalled)
	if now := look(); now.Waiting != "waiting because 1 leader is left, of r100 first: n4 is full" {
		t.Errorf("%v", now)
	}
	w.down[3] = true
	if now := look(); now.Waiting != "waiting because n3 does not say what it leads: it is down" {
		t.Errorf("%v", now)
	}
	w.down[3], w.leader[100] = false, 1
	if now := look(); now.State != metapb.OperationState_OPERATION_STATE_DONE {
		t.Errorf("%v", now)
	}
	gen := look().Generation
	if again := look().Generation; again != gen {
		t.Errorf("an operation that has ended is written again: generation %d, then %d", gen, again)
	}
	if c := m.Counts(); c != (Counts{Done: 1}) {
		t.Errorf("counted %+v", c)
	}
}

func TestRelocated(t *testing.T) {
	w := newWorld(t, 5, three...)
	m := w.manager(t, true)
	_, steps, err := m.Begin(t.Context(), &metapb.Operation{Kind: relocate, RangeId: 100, Voters: []uint64{1, 2, 5}, Leader: 5}, false, w.status)
	if err != nil || !slices.Equal(steps, []string{"a replica is made on n5", "that on n3 is removed", "n5 leads it"}) {
		t.Fatalf("%v, %v", steps, err)
	}
	m.lookAll()
	w.put(t, "r100 ks100 [-∞, m) gen 8: 2@n1 3@n2 5@n5 next 6")
	w.leader[100] = 5
	m.lookAll()
	if op, err := m.Operation(t.Context(), 1); err != nil || op.State != metapb.OperationState_OPERATION_STATE_DONE || op.Total != 3 {
		t.Errorf("%v, %v", op, err)
	}
}

// Sizes are those that leaders say, range by range; only of a range whose leader is silent the mean is taken.
func TestRealSizes(t *testing.T) {
	w := newWorld(t, 5, three...)
	w.size = map[base.RangeID]uint64{1: 1 << 20, 2: 1 << 20, 3: 1 << 20, 100: 300 << 20, 101: 7 << 20}
	m := w.manager(t, true)
	_, steps, err := m.Begin(t.Context(), &metapb.Operation{Kind: decommission, Nodes: []uint64{3}}, true, w.status)
	if err != nil || !slices.Contains(steps, "about 303 MiB in 4 replicas: moved to other nodes") {
		t.Errorf("%q, %v", steps, err)
	}
	if _, _, err = m.Begin(t.Context(), &metapb.Operation{Kind: relocate, RangeId: 100, Voters: []uint64{1, 4, 5}}, false, w.status); err != nil {
		t.Fatal(err)
	}
	m.lookAll()
	w.put(t, "r100 ks100 [-∞, m) gen 8: 2@n1 3@n2 5@n5 next 6")
	m.lookAll()
	if op, err := m.Operation(t.Context(), 1); err != nil || op.BytesTotal != 600<<20 || op.BytesLeft != 300<<20 || op.Left != 2 {
		t.Errorf("%v, %v", op, err)
	}
}

// Two that fight are begun at the same moment, on two nodes: one of them is refused.
func TestFightAtOnce(t *testing.T) {
	for range 20 {
		w := newWorld(t, 5, three...)
		kinds := []metapb.OperationKind{drain, decommission}
		errs := make([]error, len(kinds))
		var wg sync.WaitGroup
		for i, k := range kinds {
			m := w.manager(t, false)
			wg.Go(func() {
				_, _, errs[i] = m.Begin(t.Context(), &metapb.Operation{Kind: k, Nodes: []uint64{3}}, false, w.status)
			})
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("%v", errs)
		}
		refusedWith(t, errors.Join(errs...), base.RefusedState, "operation 1 (")
		ops, err := w.manager(t, false).List(t.Context(), true)
		if err != nil || len(ops) != 1 {
			t.Fatalf("%v, %v", ops, err)
		}
	}
}

// A write whose outcome is not known is looked for: it is not made twice.
func TestVagueOutcome(t *testing.T) {
	w := newWorld(t, 5, three...)
	m := w.manager(t, false)
	w.vague = 1
	op, _, err := m.Begin(t.Context(), &metapb.Operation{Kind: drain, Nodes: []uint64{3}}, false, w.status)
	if err != nil || op.OpId != 1 {
		t.Fatalf("%v, %v", op, err)
	}
	w.vague = 1
	if op, err = m.Change(t.Context(), 1, clusterpb.OperationChange_OPERATION_CHANGE_CANCEL, false); err != nil || op.State != metapb.OperationState_OPERATION_STATE_CANCELLED {
		t.Fatalf("%v, %v", op, err)
	}
	if n := w.node(t, m, 3); n.Draining || n.Cordoned || n.Generation != 3 {
		t.Errorf("%v", n)
	}
	p := &metapb.PolicyRecord{}
	if err := policy.Set(p, "moves=3"); err != nil {
		t.Fatal(err)
	}
	w.vague = 1
	if set, _, err := m.SetPolicy(t.Context(), "", p, false, w.status); err != nil || set.Generation != 1 {
		t.Errorf("%v, %v", set, err)
	}
	if ops, err := m.List(t.Context(), true); err != nil || len(ops) != 1 {
		t.Errorf("%v, %v", ops, err)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, 4, three...)
	m, ctx := w.manager(t, false), t.Context()
	begin := func(op *metapb.Operation) error { _, _, err := m.Begin(ctx, op, false, w.status); return err }
	refusedWith(t, begin(nil), base.RefusedMalformed, "no operation")
	refusedWith(t, begin(&metapb.Operation{Kind: drain, Nodes: []uint64{9}}), base.RefusedUnknown, "there are n1, n2, n3, n4")
	refusedWith(t, begin(&metapb.Operation{Kind: relocate, RangeId: 7, Voters: []uint64{1}}), base.RefusedUnknown, "no range r7")
	refusedWith(t, begin(&metapb.Operation{Kind: drain, Nodes: []uint64{1, 2, 3}}), base.RefusedState, "could then have no leader")
	refusedWith(t, begin(&metapb.Operation{Kind: decommission, Nodes: []uint64{2, 3}}), base.RefusedState, "add nodes")
	w.down[4] = true
	refusedWith(t, begin(&metapb.Operation{Kind: relocate, RangeId: 100, Voters: []uint64{1, 2, 4}}), base.RefusedState, "n4 does not answer")
	w.down[3], w.down[4] = true, false
	refusedWith(t, begin(&metapb.Operation{Kind: drain, Nodes: []uint64{1, 2}}), base.RefusedState, "could then have no leader")
	if _, err := m.Change(ctx, 7, clusterpb.OperationChange_OPERATION_CHANGE_CANCEL, false); true {
		refusedWith(t, err, base.RefusedUnknown, "no operation 7")
	}
	if _, err := m.MayTransfer(ctx, 101, 3); true {
		refusedWith(t, err, base.RefusedState, "choose among n1, n2, n4")
	}
	if ops, err := m.List(ctx, true); err != nil || len(ops) != 0 || m.node(t, w) != nil {
		t.Errorf("something was begun: %v, %v", ops, err)
	}
}

// node returns a record that is not as it was at first; nil: there is none.
func (m *Manager) node(t *testing.T, w *world) *metapb.NodeRecord {
	for id := uint64(1); id <= 4; id++ {
		if n := w.node(t, m, id); n.Generation != 1 {
			return n
		}
	}
	return nil
}

func TestRemove(t *testing.T) {
	w := newWorld(t, 4, three...)
	m, ctx := w.manager(t, false), t.Context()
	remove := func(id uint64, dry bool) error {
		_, err := m.ChangeNode(ctx, &clusterpb.ChangeNodeRequest{NodeId: id, Change: clusterpb.NodeChange_NODE_CHANGE_REMOVE, DryRun: dry}, w.status)
		return err
	}
	refusedWith(t, remove(9, false), base.RefusedUnknown, "there are")
	refusedWith(t, remove(3, false), base.RefusedState, "it is active")
	w.state(t, m, 3, metapb.NodeState_NODE_STATE_FAILED)
	refusedWith(t, remove(3, false), base.RefusedState, "n3 lives")
	w.down[3], w.down[2] = true, true
	refusedWith(t, remove(3, false), base.RefusedState, "has lost its majority")
	w.down[2] = false
	if err := remove(3, true); err != nil || w.node(t, m, 3).State == metapb.NodeState_NODE_STATE_LEFT {
		t.Errorf("a dry run: %v, %v", err, w.node(t, m, 3))
	}
	for range 2 { // the second finds that it is so
		if err := remove(3, false); err != nil || w.node(t, m, 3).State != metapb.NodeState_NODE_STATE_LEFT || w.node(t, m, 3).Epoch != 2 {
			t.Errorf("%v, %v", err, w.node(t, m, 3))
		}
	}
}

// state sets a node's, as the detector would.
func (w *world) state(t *testing.T, m *Manager, id uint64, s metapb.NodeState) {
	r, err := m.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rec, err := r.node(id)
	if err != nil {
		t.Fatal(err)
	}
	rec.State = s
	w.mu.Lock()
	defer w.mu.Unlock()
	w.store(base.KeyspaceSys, string(r.nodeKeys[id]), rec)
}

// The answer is about all nodes together, and a hold is part of the next answer until it ends.
func TestSafeToStop(t *testing.T) {
	w := newWorld(t, 5, three...)
	m, ctx := w.manager(t, false), t.Context()
	ask := func(hold time.Duration, nodes ...uint64) *clusterpb.SafeToStopResponse {
		t.Helper()
		resp, err := m.SafeToStop(ctx, nodes, hold, w.status)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if resp := ask(0, 3); !resp.Safe || resp.Ranges != 5 || resp.HoldOpId != 0 {
		t.Errorf("%v", resp)
	}
	if resp := ask(time.Hour, 1, 2); resp.Safe || resp.HoldOpId != 0 || len(resp.Findings) == 0 || resp.Findings[0].Next == "" {
		t.Errorf("%v", resp)
	}
	held := ask(time.Hour, 3)
	if !held.Safe || held.HoldOpId != 1 {
		t.Fatalf("%v", held)
	}
	if resp := ask(0, 1); resp.Safe || !strings.Contains(resp.Findings[0].What, "n3 held, too") {
		t.Errorf("%v", resp)
	}
	if resp := ask(0, 5); !resp.Safe {
		t.Errorf("n5 holds nothing: %v", resp)
	}
	w.later(2 * time.Hour)
	if resp := ask(0, 1); !resp.Safe {
		t.Errorf("the hold is over: %v", resp)
	}
	w.down[2] = true
	if resp := ask(0, 1); resp.Safe {
		t.Errorf("n2 is down: %v", resp)
	}
	if _, err := m.SafeToStop(ctx, []uint64{1}, 48*time.Hour, w.status); true {
		refusedWith(t, err, base.RefusedMalformed, "too long")
	}
	if _, err := m.SafeToStop(ctx, []uint64{9}, 0, w.status); true {
		refusedWith(t, err, base.RefusedUnknown, "no node n9")
	}
}

func TestPolicies(t *testing.T) {
	w := newWorld(t, 4, three...)
	m, ctx := w.manager(t, false), t.Context()
	set := func(ks string, gen uint64, assignments ...string) ([]string, error) {
		p := &metapb.PolicyRecord{Generation: gen}
		for _, a := range assignments {
			if err := policy.Set(p, a); err != nil {
				t.Fatal(err)
			}
		}
		_, warnings, err := m.SetPolicy(ctx, ks, p, false, w.status)
		return warnings, err
	}
	if warnings, err := set("", 0, "failed_after=2m", "constraints=+zone=z1:1"); err != nil || len(warnings) > 0 {
		t.Errorf("%v, %v", warnings, err)
	}
	if _, err := set("", 0, "failed_after=3m"); true {
		refusedWith(t, err, base.RefusedChanged, "generation 1")
	}
	if _, err := set("shards", 0, "constraints=+zone=mars"); true {
		refusedWith(t, err, base.RefusedState, "zone=z1 (2 nodes), zone=z2 (1 node)")
	}
	if warnings, err := set("shards", 0, "constraints=~ssd"); err != nil || len(warnings) == 0 {
		t.Errorf("what no node has is preferred: %v, %v", warnings, err)
	}
	if warnings, err := set("shards", 1, "replicas=5"); err != nil || len(warnings) == 0 {
		t.Errorf("more replicas than nodes: %v, %v", warnings, err)
	}
	if _, err := set("x", 0, "replicas=3"); err == nil || !strings.Contains(err.Error(), "no keyspace x") {
		t.Error(err)
	}
	stored, effective, err := m.Policy(ctx, "shards")
	if err != nil || stored.Generation != 2 || effective.Placement.Replicas != 5 || len(effective.Placement.Constraints) != 1 {
		t.Errorf("%v, %v, %v", stored, effective, err)
	}
	if _, effective, err = m.Policy(ctx, ""); err != nil || effective.Cluster.FailedAfterMillis != 120_000 || effective.Cluster.MovesPerNode == 0 {
		t.Errorf("%v, %v", effective, err)
	}
}

// The records of operations that ended long ago are deleted as new ones come.
func TestPruned(t *testing.T) {
	w := newWorld(t, 5, three...)
	m, ctx := w.manager(t, false), t.Context()
	for i := range base.OperationsKept + 5 {
		op, _, err := m.Begin(ctx, &metapb.Operation{Kind: drain, Nodes: []uint64{5}}, false, w.status)
		if err != nil || op.OpId != uint64(i+1) {
			t.Fatalf("%v, %v", op, err)
		}
		if _, err := m.Change(ctx, op.OpId, clusterpb.OperationChange_OPERATION_CHANGE_CANCEL, false); err != nil {
			t.Fatal(err)
		}
	}
	ops, err := m.List(ctx, true)
	if err != nil || len(ops) > base.OperationsKept+1 || ops[len(ops)-1].OpId != base.OperationsKept+5 || operation.Active(ops[0]) {
		t.Errorf("%d operations, %v", len(ops), err)
	}
}

// A dry run says what would be done, as the real one would, and writes nothing.
func TestDryRun(t *testing.T) {
	w := newWorld(t, 5, three...)
	m, ctx := w.manager(t, false), t.Context()
	writes := 0
	w.writes = func() { writes++ }
	for _, asked := range []*metapb.Operation{{Kind: drain, Nodes: []uint64{3}}, {Kind: decommission, Nodes: []uint64{3}}, {Kind: relocate, RangeId: 100, Voters: []uint64{1, 2}}} {
		op, steps, err := m.Begin(ctx, asked, true, w.status)
		if err != nil || op.OpId != 0 || len(steps) == 0 {
			t.Errorf("%v, %v, %v", op, steps, err)
		}
	}
	if rec, err := m.ChangeNode(ctx, &clusterpb.ChangeNodeRequest{NodeId: 3, Change: clusterpb.NodeChange_NODE_CHANGE_CORDON, DryRun: true}, w.status); err != nil || !rec.Cordoned {
		t.Errorf("%v, %v", rec, err)
	}
	if p, _, err := m.SetPolicy(ctx, "", &metapb.PolicyRecord{Placement: &metapb.PlacementPolicy{Replicas: 5}}, true, w.status); err != nil || p.Generation != 1 {
		t.Errorf("%v, %v", p, err)
	}
	if writes != 0 {
		t.Errorf("%d writes", writes)
	}
	if _, _, err := m.Begin(ctx, &metapb.Operation{Kind: drain, Nodes: []uint64{3}}, false, w.status); err != nil {
		t.Fatal(err)
	}
	if op, err := m.Change(ctx, 1, clusterpb.OperationChange_OPERATION_CHANGE_CANCEL, true); err != nil || op.State != metapb.OperationState_OPERATION_STATE_CANCELLED {
		t.Errorf("%v, %v", op, err)
	}
	if again, _, err := m.Begin(ctx, &metapb.Operation{Kind: drain, Nodes: []uint64{3}}, true, w.status); err != nil || again.OpId != 1 || writes != 1 {
		t.Errorf("%v, %v, %d writes", again, err, writes)
	}
}

// A drain that somebody takes back by hand, on one of its nodes, goes on with the others.
func TestTakenBackByHand(t *testing.T) {
	w := newWorld(t, 5, three...)
	m, ctx := w.manager(t, false), t.Context()
	if _, _, err := m.Begin(ctx, &metapb.Operation{Kind: drain, Nodes: []uint64{3, 4}}, false, w.status); err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint64{3, 4} {
		rec, err := m.ChangeNode(ctx, &clusterpb.ChangeNodeRequest{NodeId: id, Change: clusterpb.NodeChange_NODE_CHANGE_UNCORDON}, w.status)
		op, opErr := m.Operation(ctx, 1)
		last := id == 4
		if err != nil || opErr != nil || rec.Draining || rec.Cordoned || operation.Active(op) == last || len(op.Nodes) != 1 {
			t.Errorf("n%d: %v, %v, %v, %v", id, rec, op, err, opErr)
		}
	}
}
