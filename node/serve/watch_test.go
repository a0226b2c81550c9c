package serve

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/meta/watch"
	gateway "github.com/cairndb/cairn/node/web"
)

func watchBackend() *fakeBackend {
	b := memberBackend()
	b.watches = make(chan *fakeStream, 10)
	return b
}

// asks is what a client asks, and gives its stream and the node's.
func openWatch(t *testing.T, b *fakeBackend, conn *grpc.ClientConn, ctx context.Context) (pb.Watch_WatchClient, *fakeStream) {
	t.Helper()
	w, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case s := <-b.watches:
		return w, s
	case <-time.After(10 * time.Second):
		_, err := w.Recv()
		t.Fatalf("no stream was opened: %v", err)
		return nil, nil
	}
}

func create(r *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}

// What a client asks for is what the node is asked; etcd's ways to say what is watched are understood.
func TestWatchRequests(t *testing.T) {
	b := watchBackend()
	w, s := openWatch(t, b, serveFake(t, b), metadata.AppendToOutgoingContext(t.Context(), base.KeyspaceHeader, "shards"))
	key, zero := []byte("k"), []byte{0}
	const rest = ", keyspace 100, prev false, no put false, no delete false, progress false, fragment false"
	for _, c := range []struct {
		ask  *pb.WatchRequest
		want string
	}{
		{create(&pb.WatchCreateRequest{Key: key}), `create 0 ["k","k\x00") from 0` + rest},
		{create(&pb.WatchCreateRequest{Key: key, RangeEnd: []byte("m"), StartRevision: 7, WatchId: 5}), `create 5 ["k","m") from 7` + rest},
		{create(&pb.WatchCreateRequest{Key: key, RangeEnd: zero}), `create 0 ["k","") from 0` + rest},
		{create(&pb.WatchCreateRequest{Key: zero, RangeEnd: zero}), `create 0 ["\x00","") from 0` + rest},
		{create(&pb.WatchCreateRequest{}), `create 0 ["\x00","\x00\x00") from 0` + rest},
		{create(&pb.WatchCreateRequest{RangeEnd: []byte("b")}), `create 0 ["\x00","b") from 0` + rest},
		{create(&pb.WatchCreateRequest{Key: key, PrevKv: true, ProgressNotify: true, Fragment: true, Filters: []pb.WatchCreateRequest_FilterType{
			pb.WatchCreateRequest_NODELETE, pb.WatchCreateRequest_NOPUT}}),
			`create 0 ["k","k\x00") from 0, keyspace 100, prev true, no put true, no delete true, progress true, fragment true`},
		{&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: 5}}}, "cancel 5"},
		{&pb.WatchRequest{}, ""}, // as with etcd: nothing
		{&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}, "progress"},
	} {
		if err := w.Send(c.ask); err != nil {
			t.Fatal(err)
		}
		if c.want == "" {
			continue
		}
		if got := <-s.asked; got != c.want {
			t.Errorf("asked %v: the node was asked\n%s, want\n%s", c.ask, got, c.want)
		}
	}
	if err := w.CloseSend(); err != nil { // it goes on listening
		t.Fatal(err)
	}
	s.Outs([]watch.Out{{Kind: watch.Created, Watch: 5, Revision: 9, Bytes: 3}})
	got, err := w.Recv()
	want := &pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 0xc1, MemberId: 1, Revision: 9, RaftTerm: 7}, WatchId: 5, Created: true}
	if err != nil || !proto.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// event is one as the node has it.
func event(t *testing.T, rev base.Revision, value string) *watch.Event {
	t.Helper()
	wire, err := proto.Marshal(&mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("k"), ModRevision: int64(rev), Value: []byte(value)}})
	if err != nil {
		t.Fatal(err)
	}
	return &watch.Event{Key: []byte("k"), Revision: rev, Wire: wire}
}

// A client that does not read holds up its own stream and nobody else's, nor the end of the server; what was sent is told.
func TestWatchReaderThatStopsReading(t *testing.T) {
	b := watchBackend()
	srv, conn := serveOn(t, listen(t), Config{Backend: b})
	_, stuck := openWatch(t, b, conn, t.Context())
	w, s := openWatch(t, b, serveAlso(t, srv), t.Context())
	large := strings.Repeat("v", 1<<20)
	const each = 100
	for i := range each { // far more than what is on its way to a client
		stuck.Outs([]watch.Out{{Kind: watch.Events, Watch: int64(i), Revision: 5, Events: []*watch.Event{event(t, 5, large)}, Bytes: 1 << 20}})
	}
	s.Outs([]watch.Out{{Kind: watch.Events, Watch: 1, Revision: 5, Events: []*watch.Event{event(t, 5, "v")}, Bytes: 77}})
	if r, err := w.Recv(); err != nil || len(r.Events) != 1 {
		t.Fatalf("the other stream: %v, %v", r, err)
	}
	if n := <-s.sent; n != 77 {
		t.Errorf("%d bytes are said to be sent", n)
	}
	if n := len(stuck.sent); n >= each {
		t.Errorf("all %d responses are said to be sent", n)
	}
	stopped := make(chan struct{})
	go func() {
		srv.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(20 * time.Second):
		t.Error("a reader that is stuck holds up the end")
	}
	for range s.asked { // closed
	}
	for range stuck.asked {
	}
}

// How streams are ended: the client is told what lets it go elsewhere.
func TestWatchEnds(t *testing.T) {
	t.Run("the server stops", func(t *testing.T) {
		b := watchBackend()
		srv, conn := serveOn(t, listen(t), Config{Backend: b})
		w, _ := openWatch(t, b, conn, t.Context())
		srv.GracefulStop()
		if _, err := w.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("%v", err)
		}
	})
	t.Run("the node is fenced", func(t *testing.T) {
		b := watchBackend()
		var fenced error
		srv, conn := serveOn(t, listen(t), Config{Backend: b, MayServe: func() error { return fenced }})
		w, s := openWatch(t, b, conn, t.Context())
		if err := w.Send(create(&pb.WatchCreateRequest{Key: []byte("k")})); err != nil {
			t.Fatal(err)
		}
		<-s.asked // it is known to the server
		srv.SetServing(false)
		fenced = &base.Fenced{Reason: "n1 is given up"}
		srv.SetServing(false)
		if _, err := w.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "n1 is given up") {
			t.Errorf("%v", err)
		}
		for range s.asked { // closed
		}
	})
	t.Run("the node ends it", func(t *testing.T) {
		b := watchBackend()
		w, s := openWatch(t, b, serveFake(t, b), t.Context())
		s.End(base.ErrStopped)
		if _, err := w.Recv(); status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCStopped).Message() {
			t.Errorf("%v", err)
		}
	})
	t.Run("the client goes", func(t *testing.T) {
		b := watchBackend()
		ctx, cancel := context.WithCancel(t.Context())
		_, s := openWatch(t, b, serveFake(t, b), ctx)
		cancel()
		for range s.asked { // closed
		}
		s.Outs([]watch.Out{{Kind: watch.Created}}) // to nobody
	})
	t.Run("there is no such keyspace", func(t *testing.T) {
		b := watchBackend()
		w, err := pb.NewWatchClient(serveFake(t, b)).Watch(metadata.AppendToOutgoingContext(t.Context(), base.KeyspaceHeader, "none"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Recv(); status.Code(err) != codes.NotFound {
			t.Errorf("%v", err)
		}
	})
}

// A stream that wants a leader is ended if there is none for long, and not begun; one that does not is left alone.
func TestWatchRequireLeader(t *testing.T) {
	b := watchBackend()
	conn := serveFake(t, b)
	ctx := metadata.AppendToOutgoingContext(t.Context(), rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	w, _ := openWatch(t, b, conn, ctx)
	sharded, s := openWatch(t, b, conn, metadata.AppendToOutgoingContext(ctx, base.KeyspaceHeader, "shards"))
	if err := sharded.Send(create(&pb.WatchCreateRequest{Key: []byte("k")})); err != nil {
		t.Fatal(err)
	}
	<-s.asked
	other, o := openWatch(t, b, conn, t.Context())
	b.leadless.Store(true)
	for _, w := range []pb.Watch_WatchClient{w, sharded} {
		if _, err := w.Recv(); status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCNoLeader).Message() {
			t.Errorf("%v", err)
		}
	}
	again, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Recv(); status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCNoLeader).Message() {
		t.Errorf("%v", err)
	}
	o.Outs([]watch.Out{{Kind: watch.Created, Revision: 3}})
	if _, err := other.Recv(); err != nil {
		t.Errorf("one that did not ask for it: %v", err)
	}
}

// The JSON gateway's watch, of which the body is one request and the answer a line for each response.
func TestWatchOverHTTP(t *testing.T) {
	b := watchBackend()
	l := listen(t)
	srv, err := NewServer(Config{Backend: b, Membership: fakeMembership{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.AlsoHTTP(func(conn *grpc.ClientConn) (http.Handler, error) {
		return gateway.New(gateway.Config{
			Conn: conn, Version: EtcdVersion, Member: func() bool { return true }, Live: func() error { return nil },
			Keyspace: func(int) string { return "" }, Metrics: http.NotFoundHandler(), Logger: srv.cfg.Logger,
		})
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	defer func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.Addr().String()+"/v3/watch", strings.NewReader(`{"create_request":{"key":"aw=="}}`))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		s := <-b.watches
		<-s.asked
		s.Outs([]watch.Out{{Kind: watch.Created, Revision: 4}, {Kind: watch.Events, Revision: 5, Events: []*watch.Event{event(t, 5, "v")}}})
	}()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	want := `{"result":{"header":{"cluster_id":"193","member_id":"1","revision":"4","raft_term":"7"},"created":true}}` + "\n" +
		`{"result":{"header":{"cluster_id":"193","member_id":"1","revision":"5","raft_term":"7"},"events":[{"kv":{"key":"aw==","mod_revision":"5","value":"dg=="}}]}}` + "\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
		t.Errorf("got\n%s, %v, want\n%s", got, err, want)
	}
	http.DefaultClient.CloseIdleConnections()
}
