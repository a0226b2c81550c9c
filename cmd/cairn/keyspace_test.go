package main

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
)

// keyspaceNode answers the verbs for keyspaces and ranges, and remembers what it was asked.
type keyspaceNode struct {
	fakeNode
	asked []any
	says  []*clusterpb.CheckResponse
}

func sampleRanges() (left, right *metapb.RangeDescriptor) {
	voter, learner := metapb.ReplicaRole_REPLICA_ROLE_VOTER, metapb.ReplicaRole_REPLICA_ROLE_LEARNER
	left = &metapb.RangeDescriptor{RangeId: 100, KeyspaceId: 100, End: []byte("m\x00"), Generation: 2, NextReplicaId: 3,
		Replicas: []*metapb.Replica{{ReplicaId: 1, NodeId: 1, Role: voter}, {ReplicaId: 2, NodeId: 3, Role: learner}}}
	right = &metapb.RangeDescriptor{RangeId: 101, KeyspaceId: 100, Start: []byte("m\x00"), Generation: 2, NextReplicaId: 2,
		Replicas: []*metapb.Replica{{ReplicaId: 1, NodeId: 1, Role: voter}}}
	return left, right
}

func (f *keyspaceNode) CreateKeyspace(_ context.Context, req *clusterpb.CreateKeyspaceRequest) (*clusterpb.CreateKeyspaceResponse, error) {
	f.asked = append(f.asked, req)
	return &clusterpb.CreateKeyspaceResponse{Keyspace: &metapb.KeyspaceRecord{KeyspaceId: 100, Name: req.Name, Single: req.Single,
		State: metapb.KeyspaceState_KEYSPACE_STATE_ACTIVE}}, f.err
}

func (f *keyspaceNode) DropKeyspace(_ context.Context, req *clusterpb.DropKeyspaceRequest) (*clusterpb.DropKeyspaceResponse, error) {
	f.asked = append(f.asked, req)
	return &clusterpb.DropKeyspaceResponse{Ranges: 2}, f.err
}

func (f *keyspaceNode) ListKeyspaces(context.Context, *clusterpb.ListKeyspacesRequest) (*clusterpb.ListKeyspacesResponse, error) {
	return &clusterpb.ListKeyspacesResponse{Keyspaces: []*metapb.KeyspaceRecord{
		{KeyspaceId: 100, Name: "shards", State: metapb.KeyspaceState_KEYSPACE_STATE_DROPPING},
	}}, f.err
}

func (f *keyspaceNode) ListRanges(_ context.Context, req *clusterpb.ListRangesRequest) (*clusterpb.ListRangesResponse, error) {
	f.asked = append(f.asked, req)
	left, right := sampleRanges()
	return &clusterpb.ListRangesResponse{Ranges: []*clusterpb.IndexedRange{{Keyspace: "shards", Descriptor_: left}, {Keyspace: "shards", Descriptor_: right}}}, f.err
}

func (f *keyspaceNode) SplitRange(_ context.Context, req *clusterpb.SplitRangeRequest) (*clusterpb.SplitRangeResponse, error) {
	f.asked = append(f.asked, req)
	left, right := sampleRanges()
	if req.DryRun {
		right.RangeId = ^uint64(0)
	}
	return &clusterpb.SplitRangeResponse{Left: left, Right: right}, f.err
}

func (f *keyspaceNode) Check(req *clusterpb.CheckRequest, out grpc.ServerStreamingServer[clusterpb.CheckResponse]) error {
	f.asked = append(f.asked, req)
	for _, s := range f.says {
		if err := out.Send(s); err != nil {
			return err
		}
	}
	return f.err
}

func serveKeyspaceNode(t *testing.T, f *keyspaceNode) map[string]string {
	return map[string]string{hostVariable: serveFake(t, f, nil)}
}

func TestKeyspaceGolden(t *testing.T) {
	at := serveKeyspaceNode(t, &keyspaceNode{})
	var b strings.Builder
	for _, args := range []string{
		"keyspace create shards --sharded", "keyspace create config --single -o json",
		"keyspace ls", "keyspace ls -o json", "keyspace drop shards --yes-delete-all-of shards", "keyspace drop shards --yes-delete-all-of shards -o json",
		"range ls", "range ls --keyspace shards -o json", "range show r101", "range split --keyspace shards --key m", "range split --keyspace shards --key m --dry-run",
	} {
		out, errs, code := cairn(t, at, strings.Fields(args)...)
		if code != exitOK || errs != "" {
			t.Fatalf("%s: exit %d, %q", args, code, errs)
		}
		b.WriteString("$ cairn " + args + "\n" + out)
	}
	golden(t, "keyspace.txt", b.String())
}

func TestKeyspaceRefused(t *testing.T) {
	f := &keyspaceNode{}
	at := serveKeyspaceNode(t, f)
	for _, c := range []struct {
		args, says string
		code       int
	}{
		{"keyspace create shards", "single sharded", exitUsage},
		{"keyspace create shards --single --sharded", "single sharded", exitUsage},
		{"keyspace create", "accepts 1 arg", exitUsage},
		{"keyspace drop shards", "--yes-delete-all-of shards", exitUsage},
		{"keyspace drop shards --yes-delete-all-of shard", "--yes-delete-all-of shards", exitUsage},
		{"keyspace ls -o yaml", "give table or json", exitUsage},
		{"range split --keyspace shards", `"key" not set`, exitUsage},
		{"range show x", "not the id of a range", exitUsage},
		{"range show r7", "no range r7", exitFailed},
	} {
		out, errs, code := cairn(t, at, strings.Fields(c.args)...)
		if code != c.code || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit %d, %q, %q; want %d, %q", c.args, code, out, errs, c.code, c.says)
		}
	}
	for _, a := range f.asked {
		if _, list := a.(*clusterpb.ListRangesRequest); !list {
			t.Errorf("the node was asked %v", a)
		}
	}
}

func TestCheckGolden(t *testing.T) {
	finding := &clusterpb.CheckResponse{Body: &clusterpb.CheckResponse_Finding{Finding: &clusterpb.CheckFinding{
		Part: clusterpb.CheckPart_CHECK_PART_REPLICAS, Keyspace: "shards", RangeId: 101, NodeId: 2, What: "other data", Here: "n2: one", There: "n1: two", Next: "this"}}}
	unseen := &clusterpb.CheckResponse{Body: &clusterpb.CheckResponse_Unseen{Unseen: &clusterpb.CheckUnseen{NodeId: 3, Replicas: 4, Reason: "refused"}}}
	summary := &clusterpb.CheckResponse{Body: &clusterpb.CheckResponse_Summary{Summary: &clusterpb.CheckSummary{
		Keyspaces: 5, IndexEntries: 1, Ranges: 7, Replicas: 21, Versions: 42, Bytes: 20 << 20, Settled: 1, Micros: 1_234_000}}}
	for _, c := range []struct {
		file string
		says []*clusterpb.CheckResponse
		code int
	}{
		{"check_clean.txt", []*clusterpb.CheckResponse{summary}, exitOK},
		{"check_unseen.txt", []*clusterpb.CheckResponse{unseen, summary}, exitUnseen},
		{"check_wrong.txt", []*clusterpb.CheckResponse{finding, unseen, summary}, exitWrong},
	} {
		at := serveKeyspaceNode(t, &keyspaceNode{says: c.says})
		table, errs, code := cairn(t, at, "debug", "check")
		asJSON, _, jsonCode := cairn(t, at, "debug", "check", "-o", "json")
		if code != c.code || jsonCode != c.code {
			t.Errorf("%s: exit %d and %d, want %d", c.file, code, jsonCode, c.code)
		}
		golden(t, c.file, table+errs+asJSON)
	}
	f := &keyspaceNode{says: []*clusterpb.CheckResponse{finding}}
	at := serveKeyspaceNode(t, f)
	if out, errs, code := cairn(t, at, "debug", "check", "--keyspace", "shards", "--no-checksums"); code != exitFailed || out != "" || !strings.Contains(errs, "without a summary") {
		t.Errorf("broken off: exit %d, %q, %q", code, out, errs)
	}
	if req := f.asked[0].(*clusterpb.CheckRequest); req.Keyspace != "shards" || !req.NoChecksums {
		t.Errorf("it was asked %v", req)
	}
	f.says, f.err = nil, status.Error(codes.NotFound, "there is no keyspace x")
	if _, errs, code := cairn(t, at, "debug", "check"); code != exitFailed || !strings.Contains(errs, "no keyspace x") {
		t.Errorf("refused: exit %d, %q", code, errs)
	}
}
