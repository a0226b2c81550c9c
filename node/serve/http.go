package serve

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/cairndb/cairn/internal/base"
)

// This file serves HTTP beside gRPC, on the same listeners. What is answered there is not known here: a handler is put in
// (node/web), and reaches the node as every client does, through calls of the gRPC server, which it need not leave the process for.

// web is the HTTP side of a Server.
type web struct {
	http  *http.Server      // nil: there is none, and all connections are gRPC's
	inner *bufconn.Listener // where the gRPC server accepts calls from within
	conn  *grpc.ClientConn
	once  *sync.Once // calls from within are served
}

// AlsoHTTP has the server answer HTTP/1 too, with a handler that is made with a connection to the server itself. It is called before
// Serve, at most once.
func (s *Server) AlsoHTTP(handler func(*grpc.ClientConn) (http.Handler, error)) error {
	inner := bufconn.Listen(base.GatewayPipeBytes)
	conn, err := grpc.NewClient("passthrough:///this-node",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return inner.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
	)
	if err != nil {
		return err
	}
	h, err := handler(conn)
	if err != nil {
		_ = conn.Close() // it was not used
		return err
	}
	s.web = web{inner: inner, conn: conn, once: new(sync.Once), http: &http.Server{
		Handler:           http.MaxBytesHandler(h, int64(bodyBytes(s.cfg.MaxRequestBytes))),
		ReadHeaderTimeout: base.HTTPHeaderTimeout,
		IdleTimeout:       base.HTTPIdleTimeout,
		MaxHeaderBytes:    base.HTTPHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug), // of what clients do wrong
	}}
	return nil
}

// bodyBytes is how large the body of a request may be whose message may be so large: base64 is 4 characters for 3 bytes, and JSON may
// be indented. The message itself is bounded by its handler.
func bodyBytes(message int) int { return 2*message + base.RequestOverheadBytes }

// Serve serves a listener's connections until the server is stopped.
func (s *Server) Serve(l net.Listener) error {
	s.counts.know(s.Server)
	if s.web.http == nil {
		return s.Server.Serve(l)
	}
	s.web.once.Do(func() {
		s.inner.Go(func() { _ = s.Server.Serve(s.web.inner) }) // it ends with the server
	})
	sp := newSplit(l, base.FirstBytesTimeout)
	ended := make(chan error, 1)
	go func() {
		err := s.web.http.Serve(sp.http)
		_ = sp.grpc.Close() // one does not go on without the other
		ended <- err
	}()
	err := s.Server.Serve(sp.grpc)
	_ = sp.grpc.Close()
	errHTTP := <-ended
	sp.wait()
	// Whichever side is stopped first closes the listener of both.
	for _, e := range []error{err, errHTTP} {
		if e != nil && !errors.Is(e, http.ErrServerClosed) && !errors.Is(e, net.ErrClosed) {
			return e
		}
	}
	return nil
}

// stopHTTP ends the HTTP side: gracefully, or at once. The calls from within are the gRPC server's to end.
func (s *Server) stopHTTP(gracefully bool) {
	if s.web.http == nil {
		return
	}
	if gracefully {
		_ = s.web.http.Shutdown(context.Background()) // Stop cuts it short
	} else {
		_ = s.web.http.Close()
	}
}

// endHTTP lets go of what the HTTP side held, once nothing uses it.
func (s *Server) endHTTP() {
	if s.web.http == nil {
		return
	}
	_ = s.web.conn.Close() // a second time is an error that says nothing
	s.inner.Wait()
}
