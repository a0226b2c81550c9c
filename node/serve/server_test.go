package serve

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/api/clusterpb"
)

func TestOutsiderAnswersOnlyHowToGetIn(t *testing.T) {
	b := memberBackend()
	b.id.ClusterID, b.id.NodeID = 0, 0
	s, conn := serveOn(t, listen(t), Config{Backend: b})
	ctx := t.Context()
	cl, kv := clusterpb.NewClusterClient(conn), pb.NewKVClient(conn)

	if id, err := cl.Identity(ctx, &clusterpb.IdentityRequest{}); err != nil || id.ClusterId != 0 || len(id.StoreUuid) != 16 {
		t.Errorf("Identity: %v, %v", id, err)
	}
	if resp, err := cl.Init(ctx, &clusterpb.InitRequest{}); err != nil || resp.ClusterId != 9 {
		t.Errorf("Init: %v, %v", resp, err)
	}
	if resp, err := cl.Consent(ctx, &clusterpb.ConsentRequest{}); err != nil || !resp.Granted {
		t.Errorf("Consent: %v, %v", resp, err)
	}
	wantHealth(t, conn, healthpb.HealthCheckResponse_NOT_SERVING)
	stream, err := kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	_, errStream := stream.Recv()
	_, errPut := kv.Put(ctx, &pb.PutRequest{Key: []byte("k")})
	_, errJoin := cl.Join(ctx, &clusterpb.JoinRequest{})
	_, errStatus := cl.Status(ctx, &clusterpb.StatusRequest{})
	_, errMembers := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{})
	for name, err := range map[string]error{"Put": errPut, "RangeStream": errStream, "Join": errJoin, "Status": errStatus,
		"MemberList": errMembers} {
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "not part of a cluster yet: run cairn init") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(b.proposed) != 0 {
		t.Errorf("proposed %v", b.proposed)
	}

	watch, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{Service: "etcdserverpb.KV"})
	if err != nil {
		t.Fatal(err)
	}
	s.SetServing(true)
	for {
		resp, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if resp.Status == healthpb.HealthCheckResponse_SERVING {
			break
		}
	}
}

func TestNewServerValidates(t *testing.T) {
	_, err := NewServer(Config{MaxTxnOps: -1})
	for _, part := range []string{"no backend", "no membership", "negative"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}

func wantHealth(t *testing.T, conn *grpc.ClientConn, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	for _, service := range []string{"", "etcdserverpb.KV"} {
		resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || resp.Status != want {
			t.Errorf("health of %q: %v, %v, want %v", service, resp, err, want)
		}
	}
}

func TestHealthOfAMember(t *testing.T) {
	s, conn := serveOn(t, listen(t), Config{Backend: memberBackend()})
	wantHealth(t, conn, healthpb.HealthCheckResponse_SERVING)
	s.SetServing(false)
	wantHealth(t, conn, healthpb.HealthCheckResponse_NOT_SERVING)
}

func TestWhatIsNotThereSaysSo(t *testing.T) {
	conn := serveFake(t, memberBackend())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, errHash := pb.NewMaintenanceClient(conn).Hash(ctx, &pb.HashRequest{})
	_, errDown := pb.NewMaintenanceClient(conn).Downgrade(ctx, &pb.DowngradeRequest{Version: "3.5.0"})
	_, errAdd := pb.NewClusterClient(conn).MemberAdd(ctx, &pb.MemberAddRequest{})
	for name, err := range map[string]error{"Hash": errHash, "Downgrade": errDown,
		"MemberAdd": errAdd} {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
	if resp, err := pb.NewMaintenanceClient(conn).Alarm(ctx, &pb.AlarmRequest{}); err != nil || len(resp.Alarms) != 0 {
		t.Errorf("Alarm: %v, %v", resp, err)
	}
}
