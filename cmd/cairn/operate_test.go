package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/meta/desc/desctest"
	"github.com/cairndb/cairn/meta/policy"
)

// operateNode answers what operators ask, and remembers what it was asked.
type operateNode struct {
	fakeNode
	asked  []proto.Message
	watch  []*metapb.Operation // what a watch sends
	unsafe bool
	policy *metapb.PolicyRecord
}

const sampleTime = 1_700_000_000_000_000 // 2023-11-14T22:13:20Z

func sampleOperation(kind metapb.OperationKind, state metapb.OperationState) *metapb.Operation {
	return &metapb.Operation{OpId: 7, Generation: 3, Kind: kind, State: state, Nodes: []uint64{3, 4}, CreatedUnixMicros: sampleTime,
		ChangedUnixMicros: sampleTime + 61_000_000, Total: 40, Left: 10, BytesTotal: 4 << 30, BytesLeft: 1 << 30, EstimateMicros: 92_000_000}
}

const (
	opRunning   = metapb.OperationState_OPERATION_STATE_RUNNING
	opDone      = metapb.OperationState_OPERATION_STATE_DONE
	opCancelled = metapb.OperationState_OPERATION_STATE_CANCELLED
)

func (f *operateNode) StartOperation(_ context.Context, req *clusterpb.StartOperationRequest) (*clusterpb.StartOperationResponse, error) {
	f.asked = append(f.asked, req)
	op := proto.CloneOf(req.Operation)
	if op.OpId = 7; req.DryRun {
		op.OpId = 0
	}
	op.State, op.CreatedUnixMicros, op.ChangedUnixMicros = opRunning, sampleTime, sampleTime
	return &clusterpb.StartOperationResponse{Operation: op, Steps: []string{"first this", "then that"}}, f.err
}

func (f *operateNode) ListOperations(_ context.Context, req *clusterpb.ListOperationsRequest) (*clusterpb.ListOperationsResponse, error) {
	f.asked = append(f.asked, req)
	op := sampleOperation(metapb.OperationKind_OPERATION_KIND_DECOMMISSION, opRunning)
	hold := &metapb.Operation{OpId: 8, Kind: metapb.OperationKind_OPERATION_KIND_HOLD, State: opRunning, Nodes: []uint64{1}, UntilUnixMicros: sampleTime + 3_600_000_000, CreatedUnixMicros: sampleTime, ChangedUnixMicros: sampleTime}
	waits := sampleOperation(metapb.OperationKind_OPERATION_KIND_RELOCATE, opRunning)
	waits.OpId, waits.Nodes, waits.RangeId, waits.Voters, waits.Leader = 9, nil, 104, []uint64{1, 2, 5}, 5
	waits.Total, waits.Left, waits.BytesTotal, waits.EstimateMicros, waits.Waiting = 3, 3, 0, 0, "waiting because 3 replicas are left, of r104 first: n5 is full"
	if req.OpId != 0 {
		return &clusterpb.ListOperationsResponse{Operations: []*metapb.Operation{op}}, f.err
	}
	return &clusterpb.ListOperationsResponse{Operations: []*metapb.Operation{op, hold, waits}}, f.err
}

func (f *operateNode) ChangeOperation(_ context.Context, req *clusterpb.ChangeOperationRequest) (*clusterpb.ChangeOperationResponse, error) {
	f.asked = append(f.asked, req)
	op := sampleOperation(metapb.OperationKind_OPERATION_KIND_DRAIN, opCancelled)
	op.Outcome = "cancelled with 10 of 40 left"
	return &clusterpb.ChangeOperationResponse{Operation: op}, f.err
}

func (f *operateNode) WatchOperation(_ *clusterpb.WatchOperationRequest, out grpc.ServerStreamingServer[clusterpb.WatchOperationResponse]) error {
	if f.err != nil {
		return f.err
	}
	for _, op := range f.watch {
		if err := out.Send(&clusterpb.WatchOperationResponse{Operation: op}); err != nil {
			return err
		}
	}
	if last := f.watch[len(f.watch)-1]; last.State == opRunning {
		<-out.Context().Done()
	}
	return nil
}

func (f *operateNode) ChangeNode(_ context.Context, req *clusterpb.ChangeNodeRequest) (*clusterpb.ChangeNodeResponse, error) {
	f.asked = append(f.asked, req)
	if req.NodeId == 9 {
		return nil, status.Error(codes.NotFound, "there is no node n9: there are n1, n2, n3")
	}
	rec := &metapb.NodeRecord{NodeId: req.NodeId, State: metapb.NodeState_NODE_STATE_ACTIVE, Epoch: 2, Cordoned: req.Change == clusterpb.NodeChange_NODE_CHANGE_CORDON, Reason: "it announced itself"}
	return &clusterpb.ChangeNodeResponse{Record: rec}, f.err
}

func (f *operateNode) SafeToStop(_ context.Context, req *clusterpb.SafeToStopRequest) (*clusterpb.SafeToStopResponse, error) {
	f.asked = append(f.asked, req)
	if !f.unsafe {
		resp := &clusterpb.SafeToStopResponse{Safe: true, Ranges: 12}
		if req.HoldMicros > 0 {
			resp.HoldOpId = 8
		}
		return resp, f.err
	}
	return &clusterpb.SafeToStopResponse{Ranges: 12, Findings: []*clusterpb.StopFinding{
		{RangeId: 104, Keyspace: "shards", What: "it would have 1 of 3 voters", Next: "stop one at a time"}, {What: "no room", Next: "add a node"}}}, f.err
}

func (f *operateNode) GetPolicy(_ context.Context, req *clusterpb.GetPolicyRequest) (*clusterpb.GetPolicyResponse, error) {
	f.asked = append(f.asked, req)
	if req.Keyspace == "" {
		return &clusterpb.GetPolicyResponse{Stored: f.policy, Effective: policy.Cluster(f.policy)}, f.err
	}
	own := &metapb.PolicyRecord{KeyspaceId: 100}
	return &clusterpb.GetPolicyResponse{Stored: own, Effective: policy.Keyspace(100, own, f.policy)}, f.err
}

func (f *operateNode) SetPolicy(_ context.Context, req *clusterpb.SetPolicyRequest) (*clusterpb.SetPolicyResponse, error) {
	f.asked = append(f.asked, req)
	p := proto.CloneOf(req.Policy)
	p.Generation++
	resp := &clusterpb.SetPolicyResponse{Policy: p}
	if req.Keyspace != "" {
		resp.Warnings = []string{"no node is preferred"}
	}
	return resp, f.err
}

func (f *operateNode) TransferRange(_ context.Context, req *clusterpb.TransferRangeRequest) (*clusterpb.TransferRangeResponse, error) {
	f.asked = append(f.asked, req)
	return &clusterpb.TransferRangeResponse{FromNode: 1, ToNode: req.ToNode}, f.err
}

func (f *operateNode) ExplainRange(_ context.Context, req *clusterpb.ExplainRangeRequest) (*clusterpb.ExplainRangeResponse, error) {
	f.asked = append(f.asked, req)
	d, err := desctest.Parse("r104 ks100 [-∞, k) gen 5: 1@n1 2@n2 3@n3 next 4")
	if err != nil {
		return nil, err
	}
	return &clusterpb.ExplainRangeResponse{Decider: 2, Explanation: &metapb.Explanation{Range: d, Decision: "n3 → n5", Reason: "n3 has failed", Goal: "replace",
		UnderWay: "a learner is made on n5; waiting because it catches up", Advice: []string{"nothing", "or start n3 again"}, Candidates: []*metapb.Candidate{
			{NodeId: 4, Against: []string{"it is cordoned", "it is full"}, Score: 2}, {NodeId: 5, Allowed: true, InFavour: []string{"zone b is new"}, Score: 0.25},
			{NodeId: 1, Holds: true, Allowed: true, Score: 0.5}, {NodeId: 6, Allowed: true, Score: 0.125}}}}, f.err
}

func serveOperateNode(t *testing.T, f *operateNode) map[string]string {
	if f.policy == nil {
		f.policy = &metapb.PolicyRecord{Generation: 4, Cluster: &metapb.ClusterPolicy{FailedAfterMillis: 600_000}}
	}
	return map[string]string{hostVariable: serve(t, f)}
}

func TestOperateGolden(t *testing.T) {
	at := serveOperateNode(t, &operateNode{})
	var b strings.Builder
	for _, args := range []string{
		"node cordon n3", "node cordon n3 n4 -o json", "node uncordon 3 --dry-run", "node recommission n3", "node rm n3 --yes-it-is-dead n3", "node rm n3 --dry-run",
		"node drain n3", "node decommission n3 n4 --dry-run", "node decommission n3 -o json", "node safe-to-stop n1", "node safe-to-stop n1 --hold 1h", "node safe-to-stop n1 n2 --hold 1h -o json",
		"op ls", "op ls --all -o json", "op show 7", "op show op7 -o json", "op cancel 7", "op pause 7", "op resume 7 --dry-run",
		"policy show", "policy show --keyspace shards", "policy show --keyspace shards -o json", "policy set failed_after=5m balance=off", "policy set failed_after=10m",
		"policy set snapshot_rate=32MiB --dry-run", "policy set replicas=5 -o json",
		"range move --range r104 --to n1,n2,n5", "range move --range r104 --to n1,n2,n5 --leader n5 --dry-run", "range transfer --range r104 --to n2", "range transfer --range r104 --to n1",
		"range transfer --range r104 --to n2 --dry-run -o json", "range why r104", "range why r104 -o json",
	} {
		out, errs, code := cairn(t, at, strings.Fields(args)...)
		if code != exitOK || errs != "" {
			t.Fatalf("%s: exit %d, %q", args, code, errs)
		}
		b.WriteString("$ cairn " + args + "\n" + out)
	}
	golden(t, "operate.txt", b.String())
}

func TestOperateRefused(t *testing.T) {
	f := &operateNode{}
	at := serveOperateNode(t, f)
	for _, c := range []struct {
		args, says string
		code       int
	}{
		{"node drain", "requires at least 1 arg", exitUsage},
		{"node drain x n3 y", "2 things are wrong", exitUsage},
		{"node drain n3 3", "named twice", exitUsage},
		{"node rm n3", "--yes-it-is-dead n3", exitUsage},
		{"node rm n3 --yes-it-is-dead n4", "--yes-it-is-dead n3", exitUsage},
		{"node safe-to-stop n3 --hold -1h", "not a time to come", exitUsage},
		{"range move --range x --to y --leader z", "3 things are wrong", exitUsage},
		{"range move --range r1", `"to" not set`, exitUsage},
		{"range transfer --range r1 --to r2", "not the id of a node", exitUsage},
		{"range why n1", "not the id of a range", exitUsage},
		{"op show x", "not the id of an operation", exitUsage},
		{"op cancel 0", "not the id of an operation", exitUsage},
	} {
		out, errs, code := cairn(t, at, strings.Fields(c.args)...)
		if code != c.code || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit %d, %q, %q; want %d, %q", c.args, code, out, errs, c.code, c.says)
		}
	}
	if len(f.asked) != 0 {
		t.Errorf("the node was asked %v", f.asked)
	}
	if out, errs, code := cairn(t, at, "policy", "set", "moves=0", "x=1"); code != exitUsage || out != "" || !strings.Contains(errs, "2 things") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	// Of several nodes those before the refused one are changed, and shown.
	if out, errs, code := cairn(t, at, "node", "cordon", "n3", "n9"); code != exitFailed || !strings.Contains(out, "n3") || !strings.Contains(errs, "there are n1, n2, n3") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if out, errs, code := cairn(t, at, "policy", "set", "--keyspace", "shards", "constraints=~ssd"); code != exitOK || errs != "warning: no node is preferred\n" || out != "constraints: ~ssd, was default\n" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	f.unsafe = true
	if out, errs, code := cairn(t, at, "node", "safe-to-stop", "n1", "n2"); code != exitUnsafe || errs != "cairn: n1,n2 cannot be stopped now\n" ||
		out != "r104 of shards: it would have 1 of 3 voters\n  do: stop one at a time\nno room\n  do: add a node\nlooked at 12 ranges\n" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	f.err = status.Error(codes.FailedPrecondition, "operation 7 goes on")
	if out, errs, code := cairn(t, at, "node", "drain", "n3", "--wait"); code != exitFailed || out != "" || errs != "cairn: node drain: operation 7 goes on\n" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

// What is waited for is shown line by line where there is no terminal, and how it ended is the exit code.
func TestWait(t *testing.T) {
	kind := metapb.OperationKind_OPERATION_KIND_DECOMMISSION
	going, ended, stopped := sampleOperation(kind, opRunning), sampleOperation(kind, opDone), sampleOperation(kind, opCancelled)
	going.Waiting = "waiting because n5 is full"
	ended.Left, ended.EstimateMicros, ended.Outcome = 0, 0, "n3, n4 held nothing"
	stopped.Outcome = "cancelled with 10 of 40 left"
	lines := "operation 7: 30 of 40, 1024 MiB left, about 1m32s  waiting because n5 is full\n"
	for _, c := range []struct {
		args  string
		watch []*metapb.Operation
		out   string
		errs  string
		code  int
	}{
		{"op watch 7", []*metapb.Operation{going, going, ended}, "n3, n4 held nothing", lines + "operation 7: 40 of 40, 1024 MiB left\n", exitOK},
		{"node decommission n3 n4 --wait", []*metapb.Operation{ended}, "done", "operation 7: 40 of 40, 1024 MiB left\n", exitOK},
		{"op watch 7", []*metapb.Operation{going, stopped}, "cancelled", lines + "operation 7: 30 of 40, 1024 MiB left, about 1m32s\ncairn: operation 7 was not done: cancelled: cancelled with 10 of 40 left\n", exitNotDone},
		{"op watch 7 --timeout 300ms", []*metapb.Operation{going}, "", lines + "cairn: operation 7 goes on; it is no longer watched (context deadline exceeded): see cairn op show 7\n", exitGoesOn},
	} {
		at := serveOperateNode(t, &operateNode{watch: c.watch})
		out, errs, code := cairn(t, at, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, c.out) || errs != c.errs {
			t.Errorf("%s: exit %d, %q, %q; want %d, %q, %q", c.args, code, out, errs, c.code, c.out, c.errs)
		}
	}
	at := serveOperateNode(t, &operateNode{fakeNode: fakeNode{err: status.Error(codes.NotFound, "there is no operation 7")}})
	if _, errs, code := cairn(t, at, "op", "watch", "7"); code != exitFailed || !strings.Contains(errs, "there is no operation 7") {
		t.Errorf("exit %d, %q", code, errs)
	}
}

func TestProgressBar(t *testing.T) {
	var b strings.Builder
	p := &progress{w: &b, bar: true}
	op := sampleOperation(metapb.OperationKind_OPERATION_KIND_DRAIN, opRunning)
	p.show(op)
	p.show(op) // nothing is new
	op.Left, op.BytesLeft = 0, 0
	p.show(op)
	p.end()
	want := "\r\x1b[K[" + strings.Repeat("#", 22) + strings.Repeat(" ", 8) + "] 30 of 40, 1024 MiB left, about 1m32s\r\x1b[K[" + strings.Repeat("#", 30) + "] 40 of 40, about 1m32s\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestCompletesIDs(t *testing.T) {
	f := &operateNode{fakeNode: fakeNode{status: sampleStatus()}}
	at := serveOperateNode(t, f)
	for args, want := range map[string][]string{"node drain": {"n1", "n2", "n3", "n4"}, "node drain n1": {"n2", "n3", "n4"}, "op cancel": {"7", "8", "9"}} {
		out, _, code := cairn(t, at, append([]string{"__complete"}, append(strings.Fields(args), "")...)...)
		lines := strings.Split(out, "\n")
		if code != exitOK || !slices.Equal(lines[:len(want)], want) || len(lines) != len(want)+2 {
			t.Errorf("%s is completed to %q, want %q", args, out, want)
		}
	}
	if out, _, code := cairn(t, map[string]string{hostVariable: "127.0.0.1:1"}, "__complete", "node", "drain", ""); code != exitOK || strings.Contains(out, "n1") {
		t.Errorf("without a node: exit %d, %q", code, out)
	}
}
