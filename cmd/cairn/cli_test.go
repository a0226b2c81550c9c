package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/node/join"
)

var update = flag.Bool("update", false, "write the golden files")

// cairn runs a command line, and returns what it printed and its exit code.
func cairn(t *testing.T, environment map[string]string, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), env{out: &o, err: &e, getenv: func(k string) string { return environment[k] }}, args)
	return o.String(), e.String(), code
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args string
		says []string
	}{
		{"bogus", []string{`unknown command "bogus"`}},
		{"start extra", []string{"unknown command"}},
		{"start --nope", []string{"unknown flag: --nope", "cairn start --help"}},
		{"start --bootstrap-expect x", []string{"invalid argument"}},
		{"start", []string{"--store DIR"}},
		{"start --listen x --advertise 0.0.0.0:1 --locality a,b=c,b=d --log-level loud --log-format xml --pprof y --join z",
			[]string{"9 things", "--log-level", "--log-format", `"a" is not KEY=VALUE`, `"b" is given twice`, "--store DIR",
				"--listen HOST:PORT", "--advertise HOST:PORT", "--pprof", "--join"}},
		{"start --store d --bootstrap-expect 3", []string{"--join names 0 nodes"}},
		{"start --store d --listen :7400", []string{"--advertise"}},
		{"status -o yaml", []string{"give table or json"}},
		{"status --host x", []string{"--host", "HOST:PORT"}},
		{"init --host :1", []string{"--host", "HOST:PORT"}},
		{"demo --nodes 0", []string{"give 1 to 9"}},
		{"version extra", []string{"unknown command"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			out, errs, code := cairn(t, nil, strings.Fields(c.args)...)
			if code != exitUsage || out != "" || !strings.HasPrefix(errs, "cairn: ") {
				t.Errorf("exit %d, out %q, err %q", code, out, errs)
			}
			for _, s := range c.says {
				if !strings.Contains(errs, s) {
					t.Errorf("%q does not say %q", errs, s)
				}
			}
		})
	}
}

func TestHelpHasExamples(t *testing.T) {
	for _, args := range []string{"--help", "start --help", "init --help", "status --help", "demo --help", "version --help", "keyspace create --help", "keyspace ls --help",
		"keyspace drop --help", "range ls --help", "range show --help", "range split --help", "debug check --help",
		"debug support --help", "node ls --help", "node matrix --help"} {
		out, errs, code := cairn(t, nil, strings.Fields(args)...)
		if code != exitOK || errs != "" || !strings.Contains(out, "Examples:") || strings.Contains(out, "pprof") {
			t.Errorf("%s: exit %d, err %q, out %q", args, code, errs, out)
		}
	}
}

func TestVersion(t *testing.T) {
	if out, _, code := cairn(t, nil, "version"); code != exitOK || !strings.HasPrefix(out, "cairn "+version) {
		t.Errorf("exit %d: %q", code, out)
	}
}

func TestCompletion(t *testing.T) {
	if out, _, code := cairn(t, nil, "completion", "bash"); code != exitOK || !strings.Contains(out, "cairn") {
		t.Errorf("exit %d: %q", code, out)
	}
}

func TestLocality(t *testing.T) {
	tiers, err := parseLocality("region=eu,zone=a")
	if err != nil || localityString(tiers) != "region=eu,zone=a" || len(tiers) != 2 {
		t.Errorf("%v, %v", tiers, err)
	}
	for _, bad := range []string{"region", "=eu", "region=", "region=eu,", "re gion=eu", "region=eu,region=us"} {
		if tiers, err := parseLocality(bad); err == nil {
			t.Errorf("%q became %v", bad, tiers)
		}
	}
}

// fakeNode answers as a node would.
type fakeNode struct {
	clusterpb.UnimplementedClusterServer
	status  *clusterpb.StatusResponse
	err     error
	onInit  func()
	askedBy *clusterpb.StatusRequest
}

func (f *fakeNode) Status(_ context.Context, req *clusterpb.StatusRequest) (*clusterpb.StatusResponse, error) {
	f.askedBy = req
	return f.status, f.err
}

func (f *fakeNode) Init(context.Context, *clusterpb.InitRequest) (*clusterpb.InitResponse, error) {
	if f.onInit != nil {
		f.onInit()
	}
	return &clusterpb.InitResponse{ClusterId: 0xc1, NodeId: 1}, f.err
}

func serveFake(t *testing.T, f clusterpb.ClusterServer, h *health.Server) (address string) {
	t.Helper()
	if h == nil {
		return serve(t, f)
	}
	return serve(t, f, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, h) })
}

func serve(t *testing.T, f clusterpb.ClusterServer, more ...func(*grpc.Server)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	clusterpb.RegisterClusterServer(s, f)
	for _, register := range more {
		register(s)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // before it began
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func sampleStatus() *clusterpb.StatusResponse {
	voter, learner := metapb.ReplicaRole_REPLICA_ROLE_VOTER, metapb.ReplicaRole_REPLICA_ROLE_LEARNER
	record := func(id uint64, state metapb.NodeState) *metapb.NodeRecord {
		return &metapb.NodeRecord{NodeId: id, Address: "10.0.0." + string(rune('0'+id)) + ":7400", Version: "0.1.0", State: state}
	}
	first := record(1, metapb.NodeState_NODE_STATE_ACTIVE)
	first.Locality = []*metapb.LocalityTier{{Key: "region", Value: "eu"}, {Key: "zone", Value: "a"}}
	return &clusterpb.StatusResponse{
		ClusterId: 0xc1,
		Nodes: []*clusterpb.NodeEntry{
			{Node: first, Reachable: true, Supports: []*clusterpb.SupportEntry{
				{Node: 2, LeftMicros: 243_100, Promised: true}, {Node: 3, LeftMicros: -7, Promised: false},
			}},
			{Node: record(2, metapb.NodeState_NODE_STATE_JOINING), Reachable: true, Supports: []*clusterpb.SupportEntry{
				{Node: 1, LeftMicros: 251_400, Promised: true}, {Node: 3, LeftMicros: -7, Promised: true},
			}},
			{Node: record(3, metapb.NodeState_NODE_STATE_ACTIVE), Error: "refused"},
			{Node: record(4, metapb.NodeState_NODE_STATE_REPLACED), Error: "gone"},
		},
		Ranges: []*clusterpb.RangeEntry{
			{
				Descriptor_: &metapb.RangeDescriptor{RangeId: 4, KeyspaceId: 4, Generation: 7}, Keyspace: "default",
				LeaderNode: 1, LeaderReplica: 1, Term: 9, Lease: &clusterpb.Lease{LeftMicros: 243_100, Supporters: []uint64{2}, Resting: true}, Rate: 1234.56,
				Replicas: []*clusterpb.ReplicaEntry{
					{Node: 1, Replica: 1, Role: voter, Match: 120, Applied: 119, Reachable: true},
					{Node: 2, Replica: 2, Role: learner, Match: 118, Applied: 100, Reachable: true},
					{Node: 3, Replica: 5, Role: voter, Match: 90},
				},
			},
			{
				Descriptor_: &metapb.RangeDescriptor{RangeId: 12, KeyspaceId: 9, Generation: 1, Start: []byte("a\x00<"), End: []byte("\xff")},
				Keyspace:    "ks9", Term: 3,
			},
		},
	}
}

func TestStatusGolden(t *testing.T) {
	f := &fakeNode{status: sampleStatus()}
	address := serveFake(t, f, nil)
	for _, c := range []struct{ args, file string }{
		{"status --ranges -o json", "status.json"},
		{"status --ranges", "status.txt"},
		{"debug support -o json", "support.json"},
		{"debug support", "support.txt"},
	} {
		out, errs, code := cairn(t, map[string]string{hostVariable: address}, strings.Fields(c.args)...)
		if code != exitOK || errs != "" {
			t.Fatalf("%s: exit %d, %q", c.args, code, errs)
		}
		golden(t, c.file, out)
		if f.askedBy.Ranges != strings.Contains(c.args, "--ranges") {
			t.Errorf("%s asked for the ranges: %v", c.args, f.askedBy.Ranges)
		}
	}
	f.status.Nodes, f.status.Ranges = nil, nil
	if out, _, _ := cairn(t, nil, "status", "-o", "json", "--host", address); out != "{\n  \"nodes\": [],\n  \"ranges\": []\n}\n" {
		t.Errorf("nothing is printed as %q", out)
	}
	if f.askedBy.Ranges {
		t.Error("status without --ranges asked for them")
	}
}

func TestNodeErrorsAreExplained(t *testing.T) {
	f := &fakeNode{}
	address := serveFake(t, f, nil)
	for _, c := range []struct {
		err  error
		says string
	}{
		{status.Error(codes.Unavailable, join.ErrNotInitialised.Error()), "run cairn init --host " + address},
		{status.Error(codes.Unavailable, "etcdserver: no leader"), "cannot do that now: etcdserver: no leader"},
		{status.Error(codes.DeadlineExceeded, "x"), "in time"},
		{status.Error(codes.Unimplemented, "x"), "not a Cairn node"},
		{status.Error(codes.FailedPrecondition, "the reason: the way out"), "status: the reason: the way out"},
	} {
		f.err = c.err
		out, errs, code := cairn(t, nil, "status", "--host", address)
		if code != exitFailed || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("%v: exit %d, %q, want %q", c.err, code, errs, c.says)
		}
	}
}

func TestSilenceIsExplained(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // one that hangs up
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	for _, what := range []string{"hangs up", "is not there"} {
		_, errs, code := cairn(t, nil, "status", "--host", l.Addr().String())
		if code != exitFailed || !strings.Contains(errs, "does not answer") || !strings.Contains(errs, "check that it runs") {
			t.Errorf("of a node that %s: exit %d, %q", what, code, errs)
		}
		_ = l.Close()
	}
}

func TestInitWaitsUntilTheNodeServes(t *testing.T) {
	h := health.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	inited := make(chan struct{})
	address := serveFake(t, &fakeNode{onInit: func() { close(inited) }}, h)
	go func() {
		<-inited
		h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	}()
	out, errs, code := cairn(t, nil, "init", "--host", address)
	if code != exitOK || errs != "" || out != "cluster c1 is made; node 1 at "+address+" is its first member\n" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

func TestInitRefused(t *testing.T) {
	address := serveFake(t, &fakeNode{err: status.Error(codes.FailedPrecondition, "it is n1 of cluster c1")}, nil)
	if _, errs, code := cairn(t, nil, "init", "--host", address); code != exitFailed || errs != "cairn: init: it is n1 of cluster c1\n" {
		t.Errorf("exit %d, %q", code, errs)
	}
}
