package transport_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/api/transportpb"
	"github.com/cairndb/cairn/internal/base"
	"github.com/cairndb/cairn/transport"
	"github.com/cairndb/cairn/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// addresses is a resolver whose entries can change.
type addresses struct {
	mu sync.Mutex
	m  map[base.NodeID]string
}

func (a *addresses) Address(id base.NodeID) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, ok := a.m[id]
	return s, ok
}

// member is one node: a transport behind a server.
type member struct {
	t      *transport.GRPC
	server *grpc.Server
}

func start(t *testing.T, book *addresses, id base.NodeID, inc base.Incarnation, h transport.Handler) *member {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	book.mu.Lock()
	book.m[id] = l.Addr().String()
	book.mu.Unlock()
	tr, err := transport.NewGRPC(transport.GRPCConfig{
		ClusterID: 7, Node: id, Incarnation: inc, Address: l.Addr().String(), Resolver: book, Handler: h,
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: tr, server: grpc.NewServer(grpc.MaxRecvMsgSize(base.MaxFrameBytes + base.RequestOverheadBytes))}
	tr.Register(m.server)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = m.server.Serve(l) // ends with Stop
	}()
	t.Cleanup(func() {
		m.stop()
		<-served
	})
	return m
}

func (m *member) stop() {
	m.server.Stop()
	m.t.Close()
}

func TestConformance(t *testing.T) {
	transporttest.Run(t, func(t *testing.T, one, two transport.Handler) *transporttest.Cluster {
		book := &addresses{m: make(map[base.NodeID]string)}
		a, b := start(t, book, 1, 1, one), start(t, book, 2, 1, two)
		return &transporttest.Cluster{
			Nodes:   [2]transport.Transport{a.t, b.t},
			Pump:    func() {},
			Stop:    b.stop,
			Restart: func(h transport.Handler) { start(t, book, 2, 2, h) }, // at a new address
		}
	})
}

// Who opens a stream must be of this cluster, mean this node, and be the newest start of itself.
func TestHello(t *testing.T) {
	book := &addresses{m: make(map[base.NodeID]string)}
	h := transporttest.NewRecorder()
	start(t, book, 2, 1, h)
	conn, err := grpc.NewClient(book.m[2], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	good := func() *transportpb.Hello {
		return &transportpb.Hello{ClusterId: 7, FromNode: 1, FromIncarnation: 5, ToNode: 2, Class: uint32(transport.Raft)}
	}
	newest, err := transportpb.NewTransportClient(conn).Frames(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := newest.Send(&transportpb.Frame{Hello: good(), Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*transportpb.Hello)
		code   codes.Code
		word   string
	}{
		{"another cluster", func(h *transportpb.Hello) { h.ClusterId = 8 }, codes.FailedPrecondition, "cluster"},
		{"another node", func(h *transportpb.Hello) { h.ToNode = 3 }, codes.FailedPrecondition, "n2"},
		{"nobody", func(h *transportpb.Hello) { h.FromNode = 0 }, codes.InvalidArgument, "hello"},
		{"an unknown class", func(h *transportpb.Hello) { h.Class = 77 }, codes.InvalidArgument, "class"},
		{"an older start", func(h *transportpb.Hello) { h.FromIncarnation = 4 }, codes.FailedPrecondition, "start"},
	} {
		s, err := transportpb.NewTransportClient(conn).Frames(ctx)
		if err != nil {
			t.Fatal(err)
		}
		hello := good()
		c.change(hello)
		_ = s.Send(&transportpb.Frame{Hello: hello}) // the answer says whether it was taken
		err = s.RecvMsg(&transportpb.FramesDone{})
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// A newer start ends the older one's streams, also one that is silent.
	newer, err := transportpb.NewTransportClient(conn).Frames(ctx)
	if err != nil {
		t.Fatal(err)
	}
	hello := good()
	hello.FromIncarnation = 6
	if err := newer.Send(&transportpb.Frame{Hello: hello}); err != nil {
		t.Fatal(err)
	}
	if err := newest.RecvMsg(&transportpb.FramesDone{}); status.Code(err) != codes.Aborted {
		t.Errorf("the older start's stream: %v", err)
	}
}

// refuser ends every stream after its hello, while more is sent to it.
type refuser struct {
	transportpb.UnimplementedTransportServer
}

func (refuser) Frames(s grpc.ClientStreamingServer[transportpb.Frame, transportpb.FramesDone]) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	return status.Error(codes.FailedPrecondition, "not here")
}

// downs is a handler that hears why its peer is down.
type downs struct {
	transport.Handler
	why chan error
}

func (d downs) PeerDown(_ base.NodeID, err error) { d.why <- err }

// A stream that ends while frames are sent on it has one who receives, and its reason is the receiver's.
func TestReasonOfAStreamThatEndsWhileSending(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	transportpb.RegisterTransportServer(server, refuser{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // ends with Stop
	}()
	defer func() {
		server.Stop()
		<-served
	}()
	book := &addresses{m: map[base.NodeID]string{2: l.Addr().String()}}
	for range 50 {
		d := downs{Handler: transporttest.NewRecorder(), why: make(chan error, 1)}
		m := start(t, book, 1, 1, d)
		for down := false; !down; {
			_ = m.t.Send(2, transport.Raft, make([]byte, 1000)) // refused from the first end on
			select {
			case err := <-d.why:
				down = true
				if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "not here") {
					t.Fatalf("the peer is down because %v", err)
				}
			default:
			}
		}
		m.stop()
	}
}
