package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
)

// node is a gRPC server that answers as it is told. The real one is under test in node/e2e; here is what it seldom says.
type node struct {
	pb.UnimplementedKVServer
	pb.UnimplementedMaintenanceServer
	pb.UnimplementedClusterServer
	health *health.Server

	alarms       []*pb.AlarmMember
	linearizable error
	serializable error
	members      []*pb.Member
	live         error
	outside      bool // of any cluster
	keyspaces    []string
}

func (n *node) Range(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	n.keyspaces = metadata.ValueFromIncomingContext(ctx, base.KeyspaceHeader)
	if req.Serializable {
		return &pb.RangeResponse{}, n.serializable
	}
	return &pb.RangeResponse{Count: 1 << 60}, n.linearizable
}

func (n *node) Alarm(context.Context, *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	return &pb.AlarmResponse{Alarms: n.alarms}, nil
}

func (n *node) MemberList(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	return &pb.MemberListResponse{Header: &pb.ResponseHeader{MemberId: 1}, Members: n.members}, nil
}

// serve makes a handler for it, until the test ends.
func (n *node) serve(t *testing.T) http.Handler {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	n.health = health.NewServer()
	n.members = []*pb.Member{{ID: 1}, {ID: 2, IsLearner: true}}
	pb.RegisterKVServer(s, n)
	pb.RegisterMaintenanceServer(s, n)
	pb.RegisterClusterServer(s, n)
	pb.RegisterLeaseServer(s, pb.UnimplementedLeaseServer{})
	pb.RegisterWatchServer(s, pb.UnimplementedWatchServer{})
	healthpb.RegisterHealthServer(s, n.health)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // before it began
			t.Error(err)
		}
	})
	h, err := New(Config{
		Conn: conn, Version: "3.6.0", Member: func() bool { return !n.outside }, Live: func() error { return n.live },
		Keyspace: func(port int) string { return map[int]string{7: "shards"}[port] },
		Metrics:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics\n") }),
		Logger:   slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ask(h http.Handler, r *http.Request) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func getPage(h http.Handler, path string) (int, string) {
	return ask(h, httptest.NewRequest(http.MethodGet, path, nil))
}

func postPage(h http.Handler, path, body string) (int, string) {
	return ask(h, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
}

func want(t *testing.T, what string, code int, said string, wantCode int, wantSaid string) {
	t.Helper()
	if code != wantCode || said != wantSaid {
		t.Errorf("%s: %d %q, want %d %q", what, code, said, wantCode, wantSaid)
	}
}

// The forms are those of etcd 3.7.3, to the letter.
func TestHealthForms(t *testing.T) {
	noSpace := []*pb.AlarmMember{{Alarm: pb.AlarmType_NOSPACE}}
	corrupt := []*pb.AlarmMember{{Alarm: pb.AlarmType_CORRUPT}}
	const allReady = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]serving ok\nok\n"
	for _, c := range []struct {
		node node
		path string
		code int
		said string
	}{
		{node{}, "/health", 200, `{"health":"true","reason":""}`},
		{node{alarms: noSpace}, "/health", 503, `{"health":"false","reason":"ALARM NOSPACE"}` + "\n"},
		{node{alarms: noSpace}, "/health?exclude=NOSPACE", 200, `{"health":"true","reason":""}`},
		{node{alarms: corrupt}, "/health?exclude=NOSPACE", 503, `{"health":"false","reason":"ALARM CORRUPT"}` + "\n"},
		{node{linearizable: rpctypes.ErrGRPCNoLeader}, "/health", 503, `{"health":"false","reason":"RAFT NO LEADER"}` + "\n"},
		{node{linearizable: rpctypes.ErrGRPCNoLeader}, "/health?serializable=true", 200, `{"health":"true","reason":""}`},
		{node{linearizable: rpctypes.ErrGRPCTimeout}, "/health", 503, `{"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"}` + "\n"},
		{node{}, "/livez", 200, "ok\n"},
		{node{}, "/livez?verbose", 200, "[+]serializable_read ok\nok\n"},
		{node{linearizable: rpctypes.ErrGRPCNoLeader, serializable: rpctypes.ErrGRPCNoLeader, outside: true}, "/livez", 200, "ok\n"},
		{node{live: errors.New("the disk is gone")}, "/livez", 503, "[-]serializable_read failed: the disk is gone\n\n"},
		{node{}, "/readyz", 200, "ok\n"},
		{node{}, "/readyz?verbose", 200, allReady},
		{node{alarms: noSpace}, "/readyz", 200, "ok\n"},
		{node{alarms: corrupt}, "/readyz/data_corruption", 503, "[-]data_corruption failed: alarm activated: CORRUPT\n\n"},
		{node{linearizable: rpctypes.ErrGRPCNoLeader}, "/readyz/serializable_read", 200, "ok\n"},
		{node{linearizable: rpctypes.ErrGRPCNoLeader}, "/readyz/linearizable_read", 503, "[-]linearizable_read failed: etcdserver: no leader\n\n"},
		{node{linearizable: rpctypes.ErrGRPCNoLeader}, "/readyz?exclude=linearizable_read&exclude=of_another_version", 200, "ok\n"},
		{node{}, "/version", 200, `{"etcdserver":"3.6.0","etcdcluster":"3.6.0","storage":"3.6.0"}`},
		{node{outside: true}, "/version", 200, `{"etcdserver":"3.6.0","etcdcluster":"not_decided","storage":"unknown"}`},
		{node{}, "/metrics", 200, "metrics\n"},
		{node{}, "/readyz/no_such", 404, "404 page not found\n"},
		{node{}, "/", 404, "404 page not found\n"},
	} {
		n := c.node
		h := n.serve(t)
		code, said := getPage(h, c.path)
		want(t, c.path, code, said, c.code, c.said)
	}
}

func TestReadyzOfOneThatStopsOrIsNoMember(t *testing.T) {
	n := &node{}
	h := n.serve(t)
	n.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if code, said := getPage(h, "/readyz"); code != 503 || !strings.Contains(said, "[-]serving failed: ") || !strings.Contains(said, "[+]linearizable_read ok") {
		t.Errorf("one that stops: %d %s", code, said)
	}
	n.members = []*pb.Member{{ID: 1, IsLearner: true}}
	code, said := getPage(h, "/readyz/non_learner")
	want(t, "a learner", code, said, 503, "[-]non_learner failed: not supported for learner\n\n")
	n.members = []*pb.Member{{ID: 2}}
	code, said = getPage(h, "/readyz/non_learner")
	want(t, "one that left", code, said, 503, "[-]non_learner failed: this node is not among the members of the cluster\n\n")
}

func TestPagesAnswerGetAlone(t *testing.T) {
	n := &node{}
	h := n.serve(t)
	for _, path := range []string{"/health", "/livez", "/readyz/serving", "/version"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != http.MethodGet {
			t.Errorf("%s: %d, Allow: %q", path, w.Code, w.Header().Get("Allow"))
		}
	}
}

// compact takes out the blanks that protojson sets at random.
func compact(s string) string { return strings.ReplaceAll(s, `, "`, `,"`) }

func TestGateway(t *testing.T) {
	n := &node{}
	h := n.serve(t)
	for _, c := range []struct {
		path, body string
		code       int
		said       string
	}{
		{"/v3/kv/range", `{"key":"Zm9v","no_such_field":1}`, 200, `{"count":"1152921504606846976"}`},
		{"/v3beta/kv/range", `{"key":"Zm9v"}`, 200, `{"count":"1152921504606846976"}`},
		{"/v3/kv/range", `{bad`, 400, `{"code":3,"message":"invalid character 'b' looking for beginning of object key string"}`},
		{"/v3/lease/grant", `{"TTL":"10"}`, 501, `{"code":12,"message":"method LeaseGrant not implemented"}`},
		{"/v3/watch", `{"create_request":{"key":"Zm9v"}}`, 501, `{"error":{"code":12,"message":"method Watch not implemented"}}` + "\n"},
		{"/v3/no/such", `{}`, 404, `{"code":5,"message":"Not Found"}`},
	} {
		code, said := postPage(h, c.path, c.body)
		want(t, c.path+" "+c.body, code, compact(said), c.code, c.said)
	}
}

// Which keyspace a request means: what it names, or what its address is bound to.
func TestGatewayKeyspace(t *testing.T) {
	n := &node{}
	h := n.serve(t)
	for _, c := range []struct {
		port  int
		names string
		want  string
	}{{6, "", ""}, {7, "", "shards"}, {7, "mine", "mine"}, {6, "mine", "mine"}} {
		r := httptest.NewRequest(http.MethodPost, "/v3/kv/range", strings.NewReader(`{"key":"Zm9v"}`))
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{Port: c.port}))
		if c.names != "" {
			r.Header.Set("Grpc-Metadata-Cairn-Keyspace", c.names)
		}
		n.keyspaces = nil
		if code, said := ask(h, r); code != http.StatusOK {
			t.Fatalf("%d %s", code, said)
		}
		if got := strings.Join(n.keyspaces, ","); got != c.want {
			t.Errorf("port %d, header %q: keyspace %q, want %q", c.port, c.names, got, c.want)
		}
	}
}

// A page of another origin writes nothing through somebody's browser.
func TestOtherOriginsAreRefused(t *testing.T) {
	n := &node{}
	h := n.serve(t)
	r := httptest.NewRequest(http.MethodPost, "/v3/kv/range", strings.NewReader(`{"key":"Zm9v"}`))
	r.Header.Set("Origin", "https://elsewhere.example")
	r.Header.Set("Content-Type", "text/plain")
	if code, said := ask(h, r); code != http.StatusForbidden {
		t.Errorf("%d %s", code, said)
	}
}

func TestHealthChecksAreCounted(t *testing.T) {
	n := &node{}
	h := n.serve(t)
	for range 3 {
		getPage(h, "/health")
	}
	n.linearizable = rpctypes.ErrGRPCNoLeader
	getPage(h, "/health")
	if ok, not := h.(*Handler).HealthChecks(); ok != 3 || not != 1 {
		t.Errorf("counted %d and %d", ok, not)
	}
}

func TestConfigIsWhole(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration is taken")
	}
}
