package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairndb/cairn/allocator/simulate"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
)

func scenarioFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scenario.txt")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const simCluster = "nodes 4 zone=a,b,c,d\nkeyspace k ranges=20\nat 1m add 1 node zone=a\n"

// The exit code says whether it was understood, and whether it was as expected.
func TestSimExitCodes(t *testing.T) {
	good := scenarioFile(t, simCluster+"expect violations = 0")
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{good, exitOK, ""},
		{good + " -o xml", exitUsage, "-o xml is not known"},
		{scenarioFile(t, simCluster+"expect moves = 0"), exitFailed, "1 of 1 expectations are not met"},
		{scenarioFile(t, "nodes many\nkeyspace"), exitUsage, "line 2: a keyspace needs a name"},
		{scenarioFile(t, "nodes 3"), exitFailed, "there are no ranges"},
		{filepath.Join(t.TempDir(), "none"), exitUsage, "no such file"},
		{"", exitUsage, "which scenario?"},
		{"--example nothing", exitUsage, "give one of add-a-node"},
		{"--example pause --examples", exitUsage, "none of the others can be"},
	} {
		_, errs, code := cairn(t, nil, append([]string{"sim"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(errs, c.says) || c.says == "" && errs != "" {
			t.Errorf("%s: exit %d, %q", c.args, code, errs)
		}
	}
}

// What is built in can be listed, printed, and run as it is printed; the result is a table, JSON and a picture.
func TestSimExamples(t *testing.T) {
	out, _, code := cairn(t, nil, "sim", "--examples")
	if names := strings.Fields(out); code != exitOK || len(names) != len(simulate.Examples()) {
		t.Fatalf("exit %d, %q", code, out)
	}
	text, _, _ := cairn(t, nil, "sim", "--example", "pause")
	path, picture := scenarioFile(t, text), filepath.Join(t.TempDir(), "pause.svg")
	table, errs, code := cairn(t, nil, "sim", path, "--svg", picture)
	if code != exitOK || !strings.Contains(table, "recover n4") {
		t.Errorf("exit %d, %q, %q", code, table, errs)
	}
	if svg, err := os.ReadFile(picture); err != nil || !strings.HasPrefix(string(svg), "<svg ") {
		t.Errorf("%v, %.40q", err, svg)
	}
	seeds := map[string]bool{}
	for _, seed := range []string{"5", "5", "6"} {
		out, errs, code = cairn(t, nil, "sim", path, "-o", "json", "--seed", seed)
		var r simulate.Result
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitOK || fmt.Sprint(r.Seed) != seed || len(r.Samples) == 0 {
			t.Fatalf("%v, exit %d, %q", err, code, errs)
		}
		seeds[out] = true
	}
	if len(seeds) != 2 {
		t.Errorf("three runs with two seeds give %d results", len(seeds))
	}
}

// simNode is a cluster of five nodes in three zones with forty ranges, as nodes of before this version tell it.
type simNode struct {
	clusterpb.UnimplementedClusterServer
}

func simRecord(id uint64) *metapb.NodeRecord {
	return &metapb.NodeRecord{NodeId: id, State: metapb.NodeState_NODE_STATE_ACTIVE,
		Locality: []*metapb.LocalityTier{{Key: "zone", Value: string("abc"[id%3])}}}
}

func (simNode) Status(context.Context, *clusterpb.StatusRequest) (*clusterpb.StatusResponse, error) {
	resp := &clusterpb.StatusResponse{}
	for id := range uint64(5) {
		resp.Nodes = append(resp.Nodes, &clusterpb.NodeEntry{Node: simRecord(id + 1), Reachable: true})
	}
	for _, r := range simRanges() {
		resp.Ranges = append(resp.Ranges, &clusterpb.RangeEntry{Descriptor_: r, Keyspace: "shards", LeaderNode: r.Replicas[0].NodeId, Rate: 10})
	}
	return resp, nil
}

func (simNode) ListRanges(context.Context, *clusterpb.ListRangesRequest) (*clusterpb.ListRangesResponse, error) {
	resp := &clusterpb.ListRangesResponse{}
	for _, r := range simRanges() {
		resp.Ranges = append(resp.Ranges, &clusterpb.IndexedRange{Descriptor_: r, Keyspace: "shards"})
	}
	return resp, nil
}

func simRanges() (out []*metapb.RangeDescriptor) {
	for i := range uint64(40) {
		d := &metapb.RangeDescriptor{RangeId: 100 + i, KeyspaceId: 100, Generation: 3}
		for k := range uint64(3) {
			d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: k + 1, NodeId: (i+k)%5 + 1, Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
		}
		out = append(out, d)
	}
	return out
}

// simNewNode tells of loads and policies, too.
type simNewNode struct{ simNode }

func (simNewNode) ListNodes(context.Context, *clusterpb.ListNodesRequest) (*clusterpb.ListNodesResponse, error) {
	resp := &clusterpb.ListNodesResponse{}
	for id := range uint64(5) {
		resp.Nodes = append(resp.Nodes, &clusterpb.NodeInfo{Record: simRecord(id + 1),
			Health: &metapb.NodeHealth{Load: &metapb.NodeLoad{Replicas: 24, Bytes: 24 << 20}}})
	}
	return resp, nil
}

func (simNewNode) GetPolicy(_ context.Context, req *clusterpb.GetPolicyRequest) (*clusterpb.GetPolicyResponse, error) {
	p := &metapb.PolicyRecord{Cluster: &metapb.ClusterPolicy{FailedAfterMillis: 60_000}}
	if req.Keyspace == "shards" {
		p = &metapb.PolicyRecord{KeyspaceId: 100, Placement: &metapb.PlacementPolicy{Constraints: []*metapb.Constraint{
			{Kind: metapb.ConstraintKind_CONSTRAINT_KIND_FORBIDDEN, Key: "zone", Value: "x"}}}}
	}
	return &clusterpb.GetPolicyResponse{Stored: p}, nil
}

// A live cluster is what the scenario begins with. What it has set is held to; what it does not tell is a default.
func TestSimFromCluster(t *testing.T) {
	events := scenarioFile(t, "policy failed-share=1 moves-per-node=8\nat 1m fail n5\nat 3m expect replicas n5 = 0\nexpect violations = 0\n"+
		"at 9m keyspace shards replicas=1")
	older, newer := serve(t, simNode{}), serve(t, simNewNode{})
	out, errs, code := cairn(t, nil, "sim", "--from-cluster", "--host", newer, events)
	if code != exitOK || !strings.Contains(out, "5 nodes, 40 ranges") || !strings.Contains(out, "as expected: at 3m: replicas n5 = 0: 0") {
		t.Errorf("failed after a minute, as the cluster's policy says: exit %d, %q, %s", code, errs, out)
	}
	out, errs, code = cairn(t, nil, "sim", "--from-cluster", "--host", older, events)
	if code != exitFailed || !strings.Contains(out, "NOT AS EXPECTED: at 3m: replicas n5 = 0: 20") {
		t.Errorf("without a policy it takes five minutes: exit %d, %q, %s", code, errs, out)
	}
	if out, errs, code = cairn(t, nil, "sim", "--from-cluster", "--host", older); code != exitOK || !strings.Contains(out, "the cluster as it is") {
		t.Errorf("without events: exit %d, %q, %s", code, errs, out)
	}
	for text, says := range map[string]string{
		"nodes 3\nkeyspace k": "nodes and keyspaces are the live cluster's",
		"at 1m fail n9":       "no such node",
	} {
		if _, errs, code = cairn(t, nil, "sim", "--from-cluster", "--host", older, scenarioFile(t, text)); code == exitOK || !strings.Contains(errs, says) {
			t.Errorf("%s: exit %d, %q", text, code, errs)
		}
	}
}
