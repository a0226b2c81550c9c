package serve

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestSpeaks(t *testing.T) {
	for _, c := range []struct {
		first         string
		http, decided bool
	}{
		{"P", false, false}, {"PR", false, false}, {"PRI", false, true}, {"PRI * HTTP/2.0", false, true},
		{"PO", true, true}, {"PU", true, true}, {"PAT", true, true}, {"PRO", true, true}, {"G", true, true}, {"DELETE /", true, true},
		{"\x16\x03\x01", false, true}, {"P\x00", false, true}, {"get", false, true}, {"\x00", false, true},
	} {
		if http, decided := speaks([]byte(c.first)); http != c.http || decided != c.decided {
			t.Errorf("%q: http %v, decided %v", c.first, http, decided)
		}
	}
}

// splitOn splits a listener until the test ends.
func splitOn(t *testing.T, patience time.Duration) *split {
	t.Helper()
	s := newSplit(listen(t), patience)
	t.Cleanup(func() {
		_ = s.grpc.Close()
		s.wait()
	})
	return s
}

func dialSplit(t *testing.T, s *split) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.grpc.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// accepted is the next connection of a half, and what it can read.
func accepted(t *testing.T, h *half, n int) string {
	t.Helper()
	c, err := h.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, ok := c.(*net.TCPConn); !ok {
		t.Errorf("a server gets a %T, not the connection itself", c)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatal(err)
	}
	return string(buf)
}

// What a client writes arrives whole, however slowly it writes: nothing that was looked at is missing, and no deadline is left behind.
func TestSplitSlowWriters(t *testing.T) {
	for _, c := range []struct {
		says string
		to   func(*split) *half
	}{
		{http2.ClientPreface, func(s *split) *half { return s.grpc }},
		{"POST /v3/kv/range HTTP/1.1\r\n", func(s *split) *half { return s.http }},
		{"PROPFIND / HTTP/1.1\r\n", func(s *split) *half { return s.http }},
		{"\x16\x03\x01 is TLS", func(s *split) *half { return s.grpc }},
	} {
		s := splitOn(t, time.Minute)
		client := dialSplit(t, s)
		for i := range len(c.says) {
			if _, err := client.Write([]byte{c.says[i]}); err != nil {
				t.Fatal(err)
			}
			awaitUnread(t, s, i+1)
		}
		if got := accepted(t, c.to(s), len(c.says)); got != c.says {
			t.Errorf("%q arrived as %q", c.says, got)
		}
	}
}

// awaitUnread returns when the undecided connection, if there still is one, has so many bytes to be looked at: each piece arrives by itself.
func awaitUnread(t *testing.T, s *split, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); <-tick.C {
		s.mu.Lock()
		none := len(s.undecided) == 0
		s.mu.Unlock()
		if none {
			return
		}
		if n < len(preface) {
			continue // it stays undecided: that is what is tested
		}
	}
}

// Whoever says nothing, or not enough, is let go after a while, and holds nothing.
func TestSplitSilence(t *testing.T) {
	for _, says := range []string{"", "P", "PR"} {
		s := splitOn(t, 50*time.Millisecond)
		client := dialSplit(t, s)
		if _, err := client.Write([]byte(says)); err != nil {
			t.Fatal(err)
		}
		_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %q: %v, and not the end of the connection", says, err)
		}
		// The others are served meanwhile and after.
		other := dialSplit(t, s)
		if _, err := other.Write([]byte("GET / ")); err != nil {
			t.Fatal(err)
		}
		if got := accepted(t, s.http, 6); got != "GET / " {
			t.Errorf("%q", got)
		}
		s.mu.Lock()
		if n := len(s.undecided); n != 0 {
			t.Errorf("%d connections are still looked at", n)
		}
		s.mu.Unlock()
	}
}

// A client that goes away at once, or in the middle of the preface, is none.
func TestSplitClosedAtOnce(t *testing.T) {
	s := splitOn(t, time.Minute)
	for range 20 {
		_ = dialSplit(t, s).Close()
	}
	reset := dialSplit(t, s)
	if _, err := reset.Write([]byte("PR")); err != nil {
		t.Fatal(err)
	}
	_ = reset.(*net.TCPConn).SetLinger(0)
	_ = reset.Close()
	if _, err := dialSplit(t, s).Write([]byte("HEAD")); err != nil {
		t.Fatal(err)
	}
	if got := accepted(t, s.http, 4); got != "HEAD" {
		t.Errorf("%q", got)
	}
}

// Closing ends what waits: those who accept, the connections that say nothing, and those that nobody accepts.
func TestSplitClose(t *testing.T) {
	s := newSplit(listen(t), time.Hour)
	silent, unaccepted := dialSplit(t, s), dialSplit(t, s)
	if _, err := unaccepted.Write([]byte("GET /")); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.grpc.Accept()
		ended <- err
	}()
	if err := s.http.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	s.wait()
	for _, c := range []net.Conn{silent, unaccepted} {
		if _, err := bufio.NewReader(c).ReadByte(); err == nil {
			t.Error("a connection lives on")
		}
	}
	if _, err := s.http.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the end: %v", err)
	}
}

// failing is a listener that has too many files open for a while, and then breaks.
type failing struct {
	net.Listener
	left int
}

type temporary struct{}

func (temporary) Error() string   { return "too many open files" }
func (temporary) Temporary() bool { return true }

var errBroken = errors.New("broken")

func (f *failing) Accept() (net.Conn, error) {
	if f.left--; f.left >= 0 {
		return nil, temporary{}
	}
	return nil, errBroken
}

func TestSplitTriesAgain(t *testing.T) {
	s := newSplit(&failing{listen(t), 3}, time.Minute)
	for _, h := range []*half{s.grpc, s.http} {
		if _, err := h.Accept(); !errors.Is(err, errBroken) {
			t.Errorf("Accept: %v", err)
		}
	}
	s.wait()
}
