package serve

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/node/join"
)

// putHandler answers each request with what a call of this server's Put says.
func putHandler(conn *grpc.ClientConn) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		if _, err := pb.NewKVClient(conn).Put(r.Context(), &pb.PutRequest{Key: body}); err != nil {
			http.Error(w, status.Code(err).String(), http.StatusServiceUnavailable)
		}
	}), nil
}

// serveBoth serves gRPC and HTTP on one listener; the test stops it.
func serveBoth(t *testing.T, cfg Config) (s *Server, addr string, ended chan error) {
	t.Helper()
	cfg.Membership = fakeMembership{}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AlsoHTTP(putHandler); err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	ended = make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	return s, l.Addr().String(), ended
}

func post(t *testing.T, addr, body string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post("http://"+addr+"/", "text/plain", strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(said))
}

// Both are served on one port, and what comes over HTTP passes the same gate.
func TestBothOnOnePort(t *testing.T) {
	b := memberBackend()
	b.answer = &pb.PutResponse{}
	refuse := make(chan error, 1)
	s, addr, ended := serveBoth(t, Config{Backend: b, MayServe: func() error {
		select {
		case err := <-refuse:
			return err
		default:
			return nil
		}
	}})
	conn, err := join.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("g")}); err != nil {
		t.Error(err)
	}
	if code, said := post(t, addr, "h"); code != http.StatusOK {
		t.Errorf("HTTP: %d %s", code, said)
	}
	refuse <- &base.Fenced{}
	if code, said := post(t, addr, "h"); code != http.StatusServiceUnavailable || said != codes.Unavailable.String() {
		t.Errorf("a fenced node answered %d %s", code, said)
	}
	if code, _ := post(t, addr, strings.Repeat("x", bodyBytes(base.MaxRequestBytes)+1)); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too large: %d", code)
	}
	if len(b.keys) != 2 || string(b.keys[0]) != "g" || string(b.keys[1]) != "h" {
		t.Errorf("proposed %q", b.keys)
	}
	s.Stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if code, _ := post(t, addr, "h"); code != 0 {
		t.Errorf("after the end: %d", code)
	}
}

// A request under way over HTTP ends, and a stream that would never end does not keep the server.
func TestGracefulStopOfBoth(t *testing.T) {
	b := &heldBackend{memberBackend(), make(chan struct{}), make(chan struct{})}
	s, addr, ended := serveBoth(t, Config{Backend: b})
	watch, err := healthpb.NewHealthClient(s.web.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	put := make(chan int, 1)
	go func() {
		code, _ := post(t, addr, "k")
		put <- code
	}()
	<-b.begun
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
		t.Fatal("stopped over a request under way")
	case code := <-put:
		t.Fatalf("the request ended by itself: %d", code)
	case b.answer <- struct{}{}:
	}
	if code := <-put; code != http.StatusOK {
		t.Errorf("the request under way: %d", code)
	}
	<-stopped
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestStopCutsHTTPShort(t *testing.T) {
	b := &heldBackend{memberBackend(), make(chan struct{}), make(chan struct{})}
	s, addr, ended := serveBoth(t, Config{Backend: b})
	put := make(chan int, 1)
	go func() {
		code, _ := post(t, addr, "k")
		put <- code
	}()
	<-b.begun
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	s.Stop()
	<-stopped
	if code := <-put; code == http.StatusOK {
		t.Errorf("the request that was cut: %d", code)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A server that never served ends too.
func TestStopBeforeServing(t *testing.T) {
	s, err := NewServer(Config{Backend: memberBackend(), Membership: fakeMembership{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AlsoHTTP(putHandler); err != nil {
		t.Fatal(err)
	}
	s.Stop()
}

// Calls are counted by what came of them; those of unknown methods are not.
func TestCallCounts(t *testing.T) {
	b := memberBackend()
	b.answer = &pb.PutResponse{}
	s, conn := serveOn(t, listen(t), Config{Backend: b})
	kv := pb.NewKVClient(conn)
	for _, key := range []string{"a", "b", ""} { // the last is refused
		_, _ = kv.Put(t.Context(), &pb.PutRequest{Key: []byte(key)})
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(t.Context(), nil))
	watch, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	defer cancel()
	_ = conn.Invoke(t.Context(), "/no.such/Method", &pb.PutRequest{}, &pb.PutResponse{})
	got := map[string]CallCount{}
	for _, c := range s.CallCounts() {
		got[c.Method] = c
	}
	if c := got["Put"]; c.Service != "etcdserverpb.KV" || c.Kind != "unary" || c.Started != 3 || c.Ended[codes.OK] != 2 || c.Ended[codes.InvalidArgument] != 1 {
		t.Errorf("Put: %+v", c)
	}
	if c := got["Watch"]; c.Kind != "server_stream" || c.Started != 1 || len(c.Ended) != 0 {
		t.Errorf("a stream that goes on: %+v", c)
	}
	if len(got) != 2 {
		t.Errorf("counted: %v", got)
	}
}
