package serve

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/cairndb/cairn/api/clusterpb"
	"github.com/cairndb/cairn/api/metapb"
	"github.com/cairndb/cairn/internal/base"
)

// TestListNodes: the records of sys with the health that the node was told, as old as it is by now; none that is too old.
func TestListNodes(t *testing.T) {
	b := memberBackend()
	stored := &metapb.NodeRecord{NodeId: 2, Address: "h2:1", State: metapb.NodeState_NODE_STATE_SUSPECT}
	raw, err := proto.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	b.sys = []*mvccpb.KeyValue{{Key: []byte("node/\x00\x00\x00\x00\x00\x00\x00\x02"), Value: raw}}
	b.health = []*metapb.NodeHealth{{NodeId: 2, HeardMicros: 5, SuspectedMicros: 7, Why: "it is silent"}, {NodeId: 3, HeardMicros: -1}}
	b.toldBy, b.age = 1, time.Second
	cl := clusterpb.NewClusterClient(serveFake(t, b))
	resp, err := cl.ListNodes(t.Context(), &clusterpb.ListNodesRequest{})
	want := &clusterpb.ListNodesResponse{ToldBy: 1, Nodes: []*clusterpb.NodeInfo{
		{Record: stored, Health: &metapb.NodeHealth{NodeId: 2, HeardMicros: 1_000_005, SuspectedMicros: 1_000_007, Why: "it is silent"}},
	}}
	if err != nil || !proto.Equal(resp, want) {
		t.Errorf("got %v, %v\nwant %v", resp, err, want)
	}
	if b.health[0].HeardMicros != 5 {
		t.Error("what the node was told was changed")
	}

	b.age = base.HealthAge + time.Millisecond
	resp, err = cl.ListNodes(t.Context(), &clusterpb.ListNodesRequest{})
	if err != nil || resp.ToldBy != 0 || len(resp.Nodes) != 1 || resp.Nodes[0].Health != nil {
		t.Errorf("told long ago: %v, %v", resp, err)
	}

	b.err = &base.NotLeader{Range: base.RangeSys} // sys cannot be read: the records are those that the node remembers
	b.members = []*metapb.NodeRecord{{NodeId: 9}}
	resp, err = cl.ListNodes(t.Context(), &clusterpb.ListNodesRequest{})
	if err != nil || len(resp.Nodes) != 1 || resp.Nodes[0].Record.NodeId != 9 || !resp.Remembered {
		t.Errorf("without sys: %v, %v", resp, err)
	}
}

// TestStartsMeanwhile: what clients ask of a node that has just started is answered when it serves. Cairn's own client is refused at
// once, and so is a call whose time is over.
func TestStartsMeanwhile(t *testing.T) {
	b := memberBackend()
	b.answer = &pb.PutResponse{}
	why := &base.Fenced{Reason: "n1 has just started"}
	waiting, served := make(chan struct{}, 1), make(chan struct{})
	_, conn := serveOn(t, listen(t), Config{
		Backend: b, MayServe: func() error { return why },
		AwaitService: func(ctx context.Context) error {
			waiting <- struct{}{}
			select {
			case <-served:
				return nil
			case <-ctx.Done():
				return why
			}
		},
	})
	kv, put := pb.NewKVClient(conn), &pb.PutRequest{Key: []byte("k")}
	if _, err := kv.Put(metadata.AppendToOutgoingContext(t.Context(), base.RouteHeader, "0.0"), put); status.Code(err) != codes.Unavailable || len(waiting) > 0 {
		t.Errorf("Cairn's own client: %v, %d wait", err, len(waiting))
	}
	done := make(chan error, 1)
	go func() { _, err := kv.Put(t.Context(), put); done <- err }()
	<-waiting
	close(served)
	if err := <-done; err != nil {
		t.Errorf("it serves now, and says %v", err)
	}
	if _, err := pb.NewMaintenanceClient(conn).Status(t.Context(), &pb.StatusRequest{}); err != nil {
		t.Error(err)
	}
}

// TestFenced: a node that may not serve says why to every client, and goes on being a node.
func TestFenced(t *testing.T) {
	b := memberBackend()
	b.answer = &pb.PutResponse{}
	var why error = &base.Fenced{Reason: "n1 was held to be failed; it announces itself again, and serves then"}
	_, conn := serveOn(t, listen(t), Config{Backend: b, MayServe: func() error { return why }})
	ctx := t.Context()
	cl, kv := clusterpb.NewClusterClient(conn), pb.NewKVClient(conn)
	calls := map[string]func() error{
		"Put": func() error { _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k")}); return err },
		"Range": func() error {
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
			return err
		},
		"RangeStream": func() error {
			s, err := kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("k")})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"MemberList":    func() error { _, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{}); return err },
		"ListKeyspaces": func() error { _, err := cl.ListKeyspaces(ctx, &clusterpb.ListKeyspacesRequest{}); return err },
	}
	for name, call := range calls {
		if err := call(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "n1 was held to be failed; it announces itself again") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(b.proposed)+len(b.reads) > 0 {
		t.Errorf("it was carried out: %v, %v", b.proposed, b.reads)
	}
	// Cairn's own client is told in a word of its own.
	_, err := kv.Put(metadata.AppendToOutgoingContext(ctx, base.RouteHeader, "0.0"), &pb.PutRequest{Key: []byte("k")})
	if d := status.Convert(err).Details(); len(d) != 1 || !proto.Equal(d[0].(*clusterpb.Failure), &clusterpb.Failure{
		Kind: clusterpb.FailureKind_FAILURE_KIND_NOT_DONE, Fenced: true,
	}) {
		t.Errorf("what Cairn's own client is told: %v", d)
	}
	for name, call := range map[string]func() error{
		"Identity":   func() error { _, err := cl.Identity(ctx, &clusterpb.IdentityRequest{}); return err },
		"Announce":   func() error { _, err := cl.Announce(ctx, &clusterpb.AnnounceRequest{}); return err },
		"NodeStatus": func() error { _, err := cl.NodeStatus(ctx, &clusterpb.NodeStatusRequest{}); return err },
		"ListNodes":  func() error { _, err := cl.ListNodes(ctx, &clusterpb.ListNodesRequest{}); return err },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	why = nil
	if err := calls["Put"](); err != nil {
		t.Errorf("let in again: %v", err)
	}
}
