package jepsen

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/askpb"
	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// fakeCluster answers the cluster's own service as a test says.
type fakeCluster struct {
	clusterpb.UnimplementedClusterServer
	etcdserverpb.UnimplementedKVServer
	started  error
	states   []metapb.OperationState // that a watcher is told, one after the other
	records  []*metapb.NodeRecord
	ranges   []*clusterpb.IndexedRange
	running  []*metapb.Operation
	finding  *clusterpb.CheckFinding
	starts   uint64 // of the process, as it says
	restarts bool   // with every question who it is
	read     error
}

func (f *fakeCluster) StartOperation(context.Context, *clusterpb.StartOperationRequest) (*clusterpb.StartOperationResponse, error) {
	return &clusterpb.StartOperationResponse{Operation: &metapb.Operation{OpId: 7}}, f.started
}

func (f *fakeCluster) WatchOperation(_ *clusterpb.WatchOperationRequest, out grpc.ServerStreamingServer[clusterpb.WatchOperationResponse]) error {
	for _, s := range f.states {
		if err := out.Send(&clusterpb.WatchOperationResponse{Operation: &metapb.Operation{OpId: 7, State: s, Waiting: "for rain"}}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeCluster) ListNodes(context.Context, *clusterpb.ListNodesRequest) (*clusterpb.ListNodesResponse, error) {
	resp := &clusterpb.ListNodesResponse{}
	for _, r := range f.records {
		resp.Nodes = append(resp.Nodes, &clusterpb.NodeInfo{Record: r})
	}
	return resp, nil
}

func (f *fakeCluster) ListRanges(context.Context, *clusterpb.ListRangesRequest) (*clusterpb.ListRangesResponse, error) {
	return &clusterpb.ListRangesResponse{Ranges: f.ranges}, nil
}

func (f *fakeCluster) ListOperations(context.Context, *clusterpb.ListOperationsRequest) (*clusterpb.ListOperationsResponse, error) {
	return &clusterpb.ListOperationsResponse{Operations: f.running}, nil
}

func (f *fakeCluster) Check(_ *clusterpb.CheckRequest, out grpc.ServerStreamingServer[clusterpb.CheckResponse]) error {
	if f.finding != nil {
		return out.Send(&clusterpb.CheckResponse{Body: &clusterpb.CheckResponse_Finding{Finding: f.finding}})
	}
	return out.Send(&clusterpb.CheckResponse{Body: &clusterpb.CheckResponse_Summary{Summary: &clusterpb.CheckSummary{Ranges: 1}}})
}

func (f *fakeCluster) Identity(context.Context, *clusterpb.IdentityRequest) (*clusterpb.IdentityResponse, error) {
	if f.restarts {
		f.starts++
	}
	return &clusterpb.IdentityResponse{NodeId: 3, Incarnation: f.starts}, nil
}

func (f *fakeCluster) Range(ctx context.Context, _ *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	if hint := metadata.ValueFromIncomingContext(ctx, base.RouteHeader); len(hint) != 1 || hint[0] != "9.4" {
		return nil, status.Errorf(codes.Internal, "the hint is %v", hint)
	}
	return &etcdserverpb.RangeResponse{}, f.read
}

// newFakeCluster is a cluster of one such node, and a second that is not there.
func newFakeCluster(t *testing.T, f *fakeCluster) *Cluster {
	t.Helper()
	var addresses []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, l.Addr().String())
		if len(addresses) == 1 {
			if err := l.Close(); err != nil { // the one that is not there is asked first
				t.Fatal(err)
			}
			continue
		}
		server := grpc.NewServer()
		clusterpb.RegisterClusterServer(server, f)
		etcdserverpb.RegisterKVServer(server, f)
		go func() { _ = server.Serve(l) }() // it ends with the server
		t.Cleanup(server.Stop)
	}
	return &Cluster{Nodes: []*Node{{Name: "node1", ClientAddr: addresses[0]}, {Name: "node2", Index: 1, ClientAddr: addresses[1]}}, logger: slog.New(slog.DiscardHandler)}
}

const (
	opRunning = metapb.OperationState_OPERATION_STATE_RUNNING
	opDone    = metapb.OperationState_OPERATION_STATE_DONE
	opFailed  = metapb.OperationState_OPERATION_STATE_FAILED
)

// An operation that is done, one that fails, one that goes on for too long, and one that is refused: the last is no failure, but it
// fails the run if it is all that ever came of a nemesis.
func TestCarryOut(t *testing.T) {
	for _, c := range []struct {
		name    string
		fake    *fakeCluster
		says    string
		refused bool
	}{
		{"done", &fakeCluster{states: []metapb.OperationState{opRunning, opDone}}, "", false},
		{"failed", &fakeCluster{states: []metapb.OperationState{opRunning, opFailed}}, "ended badly", false},
		{"goes on", &fakeCluster{states: []metapb.OperationState{opRunning}}, "for rain", false},
		{"refused", &fakeCluster{started: status.Error(codes.FailedPrecondition, "r4 would lose its quorum")}, "r4 would lose its quorum", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := newFakeCluster(t, c.fake)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := cl.carryOut(ctx, &metapb.Operation{})
			var no *declined
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) || errors.As(err, &no) != c.refused {
				t.Fatalf("%v, want %q", err, c.says)
			}
			what, failed := cl.did("rain", err)
			if (what != "") != c.refused || (failed != nil) != (err != nil && !c.refused) {
				t.Errorf("it says %q, %v", what, failed)
			}
			r := &run{cluster: cl, report: &Report{}}
			if r.acted(); (len(r.report.Failures) > 0) != c.refused {
				t.Errorf("failures: %v", r.report.Failures)
			}
		})
	}
}

// What is not well in the end is said.
func TestWellEnd(t *testing.T) {
	well := func(c *Cluster, f *fakeCluster) {
		f.records, f.ranges = nil, nil
		d := &metapb.RangeDescriptor{RangeId: 5}
		for i, n := range c.Nodes {
			f.records = append(f.records, &metapb.NodeRecord{NodeId: uint64(i + 1), Address: n.ClientAddr, State: metapb.NodeState_NODE_STATE_ACTIVE})
			d.Replicas = append(d.Replicas, &metapb.Replica{ReplicaId: uint64(i + 1), NodeId: uint64(i + 1), Role: metapb.ReplicaRole_REPLICA_ROLE_VOTER})
		}
		f.ranges = []*clusterpb.IndexedRange{{Keyspace: "default", Descriptor_: d}}
		f.running = []*metapb.Operation{{OpId: 3, State: opRunning, Waiting: "waiting because the disk of n4 is full"}}
	}
	for _, c := range []struct {
		property, says string
		spoil          func(*fakeCluster)
	}{
		{"", "", func(*fakeCluster) {}},
		{"all are well", "SUSPECT", func(f *fakeCluster) { f.records[1].State = metapb.NodeState_NODE_STATE_SUSPECT }},
		{"all are well", "cordoned true", func(f *fakeCluster) { f.records[0].Cordoned = true }},
		{"replicas are on nodes that are well", "on n9", func(f *fakeCluster) { f.ranges[0].Descriptor_.Replicas[0].NodeId = 9 }},
		{"replicas are on nodes that are well", "1 replicas", func(f *fakeCluster) { f.ranges[0].Descriptor_.Replicas = f.ranges[0].Descriptor_.Replicas[1:] }},
		{"nothing hangs", "operation 3", func(f *fakeCluster) { f.running[0].Waiting = "" }},
		{"cairn debug check", "two are not the same", func(f *fakeCluster) { f.finding = &clusterpb.CheckFinding{What: "two are not the same"} }},
	} {
		t.Run(c.says, func(t *testing.T) {
			t.Parallel()
			f := &fakeCluster{}
			cl := newFakeCluster(t, f)
			well(cl, f)
			c.spoil(f)
			r := &run{Options: Options{Limits: Limits{Recovery: 3 * time.Second}}, cluster: cl, report: &Report{}}
			r.wellEnd(t.Context())
			found := false
			for _, x := range r.report.Failures {
				found = found || x.Checker == c.property && strings.Contains(x.What, c.says)
			}
			if found != (c.property != "") || c.property == "" && len(r.report.Failures) > 0 {
				t.Errorf("failures: %+v, want %q of %q", r.report.Failures, c.says, c.property)
			}
		})
	}
}

// What a process says in words of its own is an answer; what the network makes of it is none.
func TestAskNode(t *testing.T) {
	fenced, err := status.New(codes.Unavailable, "n3 was removed").WithDetails(&clusterpb.Failure{Kind: clusterpb.FailureKind_FAILURE_KIND_NOT_DONE, Fenced: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		fake *fakeCluster
		want *askpb.AskResponse // nil: it fails
	}{
		{"served", &fakeCluster{starts: 5}, &askpb.AskResponse{NodeId: 3, Incarnation: 5, Served: true}},
		{"fenced", &fakeCluster{starts: 5, read: fenced.Err()}, &askpb.AskResponse{NodeId: 3, Incarnation: 5, Fenced: true, Refusal: "n3 was removed"}},
		{"broken", &fakeCluster{starts: 5, read: status.Error(codes.Unavailable, "connection reset")}, nil},
		{"another process", &fakeCluster{restarts: true}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := newFakeCluster(t, c.fake)
			got, err := askNode(t.Context(), &askpb.AskRequest{Address: cl.Nodes[1].ClientAddr, Keyspace: "k", Key: []byte("a"), RangeId: 9, Generation: 4})
			if (err == nil) != (c.want != nil) || c.want.String() != got.String() && c.want != nil {
				t.Errorf("%v, %v, want %v", got, err, c.want)
			}
		})
	}
}
