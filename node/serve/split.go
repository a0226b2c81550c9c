package serve

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairndb/cairn/internal/base"
)

// split gives the connections of one listener to two servers, by the first bytes that the client sends: gRPC begins with HTTP/2's
// preface, "PRI * HTTP/2.0", and HTTP/1 with a method. The bytes are looked at where they lie, in the socket, and stay there: each
// server gets the very connection that was accepted, not one that is wrapped, so that gRPC's path is what it was without a split, and
// what it sets on the socket (TCP_USER_TIMEOUT) is set. What is neither is gRPC's to refuse, as is an HTTP/2 client that speaks no
// gRPC; etcd does the same.
type split struct {
	root       net.Listener
	patience   time.Duration // how long a connection may say nothing
	grpc, http *half
	done       chan struct{} // closed: no connection is given any more
	once       sync.Once
	wg         sync.WaitGroup

	mu        sync.Mutex
	undecided map[net.Conn]struct{} // the client has not said enough yet
	err       error                 // why the root accepts no more
}

// half is what one of the servers accepts from.
type half struct {
	s     *split
	conns chan net.Conn // unbuffered: what nobody accepts is not given
}

func newSplit(root net.Listener, patience time.Duration) *split {
	s := &split{root: root, patience: patience, done: make(chan struct{}), undecided: make(map[net.Conn]struct{})}
	s.grpc, s.http = &half{s, make(chan net.Conn)}, &half{s, make(chan net.Conn)}
	s.wg.Go(s.accept)
	return s
}

// Accept implements net.Listener.
func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.s.done:
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		return nil, h.s.err
	}
}

// Close implements net.Listener: with one half the whole is closed.
func (h *half) Close() error { return h.s.close(net.ErrClosed) }

// Addr implements net.Listener.
func (h *half) Addr() net.Addr { return h.s.root.Addr() }

// close ends it, with the connections that nobody was given. The first reason is what the servers are told.
func (s *split) close(why error) (err error) {
	s.once.Do(func() {
		s.mu.Lock()
		s.err = why
		close(s.done)
		for c := range s.undecided {
			_ = c.Close() // nothing was read from it
		}
		s.mu.Unlock()
		err = s.root.Close()
	})
	return err
}

// wait returns when nothing of it runs any more, after it was closed.
func (s *split) wait() { s.wg.Wait() }

// accept takes connections until the listener is closed. When there are too many open files it tries again, as gRPC's server does.
func (s *split) accept() {
	var pause time.Duration
	for {
		c, err := s.root.Accept()
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
			pause = 0
			s.wg.Go(func() { s.decide(c) })
		case errors.As(err, &temporary) && temporary.Temporary():
			pause = min(max(2*pause, base.AcceptPauseMin), base.AcceptPauseMax)
			again := time.NewTimer(pause)
			select {
			case <-again.C:
			case <-s.done:
				again.Stop()
				return
			}
		default:
			_ = s.close(err)
			return
		}
	}
}

// decide waits for a connection's first bytes, for a bounded time, and gives it to one of the servers.
func (s *split) decide(c net.Conn) {
	if !s.enter(c) {
		_ = c.Close() // the client finds out, and tries again
		return
	}
	to, err := s.look(c)
	s.leave(c)
	if err != nil {
		_ = c.Close() // it went away, said nothing in time, or the server ends
		return
	}
	select {
	case to.conns <- c:
	case <-s.done:
		_ = c.Close()
	}
}

// enter notes that a connection is looked at; false: there are too many, or the server ends.
func (s *split) enter(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || len(s.undecided) >= base.UndecidedConnections {
		return false
	}
	s.undecided[c] = struct{}{}
	return true
}

func (s *split) leave(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.undecided, c)
}

// look reads which server a connection is for.
func (s *split) look(c net.Conn) (*half, error) {
	if err := c.SetReadDeadline(time.Now().Add(s.patience)); err != nil {
		return nil, err
	}
	http, err := peek(c)
	if err != nil {
		return nil, err
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if http {
		return s.http, nil
	}
	return s.grpc, nil
}

// peek waits until a connection's first bytes say what it speaks, and leaves them where they are.
func peek(c net.Conn) (http bool, err error) {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return false, errors.New("a connection without a socket cannot be looked at")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false, err
	}
	var first [len(preface)]byte
	var failed error
	err = raw.Read(func(fd uintptr) (decided bool) {
		n, _, err := unix.Recvfrom(int(fd), first[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		for errors.Is(err, unix.EINTR) {
			n, _, err = unix.Recvfrom(int(fd), first[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		}
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false // Read waits for the socket
		case err != nil:
			failed = err
			return true
		case n == 0:
			failed = io.EOF
			return true
		}
		http, decided = speaks(first[:n])
		return decided // if not: Read waits until more has come
	})
	return http, errors.Join(err, failed)
}

// preface is as much of HTTP/2's as tells it from every method of HTTP/1.
const preface = "PRI"

// speaks says whether a client that begins so speaks HTTP/1; decided is false if that needs more bytes.
func speaks(first []byte) (http, decided bool) {
	for i, b := range first {
		switch {
		case b < 'A' || b > 'Z':
			return false, true
		case b != preface[i]:
			return true, true
		}
	}
	return false, len(first) == len(preface)
}
